"""Examples of what each type of alert measures: the gauge, the threshold, and the values around it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from evaluator.alerts import ConditionType
from evaluator.balances import BalanceKind, BalanceReading, BalanceSelection
from evaluator.gauges import EVER, INVOICE_KEY, Gauge, InvoiceSelection, Measure
from evaluator.periods import Period
from evaluator.thresholds import Direction, Severity, Threshold, TransitionKind
from evaluator.transitions import Cause

CUSTOMER = "test-customer"
SUBSCRIPTION = "test-subscription"
EVENT = "test-event"
_METRIC, _CURRENCY, _SEAT_KEY = "tokens", "USD", "seat_id"
_DELAY = timedelta(seconds=2)  # from the usage to the evaluation
_BALANCE = ("balance_id", "test-balance")
_SEGMENT = ("segment_number", "1")


@dataclass(frozen=True, slots=True)
class _Example:
    """What a type measures. below, at, above: values on both sides of the threshold.

    by: what moves the gauge: usage, the time alone, or a fact of the billing system, which names no event.
    """

    measure: Measure
    group: tuple[tuple[str, str], ...] = ()
    of_month: bool = False
    at: str = "800"
    below: str = "790"
    above: str = "810"
    by: str = "usage"


def _balance(
    kinds: tuple[BalanceKind, ...],
    reading: BalanceReading = BalanceReading.REMAINING,
    *,
    currency: str | None = _CURRENCY,
    seat_key: str | None = None,
    license_type: str | None = None,
) -> Measure:
    selection = BalanceSelection(kinds, reading, seat_key=seat_key, license_type=license_type)
    return Measure(currency=currency, balances=selection)


def _remaining(*kinds: BalanceKind) -> _Example:
    return _Example(_balance(kinds), at="20", below="19.5", above="20.5")


def _percent(*kinds: BalanceKind) -> _Example:
    return _Example(_balance(kinds, BalanceReading.REMAINING_PERCENT), at="20", below="19.5", above="20.5")


def _days(*kinds: BalanceKind) -> _Example:
    measure = _balance(kinds, BalanceReading.DAYS_LEFT, currency=None)
    return _Example(measure, (_BALANCE, _SEGMENT), at="7", below="6.99998", above="7.00002", by="time")


_COMMIT, _CREDIT, _GRANT = BalanceKind.COMMIT, BalanceKind.CONTRACT_CREDIT, BalanceKind.CREDIT_GRANT
_COST = Measure(currency=_CURRENCY)
_OF_SUBSCRIPTION = Measure(currency=_CURRENCY, per_subscription=True)
_EXAMPLES: Mapping[ConditionType, _Example] = {
    ConditionType.SPEND_THRESHOLD_REACHED: _Example(_COST, of_month=True),
    ConditionType.MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED: _Example(
        Measure(currency=_CURRENCY, invoices=InvoiceSelection(monthly=True)), of_month=True, by="fact"
    ),
    ConditionType.USAGE_THRESHOLD_REACHED: _Example(Measure(metric_id=_METRIC), (("region", "eu"),), of_month=True),
    ConditionType.LOW_REMAINING_DAYS_FOR_COMMIT_SEGMENT_REACHED: _days(_COMMIT),
    ConditionType.LOW_REMAINING_COMMIT_BALANCE_REACHED: _remaining(_COMMIT),
    ConditionType.LOW_REMAINING_COMMIT_PERCENTAGE_REACHED: _percent(_COMMIT),
    ConditionType.LOW_REMAINING_DAYS_FOR_CONTRACT_CREDIT_SEGMENT_REACHED: _days(_CREDIT),
    ConditionType.LOW_REMAINING_CONTRACT_CREDIT_BALANCE_REACHED: _remaining(_CREDIT),
    ConditionType.LOW_REMAINING_CONTRACT_CREDIT_PERCENTAGE_REACHED: _percent(_CREDIT),
    ConditionType.LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_BALANCE_REACHED: _remaining(_CREDIT, _COMMIT),
    ConditionType.LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_PERCENTAGE_REACHED: _percent(_CREDIT, _COMMIT),
    ConditionType.INVOICE_TOTAL_REACHED: _Example(
        Measure(currency=_CURRENCY, invoices=InvoiceSelection()), ((INVOICE_KEY, "test-invoice"),), by="fact"
    ),
    ConditionType.LOW_REMAINING_SEAT_BALANCE_REACHED: _Example(
        _balance((BalanceKind.SEAT_CREDIT,), seat_key=_SEAT_KEY),
        ((_SEAT_KEY, "test-seat"),),
        at="20",
        below="19.5",
        above="20.5",
    ),
    ConditionType.LOW_CREDIT_BALANCE_REACHED: _remaining(_GRANT),
    ConditionType.LOW_REMAINING_CREDIT_PERCENTAGE_REACHED: _percent(_GRANT),
    ConditionType.LOW_REMAINING_DAYS_IN_PLAN_REACHED: _Example(
        Measure(days_in_plan=True), at="14", below="13.99998", above="14.00002", by="time"
    ),
    ConditionType.USAGE_EXCEEDED: _Example(Measure(metric_id=_METRIC, per_subscription=True), of_month=True),
    ConditionType.COST_EXCEEDED: _Example(_OF_SUBSCRIPTION, of_month=True),
    ConditionType.SPEND_EXCEEDED: _Example(_OF_SUBSCRIPTION, of_month=True),
    ConditionType.CREDIT_BALANCE_DEPLETED: _Example(_balance((_GRANT,)), at="0", below="0", above="0.5"),
    ConditionType.CREDIT_BALANCE_DROPPED: _remaining(_GRANT),
    ConditionType.CREDIT_BALANCE_RECOVERED: _Example(_balance((_GRANT,)), at="0", below="0", above="100", by="fact"),
    ConditionType.LICENSE_BALANCE_THRESHOLD_REACHED: _Example(
        _balance(
            (BalanceKind.LICENSE_ALLOTMENT,), BalanceReading.USED_PERCENT, currency=None, license_type="test-license"
        ),
        (_BALANCE,),
        at="80",
        below="79.5",
        above="80.5",
    ),
}


@dataclass(frozen=True, slots=True)
class ConditionExample:
    """A gauge of an alert of one type that reaches, or leaves, its threshold. cause: None: a fact of the billing
    system moved it.
    """

    gauge: Gauge
    threshold: Threshold
    previous: Decimal
    value: Decimal
    cause: Cause | None


def condition_example(condition: ConditionType, kind: TransitionKind, now: datetime) -> ConditionExample:
    """What is measured when an alert of this type is reached, or resolved.

    A balance, and what is left of a time, come back when the billing system says so: no event causes it.
    """
    example = _EXAMPLES[condition]
    is_reached = kind is TransitionKind.REACHED
    rises = (condition.direction is Direction.RISING) is is_reached
    previous, value = (example.below, example.above) if rises else (example.above, example.below)
    cause: Cause | None = None
    if example.by == "usage" and (is_reached or not example.measure.of_facts):
        cause = Cause(EVENT, now - _DELAY)
    elif example.by == "time" and is_reached:
        cause = Cause(None, now)
    threshold = condition.own_threshold or Threshold(Decimal(example.at), code="80 %", severity=Severity.WARNING)
    subscription = SUBSCRIPTION if example.measure.per_subscription else None
    period = month_of(now) if example.of_month else EVER
    gauge = Gauge(CUSTOMER, subscription, example.measure, example.group, period)
    return ConditionExample(gauge, threshold, Decimal(previous), Decimal(value), cause)


def month_of(now: datetime) -> Period:
    """The calendar month of a time in UTC."""
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Period(start, (start + timedelta(days=32)).replace(day=1))

"""Notifications of everything that can be measured, with every kind of threshold and of cause."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from evaluator.alerts import AlertRule, ConditionType, Scope, ScopeKind
from evaluator.balances import BalanceKind, BalanceReading, BalanceSelection
from evaluator.gauges import EVER, Gauge, InvoiceSelection, Measure
from evaluator.notifications import Notification
from evaluator.periods import Period
from evaluator.prices import FilterOperator, PriceField, PriceFilter
from evaluator.thresholds import Direction, Severity, Threshold, ThresholdSet, TransitionKind
from evaluator.transitions import Cause, Transition

NOW = datetime(2026, 3, 15, 12, 0, tzinfo=UTC)
RULE = AlertRule(
    alert_id="alt_aaaaaaaaaaaaaaaaaaaaaaaaaa",
    display_name="four fifths",
    version=3,
    condition_type=ConditionType.USAGE_EXCEEDED,
    scope=Scope(ScopeKind.ALL_CUSTOMERS),
    measure=Measure(metric_id="tokens"),
    groups=(),
    thresholds=ThresholdSet(Direction.RISING, (), None),
    evaluate_on_create=True,
    changed_epoch=1,
    watching_epoch=1,
    watching_time=NOW,
)
PERIOD = Period(NOW, NOW + timedelta(days=31))
PLAIN = Threshold(Decimal(80))
FULL = Threshold(Decimal(80), code="80%", severity=Severity.CRITICAL, resolve_value=Decimal("79.5"))
PERCENT = Threshold(Decimal(80), percent_of_limit=Decimal("12.5"), resolve_percent=Decimal(10))
LADDER = Threshold(recurring_step=Decimal("0.5"))


def transition(
    threshold: Threshold, kind: TransitionKind = TransitionKind.REACHED, *, caused: bool = True
) -> Transition:
    return Transition(
        kind=kind,
        threshold=threshold,
        level=Decimal("-80"),
        previous_value=Decimal("1.5"),
        value=Decimal(100),
        cause=Cause("e-1", NOW) if caused else None,
        notified=True,
    )


def notification(gauge: Gauge, *transitions: Transition) -> Notification:
    return Notification("default", RULE, gauge, 7, NOW, False, transitions)


def notifications() -> Iterator[Notification]:
    """The notifications."""
    usage = Gauge("acme", None, Measure(metric_id="tokens"), (), PERIOD)
    cost = Gauge("acme", "acme-pro", Measure(currency="USD", per_subscription=True), (("region", "eu"),), EVER)
    prices = (PriceFilter(PriceField.ITEM_ID, FilterOperator.EXCLUDES, ("seat",)),)
    some = Gauge("acme", "acme-pro", Measure(currency="USD", per_subscription=True, prices=prices), (), PERIOD)
    contracts = Measure(currency="USD", contract_fields=(("region", "eu"), ("team", "")))
    kinds = (BalanceKind.COMMIT,)
    for reading in BalanceReading:
        group = {
            BalanceReading.REMAINING: (("region", "eu"),),
            BalanceReading.REMAINING_PERCENT: (),
            BalanceReading.USED_PERCENT: (("balance_id", "b-1"),),
            BalanceReading.DAYS_LEFT: (("balance_id", "b-1"), ("segment_number", "2")),
        }[reading]
        unit = None if reading is BalanceReading.DAYS_LEFT else "USD"
        measure = Measure(currency=unit, balances=BalanceSelection(kinds, reading))
        timed = replace(transition(PLAIN), cause=Cause(None, NOW))
        yield notification(Gauge("acme", None, measure, group, EVER), timed)
    yield notification(Gauge("acme", None, Measure(days_in_plan=True), (), EVER), transition(PLAIN))
    invoices = Measure(currency="USD", invoices=InvoiceSelection())
    yield notification(Gauge("acme", None, invoices, (("invoice_id", "i-1"),), EVER), transition(PLAIN, caused=False))
    yield notification(usage, transition(PLAIN))
    held = Measure(metric_id="tokens", counts_held=True)
    yield notification(Gauge("acme", None, held, (), PERIOD), transition(PLAIN))
    yield notification(usage, replace(transition(PLAIN), cause=Cause("e-1", NOW, voided_events=2)))
    yield notification(some, transition(PLAIN))
    yield notification(Gauge("acme", None, contracts, (), PERIOD), transition(PLAIN))
    yield notification(cost, transition(FULL, TransitionKind.RESOLVED))
    yield notification(usage, transition(FULL, caused=False), transition(LADDER))
    yield notification(usage, *[transition(LADDER)] * 60)
    yield replace(notification(usage, transition(PERCENT)), limit=Decimal("640.5"))

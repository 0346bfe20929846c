"""Gauges of balances: the epochs since which they are watched, gauges that read zero, and their groups."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from evaluator.alerts import AlertRule, ConditionType, Scope, ScopeKind
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balance_values import balance_values, gauge_of, next_change, reads_as_zero
from evaluator.balances import (
    BalanceKind,
    BalanceReading,
    BalanceSelection,
    FieldEntity,
    FieldFilter,
    Holding,
    HoldingSegment,
    Specifier,
    Unit,
)
from evaluator.gauges import Measure
from evaluator.periods import DEFAULT_CYCLE
from evaluator.routing_facts import CustomerFacts
from evaluator.thresholds import Direction, Threshold, ThresholdSet
from evaluator.watched_gauges import watched_fact_gauge

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ACME = CustomerFacts("acme", None, "USD", DEFAULT_CYCLE, 0, NOW)


def rule(selection: BalanceSelection, currency: str | None = "USD", *values: str) -> AlertRule:
    threshold_set = ThresholdSet.of(tuple(Threshold(Decimal(value)) for value in values or ("0",)), Direction.FALLING)
    condition = ConditionType.LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_BALANCE_REACHED
    measure = Measure(currency=currency, balances=selection)
    return AlertRule(
        "alt", "a", 1, condition, Scope(ScopeKind.ALL_CUSTOMERS), measure, (), threshold_set, True, 1, 1, NOW
    )


REMAINING = BalanceSelection((BalanceKind.COMMIT,), BalanceReading.REMAINING)


@pytest.mark.parametrize(
    ("customer", "changed", "watching", "required", "continuous"),
    [
        (5, (3, 4), (3, 4), 5, 5),
        (2, (3, 4), (3, 4), 4, 3),
        (2, (4, 3), (4, 3), 4, 3),
        (2, (9, 4), (3, 4), 9, 3),
        (3, (3,), (3,), 3, 3),
        (0, (8,), (6,), 8, 6),
    ],
)
def test_a_gauge_of_facts_is_evaluated_again_after_the_last_change_and_has_no_gap_while_one_alert_watched(
    customer: int, changed: tuple[int, ...], watching: tuple[int, ...], required: int, continuous: int
) -> None:
    alerts = [
        replace(rule(REMAINING), changed_epoch=change, watching_epoch=watch)
        for change, watch in zip(changed, watching, strict=True)
    ]
    gauge = gauge_of("acme", alerts[0].measure, ())
    watch = watched_fact_gauge(gauge, alerts, replace(ACME, changed_epoch=customer))
    assert (watch.required_epoch, watch.continuous_since_epoch) == (required, continuous)
    assert watch.alerts == tuple(alerts)


TEAM, REGION = (FieldFilter(FieldEntity.COMMIT, key) for key in ("team", "region"))
EU = replace(REGION, value="eu")


@pytest.mark.parametrize(
    ("specifiers", "zero"),
    [
        ((), True),
        ((Specifier(),), True),
        ((Specifier((EU,)),), True),
        ((Specifier((REGION,)),), False),
        ((Specifier((EU, TEAM)),), False),
        # One specifier with a single gauge is enough.
        ((Specifier((REGION,)), Specifier((EU,))), True),
        ((Specifier((EU,)), Specifier((REGION,))), True),
    ],
)
def test_a_customer_without_balances_reads_zero_where_a_gauge_has_a_fixed_group(
    specifiers: tuple[Specifier, ...], zero: bool
) -> None:
    selection = replace(REMAINING, specifiers=specifiers)
    assert reads_as_zero(selection) is zero
    assert not reads_as_zero(replace(selection, reading=BalanceReading.REMAINING_PERCENT))
    assert not reads_as_zero(replace(selection, seat_key="seat"))
    alert = rule(selection)
    with exact_arithmetic():
        read = balance_values(alert, "acme", [], NOW)
    assert {gauge.group: one.value for gauge, one in read.items()} == ({(): ZERO} if zero else {})


def holding(name: str, amount: str, end: datetime | None = None, **fields: str) -> Holding:
    segment = HoldingSegment(1, Decimal(amount), ZERO, NOW - DAY, end)
    return Holding(name, BalanceKind.COMMIT, Unit("USD"), (segment,), custom_fields=fields)


@pytest.mark.parametrize("keys", [(TEAM, REGION), (REGION, TEAM)])
def test_groups_are_sorted_by_key_in_any_order_of_a_specifier(keys: tuple[FieldFilter, ...]) -> None:
    alert = rule(replace(REMAINING, specifiers=(Specifier(keys),)))
    held = [holding("a", "1", team="x", region="eu"), holding("b", "2", region="eu", team="x"), holding("c", "4")]
    with exact_arithmetic():
        read = balance_values(alert, "acme", held, NOW)
    assert {gauge.group: one.value for gauge, one in read.items()} == {(("region", "eu"), ("team", "x")): 3}


def test_the_next_change_is_the_next_start_or_end_of_a_segment() -> None:
    alert = rule(REMAINING)

    def coming(*spans: tuple[int, int | None]) -> int | None:
        segments = tuple(
            HoldingSegment(number, ZERO, ZERO, NOW + start * DAY, None if end is None else NOW + end * DAY)
            for number, (start, end) in enumerate(spans)
        )
        with exact_arithmetic():
            found = next_change(alert, [Holding("b", BalanceKind.COMMIT, Unit("USD"), segments)], NOW)
        return None if found is None else (found - NOW) // DAY

    assert coming((2, None)) == 2
    assert coming((-2, None)) is None
    assert coming((-2, 3), (1, None)) == 1
    assert coming((-2, 3), (4, 5), (6, None)) == 3
    assert coming((-3, -1), (-2, 0)) is None
    assert coming((0, None), (-1, 7)) == 7
    assert coming() is None

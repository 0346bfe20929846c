"""Zero, an empty text and an absent value are three different things in each part of an evaluation."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from evaluator.aggregation import Aggregation, Tally
from evaluator.alert_index import WideAlerts
from evaluator.alerts import AlertRule, ConditionType, GroupSelector, Scope, ScopeKind
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balance_values import (
    ENDED,
    NO_DATA,
    FactValue,
    balance_values,
    gauge_of,
    next_level_time,
    segment_group,
)
from evaluator.balances import BalanceKind, BalanceReading, BalanceSelection, Holding, HoldingSegment, Unit
from evaluator.definition_json import thresholds_from_json, thresholds_json
from evaluator.gauges import EVER, Gauge, Group, Measure
from evaluator.limits import LimitChange, Limits, limit_of
from evaluator.notifications import Notification
from evaluator.periods import DEFAULT_CYCLE
from evaluator.routing import Router, group_of
from evaluator.routing_facts import CustomerFacts
from evaluator.thresholds import Direction, Threshold, ThresholdSet, TransitionKind
from evaluator.transitions import AlertState, Cause, Reached, Step, Transition, evaluate, silent_state, trip_levels

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
CALLS = Unit(metric_id="calls")
BOTH = frozenset(TransitionKind)
FALLING, RISING = Direction.FALLING, Direction.RISING


def rule(
    measure: Measure, threshold_set: ThresholdSet, condition: ConditionType = ConditionType.USAGE_THRESHOLD_REACHED
) -> AlertRule:
    scope = Scope(ScopeKind.ALL_CUSTOMERS)
    return AlertRule("alt", "alert", 1, condition, scope, measure, (), threshold_set, True, 1, 1, NOW)


def limits(amount: str | None, group: Group = ()) -> Limits:
    return Limits([LimitChange(CALLS, group, None if amount is None else Decimal(amount), 1)])


@pytest.mark.parametrize("zero", ["0", "0.000", "-0"])
def test_a_limit_of_0_of_the_customer_applies_before_the_limit_of_its_plan(zero: str) -> None:
    own, plan = limits(zero), limits("10")
    assert limit_of((own, plan), CALLS, ()) == ZERO
    assert limit_of((plan, own), CALLS, ()) == 10
    assert limit_of((limits(None), plan), CALLS, ()) == 10
    assert own.find(CALLS, ()) == ZERO
    # A limit that is changed to 0 and then removed, and a limit of 0 that another limit does not change.
    assert Limits([LimitChange(CALLS, (), ZERO, 2)], plan).find(CALLS, ()) == ZERO
    assert Limits([LimitChange(CALLS, (), None, 3)], own).find(CALLS, ()) is None
    assert Limits([LimitChange(CALLS, (("seat", None),), Decimal(1), 3)], own).find(CALLS, ()) == ZERO


def test_the_gauge_of_a_customer_without_any_allowance_has_a_level_at_0() -> None:
    percent = ThresholdSet.of((Threshold(percent_of_limit=Decimal(80)),), RISING)
    router = Router(1, WideAlerts([rule(Measure(metric_id="calls"), percent)]), {"pro": limits("10")})
    for customer, own, expected in (("acme", limits("0"), ZERO), ("beta", Limits(), Decimal(10))):
        router.know_customer(CustomerFacts(customer, "pro", "USD", DEFAULT_CYCLE, 0, NOW, limits=own))
        [target] = router.customer_measures(router.known[customer], (None, "calls", None), NOW)
        watch = target.watched_gauge((), NOW)
        assert watch is not None
        assert watch.limit == expected
        with exact_arithmetic():
            at_limit = percent.with_limit(watch.limit)
            found = evaluate(at_limit, AlertState(), Decimal(-1), [Step(Decimal(1), None)], NOW)
        assert [one.level for one in found.transitions] == [ZERO][: customer == "acme"]


@pytest.mark.parametrize(
    ("direction", "reached_at", "between", "trip"),
    [(RISING, "10", "0.01", (None, ZERO)), (FALLING, "-10", "-0.01", (ZERO, None))],
)
def test_a_threshold_with_a_resolve_value_of_0_resolves_at_0(
    direction: Direction, reached_at: str, between: str, trip: tuple[Decimal | None, Decimal | None]
) -> None:
    thresholds = ThresholdSet.of((Threshold(Decimal(reached_at), resolve_value=ZERO, notify_on=BOTH),), direction)
    steps = [Step(Decimal(value), None) for value in (reached_at, between, "0")]
    with exact_arithmetic():
        reached = evaluate(thresholds, AlertState(), ZERO, steps[:2], NOW)
        assert [one.kind for one in reached.transitions] == [TransitionKind.REACHED]
        assert trip_levels(thresholds, reached.state) == trip
        found = evaluate(thresholds, reached.state, Decimal(between), steps[2:], NOW)
    assert [(one.kind, one.value) for one in found.transitions] == [(TransitionKind.RESOLVED, ZERO)]


@pytest.mark.parametrize("direction", Direction)
def test_a_threshold_at_0_is_reached(direction: Direction) -> None:
    thresholds = ThresholdSet.of((Threshold(ZERO), Threshold(recurring_step=Decimal(5))), direction)
    before = Decimal(-1 if direction is RISING else 1)
    ahead = trip_levels(thresholds, AlertState())
    assert (ahead if direction is RISING else ahead[::-1]) == (ZERO, None)
    with exact_arithmetic():
        found = evaluate(thresholds, AlertState(), before, [Step(ZERO, None)], NOW)
        assert silent_state(thresholds, ZERO, NOW).reached.keys() == found.state.reached.keys() == {"0"}
    assert [one.level for one in found.transitions] == [ZERO]
    assert found.state.reached["0"] == Reached(ZERO, NOW)


def test_thresholds_of_zeros_come_back_from_their_json() -> None:
    kept = (
        Threshold(ZERO, resolve_value=ZERO),
        Threshold(percent_of_limit=ZERO, resolve_percent=ZERO),
        Threshold(Decimal(1)),
        Threshold(percent_of_limit=Decimal(1)),
    )
    assert thresholds_from_json(thresholds_json(kept)) == kept


def test_a_notification_shows_a_limit_of_0_and_a_resolve_value_of_0() -> None:
    threshold = Threshold(percent_of_limit=Decimal(80), resolve_percent=ZERO)
    measure = Measure(metric_id="calls")
    gauge = Gauge("acme", None, measure, (), DEFAULT_CYCLE.period_at(NOW))
    transition = Transition(TransitionKind.REACHED, threshold, ZERO, ZERO, ZERO, Cause("e", NOW), True)

    def shown(limit: Decimal | None, threshold: Threshold) -> tuple[dict[str, str], dict[str, str]]:
        moved = Transition(TransitionKind.REACHED, threshold, ZERO, ZERO, ZERO, transition.cause, True)
        made = Notification(
            "o", rule(measure, ThresholdSet.of((threshold,), RISING)), gauge, 1, NOW, False, (moved,), limit
        )
        data = json.loads(made.body())["data"]
        return data["gauge"], data["transitions"][0]["threshold"]

    of_gauge, of_threshold = shown(ZERO, threshold)
    assert (of_gauge["limit"], of_threshold["resolve_value"]) == ("0", "0")
    of_gauge, of_threshold = shown(None, Threshold(ZERO))
    assert "limit" not in of_gauge
    assert "resolve_value" not in of_threshold
    assert of_threshold["value"] == "0"


def test_an_empty_value_of_a_property_is_a_group_and_a_missing_one_is_none() -> None:
    assert group_of(("region",), {"region": ""}) == (("region", ""),)
    assert group_of(("region", "seat"), {"region": "", "seat": "ann"}) == (("region", ""), ("seat", "ann"))
    assert group_of(("region",), {"seat": "ann"}) is None
    assert group_of((), {}) == ()


def test_a_selector_of_the_empty_value_selects_that_value_only() -> None:
    calls = rule(Measure(metric_id="calls"), ThresholdSet.of((), RISING))
    of_empty, of_each = (replace(calls, groups=(GroupSelector("region", value),)) for value in ("", None))
    for group, selected in (((("region", ""),), True), ((("region", "eu"),), False), ((), False)):
        assert of_empty.selects(group) is selected
        assert of_each.selects(group) is bool(group)


def test_a_maximum_below_0_is_shown_and_a_tally_of_0_is_kept() -> None:
    tally = Tally()
    tally.add(Aggregation.MAX, Decimal(-5), NOW, "e1", None)
    assert tally.value == -5
    counted = Tally(ZERO, NOW)  # a maximum of 0 is known, which is not the same as none
    counted.add(Aggregation.MAX, Decimal(-5), NOW, "e1", None)
    assert counted.value == ZERO
    latest = Tally(Decimal(3), NOW)
    latest.add(Aggregation.LATEST, ZERO, NOW, "e1", None)
    assert latest.value == ZERO


def test_ended_days_read_0_only_when_days_were_left_before() -> None:
    assert ENDED.after(None) is ENDED
    assert ENDED.after(ZERO) is ENDED
    assert ENDED.after(Decimal("0.000001")) == FactValue(ZERO)
    assert FactValue(ZERO).after(Decimal(5)) == FactValue(ZERO)
    assert NO_DATA.after(Decimal(5)) is NO_DATA


def of_balances(reading: BalanceReading, **condition: str) -> AlertRule:
    selection = BalanceSelection((BalanceKind.COMMIT,), reading)
    measure = Measure(currency=condition.get("currency"), balances=selection)
    return rule(
        measure, ThresholdSet.of((Threshold(ZERO),), FALLING), ConditionType.LOW_REMAINING_COMMIT_BALANCE_REACHED
    )


def holding(granted: str, drawn: str, end: datetime | None) -> Holding:
    segment = HoldingSegment(1, Decimal(granted), Decimal(drawn), NOW - DAY, end)
    return Holding("b", BalanceKind.COMMIT, Unit("USD"), (segment,))


def read(of: AlertRule, held: Holding, group: Group = ()) -> FactValue | None:
    with exact_arithmetic():
        return balance_values(of, "acme", [held], NOW).get(gauge_of("acme", of.measure, group))


def test_an_empty_balance_reads_0_and_a_percentage_of_0_granted_has_no_value() -> None:
    remaining = of_balances(BalanceReading.REMAINING, currency="USD")
    percent = of_balances(BalanceReading.REMAINING_PERCENT, currency="USD")
    assert read(remaining, holding("5", "5", None)) == FactValue(ZERO)
    assert read(percent, holding("5", "5", None)) == FactValue(ZERO, Decimal(5))
    assert read(percent, holding("0", "0", None)) == NO_DATA
    assert read(percent, holding("-1", "0", None)) == NO_DATA
    assert read(remaining, holding("0", "0", None)) == FactValue(ZERO)


def test_days_left_are_0_at_the_end_and_absent_after_it() -> None:
    days = of_balances(BalanceReading.DAYS_LEFT)
    group = segment_group("b", 1)
    assert read(days, holding("1", "0", NOW), group) == FactValue(ZERO)
    assert read(days, holding("1", "0", NOW - timedelta.resolution), group) is None
    with exact_arithmetic():
        assert next_level_time(days.thresholds, NOW + DAY, NOW) == NOW + DAY
        assert next_level_time(days.thresholds, NOW, NOW) is None


def test_a_percentage_of_0_is_0_in_both_directions() -> None:
    for reading in (BalanceReading.REMAINING_PERCENT, BalanceReading.USED_PERCENT):
        measure = Measure(currency="USD", balances=BalanceSelection((BalanceKind.COMMIT,), reading))
        with exact_arithmetic():
            assert measure.shown(ZERO, Decimal(3)) == ZERO
            assert measure.stored(ZERO, Decimal(3)) == ZERO
    assert gauge_of("acme", measure, ()).period == EVER

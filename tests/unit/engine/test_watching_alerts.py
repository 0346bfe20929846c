"""Watching alerts: those that a value does not concern are left out, and what is found stays the same."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.evaluation.gauge_evaluation import ALERTS_AT_ONCE, Findings, GaugeEvaluation
from engine.evaluation.silence import Silence
from engine.evaluation.subjects import Movement, Subject, evaluations_of
from evaluator import watching_alerts
from evaluator.aggregation import Aggregation, Tally
from evaluator.alert_index import AlertIndex, WideAlerts
from evaluator.alerts import AlertRule, ConditionType, GroupSelector, Scope, ScopeKind
from evaluator.amounts import exact_arithmetic
from evaluator.events import UsageEvent
from evaluator.gauges import Gauge, Measure
from evaluator.periods import Period
from evaluator.thresholds import Direction, Threshold, ThresholdSet, TransitionKind
from evaluator.watched_gauges import WatchedGauge
from evaluator.watching_alerts import WatchingAlerts
from store.alerts.states import StoredState

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
CALLS = Measure(metric_id="calls")
GAUGE = Gauge("acme", None, CALLS, (), Period(NOW - timedelta(days=1), NOW + timedelta(days=1)))
BOTH = frozenset(TransitionKind)
ALL = Scope(ScopeKind.ALL_CUSTOMERS)

levels = st.integers(1, 20).map(Decimal)
fixed = st.builds(
    lambda level, below: Threshold(level, notify_on=BOTH, resolve_value=None if below is None else level - below),
    levels,
    st.none() | st.integers(0, 5),
)
recurring = st.builds(lambda step: Threshold(recurring_step=step, notify_on=BOTH), levels)
threshold_sets = st.lists(fixed, max_size=3, unique_by=lambda one: one.value).flatmap(
    lambda some: st.builds(
        lambda last: ThresholdSet.of((*some, *(() if last is None else (last,))), Direction.RISING),
        st.none() | recurring,
    )
)
moves = st.lists(st.integers(-8, 12).map(Decimal), max_size=4)


def rule(number: int, thresholds: ThresholdSet, scope: Scope = ALL, measure: Measure = CALLS) -> AlertRule:
    return AlertRule(
        *(f"alt_{number}", "a", 1, ConditionType.USAGE_THRESHOLD_REACHED, scope, measure, (), thresholds, True),
        *(number + 1, number + 1, NOW),
        create_epoch=number,
    )


def at(*values: int) -> ThresholdSet:
    return ThresholdSet.of(tuple(Threshold(Decimal(value)) for value in values), Direction.RISING)


def subject(rules: Sequence[AlertRule], before: Decimal, amounts: Sequence[Decimal], rules_epoch: int) -> Subject:
    watch = WatchedGauge(GAUGE, WatchingAlerts(rules), Aggregation.SUM, None, len(rules), 0, 0, NOW)
    movement = Movement(watch)
    with exact_arithmetic():
        for number, amount in enumerate(amounts):
            event = UsageEvent(str(number), "acme", NOW, "calls", amount, None, None, None, {}, None)
            movement.add(amount, event)
    return Subject(movement, rules_epoch, Tally(before))


def evaluated(rounds: Sequence[tuple[Decimal, Sequence[Decimal], int]], rules: Sequence[AlertRule]) -> list[Findings]:
    """What is found in each round, with the states of the rounds before."""
    states: dict[tuple[object, str], StoredState] = {}
    found = []
    for before, amounts, rules_epoch in rounds:
        evaluation = GaugeEvaluation("o", 99, NOW, dict(states), Silence(set()), frozenset())  # type: ignore[arg-type]
        with exact_arithmetic():
            for _ in evaluation.evaluate(subject(rules, before, amounts, rules_epoch)):
                pass
        states |= {(one.gauge.gauge_id, one.alert_id): one for one in evaluation.findings.states}
        found.append(evaluation.findings)
    return found


@given(st.lists(threshold_sets, min_size=1, max_size=8), st.lists(moves, min_size=1, max_size=4), st.integers(0, 9))
def test_the_alerts_that_a_value_concerns_find_what_all_alerts_find(
    sets: list[ThresholdSet], all_moves: list[list[Decimal]], epoch: int
) -> None:
    rules = [rule(number, thresholds) for number, thresholds in enumerate(sets)]
    rounds, value = [], Decimal(0)
    for amounts in all_moves:
        rounds.append((value, amounts, epoch))
        value += sum(amounts, Decimal(0))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(watching_alerts, "FEW_ALERTS", 0)
        some = evaluated(rounds, rules)
        patched.setattr(watching_alerts, "FEW_ALERTS", len(rules) + 1)
        assert some == evaluated(rounds, rules)


def test_alerts_above_a_value_are_not_evaluated() -> None:
    rules = [rule(number, at(10 * number)) for number in range(1, 8)]
    watching = WatchingAlerts(rules)
    concerned, following = watching.concerned(Decimal(20), ())
    assert [one.alert_id for one in concerned] == ["alt_1", "alt_2"]
    assert following == 30
    concerned, following = watching.concerned(Decimal(5), ("alt_3", "alt_1", "another"))
    assert [one.alert_id for one in concerned] == ["alt_1", "alt_3"]
    assert following == 20
    assert watching.concerned(Decimal(70), ()) == (rules, None)
    assert [watching.reached_by(Decimal(value)) for value in (5, 20, 99)] == [0, 2, 7]
    assert evaluations_of(subject(rules, Decimal(5), [Decimal(25)], 0)) == 3
    assert evaluations_of(subject(rules, Decimal(5), [], 0)) == 1


def test_the_evaluation_of_a_gauge_with_many_alerts_can_be_interrupted() -> None:
    rules = [rule(number, at(5)) for number in range(5 * ALERTS_AT_ONCE)]
    evaluation = GaugeEvaluation("o", 999, NOW, {}, Silence(set()), frozenset())
    sizes = []
    with exact_arithmetic():
        for _ in evaluation.evaluate(subject(rules, Decimal(0), [Decimal(9)], 0)):
            sizes.append(len(evaluation.findings.states))
    assert sizes == [ALERTS_AT_ONCE * part for part in range(1, 6)]


def test_customers_share_what_wide_alerts_have_in_common_until_one_of_the_measure_changes() -> None:
    gold = Scope(ScopeKind.PLAN, plan_id="gold")
    wide = WideAlerts([rule(1, at(1)), rule(2, at(2), gold)])
    of_all, of_gold = wide.by_keys(CALLS, None), wide.by_keys(CALLS, "gold")
    assert [one.alert_id for one in of_all[()].rules] == ["alt_1"]
    assert [one.alert_id for one in of_gold[()].rules] == ["alt_1", "alt_2"]
    assert wide.by_keys(CALLS, "silver") is of_all
    assert of_all[()].watching(()) is of_all[()].watching(())
    other = Measure(metric_id="other")
    assert not wide.by_keys(other, None)
    wide.put(rule(3, at(3), measure=other))
    assert wide.by_keys(CALLS, None) is of_all
    wide.put(rule(4, at(4)))
    assert [one.alert_id for one in wide.by_keys(CALLS, "gold")[()].rules] == ["alt_1", "alt_2", "alt_4"]
    wide.remove("alt_2")
    assert [one.alert_id for one in wide.by_keys(CALLS, "gold")[()].rules] == ["alt_1", "alt_4"]
    assert [one.alert_id for one in of_gold[()].rules] == ["alt_1", "alt_2"]  # what others may still use


def test_alerts_with_values_of_their_group_keys_watch_only_gauges_of_these() -> None:
    def grouped(number: int, value: str | None) -> AlertRule:
        return replace(rule(number, at(5)), groups=(GroupSelector("region", value),))

    index = AlertIndex([grouped(1, None), grouped(2, "eu"), grouped(3, "us")])
    alike = watching_alerts.by_keys(index)[("region",)]
    found = alike.watching((("region", "eu"),))
    assert found is not None
    assert [one.alert_id for one in found.rules] == ["alt_1", "alt_2"]
    assert [one.alert_id for one in found.fanning_out] == ["alt_1"]
    only = watching_alerts.by_keys([grouped(3, "us")])[("region",)]
    assert only.watching((("region", "eu"),)) is None

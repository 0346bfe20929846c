"""The thresholds of a group: those of the alert, or those of the most specific override."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.alerts import AlertRule, ConditionType, GroupSelector, Scope, ScopeKind
from evaluator.definition_json import condition_from_json, condition_json
from evaluator.definitions import Condition
from evaluator.gauges import Group, Measure
from evaluator.overrides import MostSpecific, Override
from evaluator.thresholds import Direction, Threshold, ThresholdSet
from evaluator.transitions import AlertState, Step, evaluate, silent_state, trip_levels
from tests.support.evaluator.definitions import definition

NOW = datetime(2026, 3, 15, tzinfo=UTC)
TEN, FIVE = Threshold(Decimal(10)), Threshold(Decimal(5))
RULE = AlertRule(
    alert_id="alt_1",
    display_name="cost",
    version=1,
    condition_type=ConditionType.COST_EXCEEDED,
    scope=Scope(ScopeKind.PLAN, plan_id="gold"),
    measure=Measure(currency="USD", per_subscription=True),
    groups=(GroupSelector("model"), GroupSelector("region")),
    thresholds=ThresholdSet.of((TEN,), Direction.RISING),
    evaluate_on_create=True,
    changed_epoch=1,
    watching_epoch=1,
    watching_time=NOW,
)
LARGE: Group = (("model", "large"),)
EU: Group = (("region", "eu"),)


@pytest.mark.parametrize(
    ("bound", "found"),
    [
        ([], None),
        ([LARGE], 0),
        ([EU, LARGE], 0),
        ([LARGE, EU], 0),
        ([EU, (*LARGE, *EU)], 1),
        ([(("model", "small"),), EU], 1),
        ([(("model", "small"), *EU)], None),
        ([(("tier", "a"),)], None),
        ([(*LARGE, *EU, ("tier", "a")), LARGE], 1),
    ],
)
def test_the_override_with_most_keys_applies_and_of_equals_the_first(bound: list[Group], found: int | None) -> None:
    places = MostSpecific((group, place) for place, group in enumerate(bound))
    assert places.find((*LARGE, *EU)) == found


groups = st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"), min_size=1).map(
    lambda one: tuple(sorted(one.items()))
)


@given(st.lists(groups, unique=True, max_size=12), st.dictionaries(st.sampled_from("abc"), st.sampled_from("12")))
def test_the_index_finds_the_same_override_as_a_scan(bound: list[Group], own: dict[str, str]) -> None:
    fitting = [group for group in bound if set(group) <= set(own.items())]
    best = max(fitting, key=lambda group: (len(group), -bound.index(group)), default=None)
    assert MostSpecific((group, group) for group in bound).find(tuple(sorted(own.items()))) == best


def test_an_override_applies_in_any_order_of_its_keys() -> None:
    rule = replace(RULE, overrides=(Override((*EU, *LARGE), (FIVE,)),))
    assert rule.thresholds_for((*LARGE, *EU)).fixed == (FIVE,)
    assert rule.thresholds_for((("model", "small"), *EU)) is rule.thresholds


def test_a_group_without_thresholds_reaches_none_and_never_notifies() -> None:
    threshold_set = replace(RULE, overrides=(Override(LARGE, ()),)).thresholds_for((*LARGE, *EU))
    evaluation = evaluate(threshold_set, AlertState(), Decimal(0), [Step(Decimal(1_000), None)], NOW)
    assert not evaluation.transitions
    assert not evaluation.state.in_alarm
    assert not silent_state(threshold_set, Decimal(1_000), NOW).reached
    assert trip_levels(threshold_set, evaluation.state) == (None, None)


def test_a_definition_has_its_overrides_after_it_is_stored_and_read() -> None:
    overrides = (Override((*EU, *LARGE), (TEN, FIVE)), Override(LARGE, ()))
    condition = Condition(ConditionType.COST_EXCEEDED, currency="USD", groups=RULE.groups, overrides=overrides)
    assert condition_from_json(condition.condition_type, condition_json(condition)) == condition
    made = definition(condition, Threshold(Decimal(7)))
    assert made.thresholds_for((*LARGE, *EU)) == (TEN, FIVE)
    assert made.thresholds_for((*LARGE, ("region", "us"))) == ()
    assert made.thresholds_for((("model", "small"), *EU)) == made.thresholds
    assert made.to_rule().thresholds_for((*LARGE, *EU)).fixed == (FIVE, TEN)

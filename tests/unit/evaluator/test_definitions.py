"""Alert definitions: their JSON forms, the rules that they become, and their natural keys."""

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.alerts import ConditionType, GroupSelector, Scope, ScopeKind
from evaluator.amounts import MAX_DECIMALS
from evaluator.definition_json import condition_from_json, condition_json, thresholds_from_json, thresholds_json
from evaluator.definitions import Condition, DefinitionState, natural_key
from evaluator.gauges import Measure
from evaluator.thresholds import Severity, Threshold, TransitionKind
from tests.support.evaluator.definitions import NOW, definition

SUBSCRIPTION = Scope(ScopeKind.SUBSCRIPTION, customer_id="acme", subscription_id="pro")
PLAN = Scope(ScopeKind.PLAN, plan_id="gold")


amounts = st.decimals(
    allow_nan=False, allow_infinity=False, places=MAX_DECIMALS, min_value=-(10**19), max_value=10**19
)
thresholds = st.builds(
    Threshold,
    value=amounts,
    code=st.text(max_size=5),
    severity=st.none() | st.sampled_from(Severity),
    resolve_value=st.none() | amounts,
    notify_on=st.frozensets(st.sampled_from(TransitionKind), min_size=1),
) | st.builds(Threshold, recurring_step=amounts.filter(lambda amount: amount > 0))
selectors = st.builds(GroupSelector, st.text(min_size=1), st.none() | st.text())
conditions = st.builds(
    Condition,
    st.sampled_from(ConditionType),
    st.none() | st.text(min_size=1),
    st.none() | st.text(min_size=1),
    st.lists(selectors, max_size=3).map(tuple),
)


@given(st.lists(thresholds).map(tuple))
def test_thresholds_are_equal_after_they_are_stored_and_read(given_thresholds: tuple[Threshold, ...]) -> None:
    stored = json.loads(json.dumps(thresholds_json(given_thresholds)))
    assert thresholds_from_json(stored) == given_thresholds


@given(conditions)
def test_conditions_are_equal_after_they_are_stored_and_read(condition: Condition) -> None:
    stored = json.loads(json.dumps(condition_json(condition)))
    assert condition_from_json(condition.condition_type, stored) == condition


def test_amounts_are_stored_as_text_without_loss() -> None:
    value = "12345678901234567890.123456789012345678"
    assert thresholds_json([Threshold(Decimal(value))])[0]["value"] == value


@pytest.mark.parametrize(
    ("condition", "measure"),
    [
        (Condition(ConditionType.SPEND_THRESHOLD_REACHED, currency="EUR"), Measure(currency="EUR")),
        (Condition(ConditionType.USAGE_THRESHOLD_REACHED, metric_id="calls"), Measure(metric_id="calls")),
        (
            Condition(ConditionType.USAGE_EXCEEDED, metric_id="calls"),
            Measure(metric_id="calls", per_subscription=True),
        ),
        (
            Condition(ConditionType.COST_EXCEEDED, currency="USD"),
            Measure(currency="USD", per_subscription=True),
        ),
        (
            Condition(ConditionType.SPEND_EXCEEDED, currency="USD"),
            Measure(currency="USD", per_subscription=True),
        ),
    ],
)
def test_each_condition_has_its_measure(condition: Condition, measure: Measure) -> None:
    rule = definition(condition, Threshold(Decimal(1))).active_rule()
    assert rule is not None
    assert (rule.measure, rule.condition_type) == (measure, condition.condition_type)


def test_a_rule_has_the_definition_with_groups_by_key_and_thresholds_by_value() -> None:
    groups = (GroupSelector("zone"), GroupSelector("model", "large"))
    condition = Condition(ConditionType.SPEND_THRESHOLD_REACHED, currency="USD", groups=groups)
    thresholds = (Threshold(Decimal(20)), Threshold(recurring_step=Decimal(5)), Threshold(Decimal(10)))
    rule = definition(condition, *thresholds).active_rule()
    assert rule is not None
    assert rule.groups == (GroupSelector("model", "large"), GroupSelector("zone"))
    assert [threshold.value for threshold in rule.thresholds.fixed] == [10, 20]
    assert rule.thresholds.recurring == thresholds[1]
    assert (rule.version, rule.changed_epoch, rule.watching_epoch, rule.watching_time) == (3, 7, 5, NOW)


@pytest.mark.parametrize("state", [DefinitionState.DISABLED, DefinitionState.ARCHIVED])
def test_only_an_active_alert_is_a_rule(state: DefinitionState) -> None:
    condition = Condition(ConditionType.USAGE_EXCEEDED, metric_id="calls")
    assert definition(condition, Threshold(Decimal(1)), state=state).active_rule() is None


def usage(metric_id: str) -> Condition:
    return Condition(ConditionType.USAGE_EXCEEDED, metric_id=metric_id)


def cost(currency: str, *keys: str) -> Condition:
    groups = tuple(GroupSelector(key) for key in keys)
    return Condition(ConditionType.COST_EXCEEDED, currency=currency, groups=groups)


def spend(currency: str) -> Condition:
    return Condition(ConditionType.SPEND_EXCEEDED, currency=currency)


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        (usage("a"), usage("a"), True),
        (usage("a"), usage("b"), False),
        (cost("USD"), cost("EUR"), True),
        (cost("USD"), cost("USD", "model"), False),
        (cost("USD", "model", "zone"), cost("USD", "zone", "model"), True),
        (cost("USD", "model"), cost("EUR", "model"), False),
        (spend("USD"), spend("USD"), True),
        (spend("USD"), spend("EUR"), False),
        (cost("USD"), spend("USD"), False),
    ],
)
def test_natural_keys_are_equal_only_for_alerts_that_a_subscription_can_have_once(
    one: Condition, other: Condition, clash: bool
) -> None:
    for scope in (SUBSCRIPTION, PLAN):
        assert (natural_key(scope, one) == natural_key(scope, other)) is clash


def test_natural_keys_differ_for_subscriptions_customers_and_plans() -> None:
    scopes = [
        SUBSCRIPTION,
        replace(SUBSCRIPTION, subscription_id="team"),
        replace(SUBSCRIPTION, customer_id="globex"),
        replace(SUBSCRIPTION, customer_id="ac", subscription_id="mepro"),
        PLAN,
        replace(PLAN, plan_id="acme"),
    ]
    assert len({natural_key(scope, usage("a")) for scope in scopes}) == len(scopes)


def test_alerts_of_customers_have_no_natural_key() -> None:
    scope = Scope(ScopeKind.CUSTOMER, customer_id="acme")
    assert natural_key(scope, Condition(ConditionType.USAGE_THRESHOLD_REACHED, metric_id="a")) is None
    assert natural_key(PLAN, Condition(ConditionType.SPEND_THRESHOLD_REACHED, currency="USD")) is None


def test_the_longest_natural_key_fits_into_an_index_entry() -> None:
    longest = "🌊" * 128
    scope = Scope(ScopeKind.SUBSCRIPTION, customer_id=longest, subscription_id=longest)
    key = natural_key(scope, cost("x" * 64, longest, longest + "2", longest + "3"))
    assert key is not None
    assert len(key.encode()) < 2704

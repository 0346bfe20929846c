"""The gauges that an event moves, the alerts that watch them, and the epochs since which they do."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from evaluator.aggregation import Aggregation
from evaluator.alert_index import NO_ALERTS, AlertIndex, WideAlerts
from evaluator.alerts import AlertRule, ConditionType, GroupSelector, Scope, ScopeKind
from evaluator.gauges import Gauge, Measure
from evaluator.periods import DEFAULT_CYCLE, BillingCycle, Cadence, Period
from evaluator.prices import FilterOperator, PriceField, PriceFilter
from evaluator.routing import Router, group_of
from evaluator.routing_facts import CustomerFacts, MetricFacts, SubscriptionFacts
from evaluator.thresholds import Direction, Threshold, ThresholdSet
from evaluator.watched_gauges import COUNTING_MARGIN, WatchedGauge

NOON = datetime(2026, 3, 15, 12, tzinfo=UTC)
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)
MARCH = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
WEEKS = BillingCycle(datetime(2026, 3, 2, tzinfo=UTC), Cadence.WEEK, 1, "UTC")

EVERYBODY = Scope(ScopeKind.ALL_CUSTOMERS)
CALLS, COST = Measure(metric_id="calls"), Measure(currency="USD")
OWN_CALLS = Measure(metric_id="calls", per_subscription=True)


def rule(name: str, measure: Measure = CALLS, scope: Scope = EVERYBODY, *keys: str, **changes: Any) -> AlertRule:
    """An alert that watches since epoch 1; a key may name its value: `region=eu`."""
    groups = tuple(
        GroupSelector(key, value or None) for key, _, value in (item.partition("=") for item in sorted(keys))
    )
    known: dict[str, Any] = {
        "alert_id": name,
        "display_name": name,
        "version": 1,
        "condition_type": ConditionType.USAGE_EXCEEDED,
        "scope": scope,
        "measure": measure,
        "groups": groups,
        "thresholds": ThresholdSet.of((Threshold(Decimal(1)),), Direction.RISING),
        "evaluate_on_create": True,
        "changed_epoch": 1,
        "watching_epoch": 1,
        "watching_time": LONG_AGO,
    }
    return AlertRule(**(known | changes))


def router(
    *rules: AlertRule,
    plan: str | None = None,
    subscription_plan: str | None = None,
    changed_epoch: int = 0,
    cycle: BillingCycle = DEFAULT_CYCLE,
    own_cycle: BillingCycle | None = None,
) -> Router:
    """A router that knows the customer `acme` and its subscription `pro`."""
    made = Router(9, WideAlerts(one for one in rules if one.scope.customer_id is None))
    own = AlertIndex(one for one in rules if one.scope.customer_id == "acme")
    made.know_customer(CustomerFacts("acme", plan, "EUR", cycle, changed_epoch, LONG_AGO, alerts=own))
    made.know_subscription(SubscriptionFacts("acme", "pro", subscription_plan, None, own_cycle, 0, LONG_AGO))
    made.metrics["calls"] = MetricFacts("calls", Aggregation.SUM, None)
    return made


def watches(
    router: Router,
    properties: Mapping[str, str] | None = None,
    *,
    subscription: str | None = None,
    metric: str = "calls",
    currency: str | None = None,
    time: datetime = NOON,
) -> list[WatchedGauge]:
    """The gauges that an event of acme moves."""
    found = []
    for target in router.customer_measures(router.known["acme"], (subscription, metric, currency), time):
        for keys in target.by_keys:
            group = group_of(keys, properties or {})
            watch = None if group is None else target.watched_gauge(group, time)
            found += [] if watch is None else [watch]
    return found


def named(found: list[WatchedGauge]) -> dict[tuple[str | None, str, tuple[tuple[str, str], ...]], list[str]]:
    """The names of the alerts on each gauge, by subscription, measure and group."""
    return {
        (watch.gauge.subscription_id, watch.gauge.measure.key, watch.gauge.group): [
            one.display_name for one in watch.alerts
        ]
        for watch in found
    }


def test_an_excluded_customer_is_not_watched_and_others_are() -> None:
    pro = Scope(ScopeKind.SUBSCRIPTION, customer_id="acme", subscription_id="pro")
    made = router(rule("a"), rule("b"), rule("c", OWN_CALLS, pro), rule("d", OWN_CALLS, pro))
    made.know_customer(replace(made.customer("acme"), customer_id="other", alerts=NO_ALERTS))
    assert len(watches(made, subscription="pro")) == 2
    made.exclude("acme", "a", None)
    made.exclude("acme", "d", "pro")
    made.exclude("acme", "c", "free")
    made.exclude("nobody", "b", None)
    assert named(watches(made, subscription="pro")) == {
        (None, "usage/calls", ()): ["b"],
        ("pro", "usage/calls", ()): ["c"],
    }
    [target] = made.customer_measures(made.known["other"], (None, "calls", None), NOON)
    assert [one.display_name for one in target.by_keys[()].rules] == ["a", "b"]
    made.exclude("acme", "b", None)
    assert named(watches(made)) == {}


def test_an_event_is_routed_to_every_selection_of_prices_in_its_currency() -> None:
    prices = (PriceFilter(PriceField.PRICE_ID, FilterOperator.INCLUDES, ("gpu",)),)
    own, some = (Measure(currency="USD", per_subscription=True, prices=one) for one in ((), prices))
    made = router(rule("all", own), rule("some", some), rule("euros", replace(some, currency="EUR")))

    def found(currency: str, subscription: str | None) -> dict[str, tuple[PriceFilter, ...]]:
        targets = made.customer_measures(made.known["acme"], (subscription, "calls", currency), NOON)
        return {target.by_keys[()].rules[0].display_name: target.prices for target in targets}

    assert found("USD", "pro") == {"all": (), "some": prices}
    assert found("EUR", "pro") == {"euros": prices}
    assert found("USD", None) == {}


def test_an_event_moves_nothing_when_no_alert_watches() -> None:
    made = router(rule("tokens", Measure(metric_id="tokens")), rule("euros", Measure(currency="EUR")))
    assert watches(made, currency="USD", subscription="pro") == []


def test_an_event_moves_the_gauges_of_its_metric_its_currency_its_customer_and_its_subscription() -> None:
    own_cost = Measure(currency="USD", per_subscription=True)
    pro = Scope(ScopeKind.SUBSCRIPTION, customer_id="acme", subscription_id="pro")
    made = router(rule("a"), rule("b", COST), rule("c", OWN_CALLS, pro), rule("d", own_cost, pro), rule("e"))
    assert named(watches(made, currency="USD", subscription="pro")) == {
        (None, "usage/calls", ()): ["a", "e"],
        (None, "cost/USD", ()): ["b"],
        ("pro", "usage/calls", ()): ["c"],
        ("pro", "cost/USD", ()): ["d"],
    }
    assert named(watches(made)) == {(None, "usage/calls", ()): ["a", "e"]}


@pytest.mark.parametrize(
    ("scope", "measure", "covered"),
    [
        (EVERYBODY, CALLS, True),
        (Scope(ScopeKind.CUSTOMER, customer_id="acme"), CALLS, True),
        (Scope(ScopeKind.CUSTOMER, customer_id="other"), CALLS, False),
        (Scope(ScopeKind.PLAN, plan_id="gold"), CALLS, True),
        (Scope(ScopeKind.PLAN, plan_id="silver"), CALLS, False),
        (Scope(ScopeKind.PLAN, plan_id="silver"), OWN_CALLS, True),
        (Scope(ScopeKind.PLAN, plan_id="gold"), OWN_CALLS, False),
        (Scope(ScopeKind.SUBSCRIPTION, customer_id="acme", subscription_id="pro"), OWN_CALLS, True),
        (Scope(ScopeKind.SUBSCRIPTION, customer_id="acme", subscription_id="free"), OWN_CALLS, False),
        (Scope(ScopeKind.SUBSCRIPTION, customer_id="other", subscription_id="pro"), OWN_CALLS, False),
    ],
)
def test_the_plan_of_a_measure_is_that_of_the_customer_or_the_subscription(
    scope: Scope, measure: Measure, covered: bool
) -> None:
    made = router(rule("a", measure, scope), plan="gold", subscription_plan="silver")
    assert bool(watches(made, subscription="pro")) is covered


def test_an_alert_of_a_plan_does_not_cover_a_customer_without_a_plan() -> None:
    made = router(rule("a", scope=Scope(ScopeKind.PLAN, plan_id="gold")), plan=None)
    assert watches(made) == []


def test_group_keys_divide_and_group_values_narrow_gauges() -> None:
    made = router(
        rule("all"),
        rule("fan", CALLS, EVERYBODY, "region"),
        rule("eu", CALLS, EVERYBODY, "region=eu"),
        rule("two", CALLS, EVERYBODY, "tier", "region=eu"),
    )
    everything = (None, "usage/calls", ())
    assert named(watches(made, {"region": "eu", "tier": "a", "noise": "x"})) == {
        everything: ["all"],
        (None, "usage/calls", (("region", "eu"),)): ["eu", "fan"],
        (None, "usage/calls", (("region", "eu"), ("tier", "a"))): ["two"],
    }
    assert named(watches(made, {"region": "us", "tier": "a"})) == {
        everything: ["all"],
        (None, "usage/calls", (("region", "us"),)): ["fan"],
    }
    assert named(watches(made, {"tier": "a"})) == {everything: ["all"]}
    assert named(watches(made, {"region": ""})) == {
        everything: ["all"],
        (None, "usage/calls", (("region", ""),)): ["fan"],
    }


def test_each_period_has_a_gauge_of_its_own_and_the_same_one_again() -> None:
    made = router(rule("a"))
    [march], [april], [again] = (
        watches(made, time=time) for time in (NOON, NOON + timedelta(days=30), NOON + timedelta(days=1))
    )
    assert march is again
    assert march.gauge.period == MARCH
    assert april.gauge.period.start == MARCH.end
    assert march.gauge.gauge_id != april.gauge.gauge_id


def test_a_period_contains_its_start_and_not_its_end() -> None:
    made = router(rule("a"))
    for time, start in (
        (MARCH.start, MARCH.start),
        (MARCH.end - timedelta(microseconds=1), MARCH.start),
        (MARCH.end, MARCH.end),
    ):
        [watch] = watches(made, time=time)
        assert watch.gauge.period.start == start


def test_a_subscription_follows_its_own_cycle_or_else_its_customers() -> None:
    everyones = rule("a", OWN_CALLS, Scope(ScopeKind.SUBSCRIPTION, customer_id="acme", subscription_id="pro"))
    for own_cycle, days in ((WEEKS, 7), (None, 31)):
        [watch] = watches(router(everyones, own_cycle=own_cycle), subscription="pro")
        assert watch.gauge.period.end - watch.gauge.period.start == timedelta(days=days)


def test_the_last_period_to_end_is_the_customers_or_the_subscriptions() -> None:
    weekly = router(own_cycle=WEEKS)
    assert weekly.last_period_end("acme", None, NOON) == MARCH.end
    assert weekly.last_period_end("acme", "pro", NOON) == MARCH.end
    monthly = router(cycle=WEEKS, own_cycle=DEFAULT_CYCLE)
    assert monthly.last_period_end("acme", None, NOON) == datetime(2026, 3, 16, tzinfo=UTC)
    assert monthly.last_period_end("acme", "pro", NOON) == MARCH.end


def test_usage_has_the_aggregation_of_its_metric_and_cost_is_summed() -> None:
    made = router(rule("a"), rule("b", COST))
    made.metrics["calls"] = MetricFacts("calls", Aggregation.UNIQUE_COUNT, "seat")
    usage, cost = watches(made, currency="USD")
    assert (usage.aggregation, usage.unique_property) == (Aggregation.UNIQUE_COUNT, "seat")
    assert (cost.aggregation, cost.unique_property) == (Aggregation.SUM, None)


def test_a_cost_without_a_currency_has_that_of_the_subscription_or_the_customer() -> None:
    made = router()
    assert made.currency_of("acme", None) == made.currency_of("acme", "pro") == "EUR"
    made.know_subscription(SubscriptionFacts("acme", "pro", None, "tokens", None, 0, LONG_AGO))
    assert made.currency_of("acme", "pro") == "tokens"


def test_a_gauge_is_evaluated_again_after_any_change_and_not_recounted_while_one_alert_watched() -> None:
    old, new = rule("old"), rule("new", changed_epoch=7, watching_epoch=7)
    [both] = watches(router(old, new))
    assert (both.required_epoch, both.continuous_since_epoch) == (7, 1)
    [only_new] = watches(router(new))
    assert (only_new.required_epoch, only_new.continuous_since_epoch) == (7, 7)
    edited = rule("edited", changed_epoch=5, watching_epoch=2)
    [since_the_edit] = watches(router(edited))
    assert (since_the_edit.required_epoch, since_the_edit.continuous_since_epoch) == (5, 2)
    [after_the_customer_changed] = watches(router(old, new, changed_epoch=8))
    assert (after_the_customer_changed.required_epoch, after_the_customer_changed.continuous_since_epoch) == (8, 8)


@pytest.mark.parametrize(
    ("watching_since", "from_the_start"),
    [
        (MARCH.start - COUNTING_MARGIN - timedelta(microseconds=1), True),
        (MARCH.start - COUNTING_MARGIN, False),
        (NOON, False),
    ],
)
def test_a_period_was_counted_from_its_start_when_it_began_well_after_the_first_watch(
    watching_since: datetime, from_the_start: bool
) -> None:
    [watch] = watches(router(rule("a", watching_time=watching_since)))
    assert watch.counted_from_the_start is from_the_start
    [longer] = watches(router(rule("a", watching_time=watching_since), rule("b")))
    assert longer.counted_from_the_start


def test_a_gauges_id_differs_with_each_part_of_its_identity_and_with_nothing_else() -> None:
    base = Gauge("acme", None, CALLS, (), MARCH)
    others = [
        Gauge("beta", None, CALLS, (), MARCH),
        Gauge("acme", "pro", OWN_CALLS, (), MARCH),
        Gauge("acme", None, COST, (), MARCH),
        Gauge("acme", None, Measure(metric_id="tokens"), (), MARCH),
        Gauge("acme", None, Measure(currency="calls"), (), MARCH),
        Gauge("acme", None, CALLS, (("region", "eu"),), MARCH),
        Gauge("acme", None, CALLS, (("region", "e"), ("u", "")), MARCH),
        Gauge("acme", None, CALLS, (), Period(MARCH.start, NOON)),
        Gauge("acme", None, CALLS, (), Period(NOON, MARCH.end)),
    ]
    assert len({gauge.gauge_id for gauge in [base, *others]}) == len(others) + 1
    assert Gauge("acme", None, Measure(metric_id="calls"), (), MARCH).gauge_id == base.gauge_id


@pytest.mark.parametrize("measure", [CALLS, COST, Measure(metric_id="a/b"), Measure(currency="x/y")])
def test_a_measure_is_equal_after_it_is_read_from_its_key(measure: Measure) -> None:
    assert Measure.from_key(measure.key, per_subscription=False) == measure


def test_only_gauge_of_a_measure_is_known_for_the_period_that_was_used_last() -> None:
    rules = router(rule("one"), rule("two"))
    [target] = rules.customer_measures(rules.known["acme"], (None, "calls", None), NOON)
    assert not target.only_from <= NOON < target.only_until
    [march] = watches(rules)
    assert (target.only, target.only_from, target.only_until) == (march, MARCH.start, MARCH.end)
    [april] = watches(rules, time=MARCH.end)
    assert april is not march
    assert (target.only, target.only_from) == (april, MARCH.end)
    assert watches(rules) == [march]
    assert (target.only, target.only_until) == (march, MARCH.end)


@pytest.mark.parametrize(
    ("rules", "aggregation"),
    [
        ([rule("by region", CALLS, EVERYBODY, "region")], Aggregation.SUM),
        ([rule("all"), rule("by region", CALLS, EVERYBODY, "region")], Aggregation.SUM),
        ([rule("all")], Aggregation.COUNT),
        ([rule("all")], Aggregation.MAX),
        ([rule("all")], Aggregation.UNIQUE_COUNT),
    ],
)
def test_measure_with_groups_or_another_aggregation_has_no_only_gauge(
    rules: list[AlertRule], aggregation: Aggregation
) -> None:
    made = router(*rules)
    made.metrics["calls"] = MetricFacts("calls", aggregation, None)
    assert watches(made, {"region": "eu"})
    [target] = made.customer_measures(made.known["acme"], (None, "calls", None), NOON)
    assert not target.only_from <= NOON < target.only_until

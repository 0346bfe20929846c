"""A router that takes in changes routes like one that was made anew, and finds anew only what the changes touch."""

import dataclasses
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from evaluator.aggregation import Aggregation
from evaluator.alert_index import AlertIndex, WideAlerts
from evaluator.alerts import AlertRule, ConditionType, GroupSelector, Scope, ScopeKind
from evaluator.balances import Unit
from evaluator.enforced_limits import Enforcement
from evaluator.gauges import Measure
from evaluator.known_customers import KnownCustomers
from evaluator.limit_windows import BILLING_PERIOD, LimitWindow, WindowKind
from evaluator.limits import NO_LIMITS, LimitChange, Limits
from evaluator.periods import DEFAULT_CYCLE
from evaluator.prices import FilterOperator, PriceField, PriceFilter
from evaluator.route_changes import MAX_NOTED, RouteChanges
from evaluator.routing import Router, group_of
from evaluator.routing_facts import CustomerFacts, MetricFacts, SubscriptionFacts
from evaluator.thresholds import Direction, Threshold, ThresholdSet
from evaluator.watched_gauges import WatchedGauge

NOON = datetime(2026, 3, 15, 12, tzinfo=UTC)
CUSTOMERS, PLANS, SUBSCRIPTIONS, METRICS = (
    ("acme", "beta"),
    (None, "gold", "silver"),
    ("pro", "free"),
    ("calls", "gb"),
)
GPU = (PriceFilter(PriceField.PRICE_ID, FilterOperator.INCLUDES, ("gpu",)),)
MEASURES = (
    *(Measure(metric_id=metric, per_subscription=own) for metric in METRICS for own in (False, True)),
    Measure(currency="USD"),
    Measure(currency="USD", prices=GPU, per_subscription=True),
    Measure(currency="USD", contract_fields=(("tier", "a"),)),
)
SCOPES = (
    Scope(ScopeKind.ALL_CUSTOMERS),
    Scope(ScopeKind.PLAN, plan_id="gold"),
    Scope(ScopeKind.PLAN, plan_id="silver"),
    Scope(ScopeKind.CUSTOMER, customer_id="acme"),
    Scope(ScopeKind.CUSTOMER, customer_id="beta"),
    Scope(ScopeKind.CUSTOMER_PLAN, customer_id="acme", plan_id="gold"),
    Scope(ScopeKind.SUBSCRIPTION, customer_id="acme", subscription_id="pro"),
)
WINDOWS = (BILLING_PERIOD, LimitWindow(WindowKind.DAY), LimitWindow(WindowKind.ROLLING, 300))
PERCENT = ThresholdSet.of((Threshold(percent_of_limit=Decimal(80)),), Direction.RISING)

alert_ids = st.sampled_from([f"a{number}" for number in range(6)])


def alert(alert_id: str, scope: Scope, measure: Measure, keys: tuple[str, ...], epoch: int) -> AlertRule:
    return AlertRule(
        alert_id=alert_id,
        display_name=alert_id,
        version=1,
        condition_type=ConditionType.USAGE_EXCEEDED,
        scope=scope,
        measure=measure,
        groups=tuple(GroupSelector(key) for key in keys),
        thresholds=PERCENT,
        evaluate_on_create=True,
        changed_epoch=epoch,
        watching_epoch=epoch,
        watching_time=NOON,
        create_epoch=epoch,
    )


@dataclasses.dataclass
class Rules:
    """All rules and facts of an organization, from which a router can be made."""

    alerts: dict[str, AlertRule] = dataclasses.field(default_factory=dict)
    customers: dict[str, CustomerFacts] = dataclasses.field(default_factory=dict)
    subscriptions: dict[tuple[str, str], SubscriptionFacts] = dataclasses.field(default_factory=dict)
    metrics: dict[str, MetricFacts] = dataclasses.field(default_factory=dict)
    plan_limits: dict[str, Limits] = dataclasses.field(default_factory=dict)

    def facts(self, customer_id: str) -> CustomerFacts:
        """The customer with its own alerts."""
        own = AlertIndex(one for one in self.alerts.values() if one.scope.customer_id == customer_id)
        return self.customers[customer_id].with_alerts(own)

    def router(self) -> Router:
        """A new router that knows everything."""
        wide = WideAlerts(one for one in self.alerts.values() if one.scope.customer_id is None)
        made = Router(0, wide, dict(self.plan_limits))
        made.metrics.update(self.metrics)
        for customer_id in self.customers:
            made.know_customer(self.facts(customer_id))
        for subscription in self.subscriptions.values():
            made.know_subscription(subscription)
        return made


def watches(router: Router, customer_id: str, subscription_id: str | None, metric_id: str) -> list[WatchedGauge]:
    """The gauges that an event with a cost moves."""
    found = []
    for target in router.customer_measures(router.known[customer_id], (subscription_id, metric_id, "USD"), NOON):
        for keys in target.by_keys:
            group = group_of(keys, {"region": "eu", "tier": "x"})
            watch = None if group is None else target.watched_gauge(group, NOON)
            found += [] if watch is None else [watch]
    return found


def shown(found: list[WatchedGauge]) -> list[tuple[Any, ...]]:
    """All fields of the gauges; in place of `watching` the alerts, of which it is made."""
    names = [field.name for field in dataclasses.fields(WatchedGauge) if field.name != "watching"]
    return [(watch.alerts, *(getattr(watch, name) for name in names)) for watch in found]


class ChangedRoutes(RuleBasedStateMachine):
    """Random changes; what a router knows is read again as its loading does it."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 1
        self.stored = Rules(metrics={name: MetricFacts(name, Aggregation.SUM, None) for name in METRICS})
        for customer_id in CUSTOMERS:
            self.stored.customers[customer_id] = CustomerFacts(customer_id, None, "USD", DEFAULT_CYCLE, 0, NOON)
            for name in SUBSCRIPTIONS:
                one = SubscriptionFacts(customer_id, name, None, None, None, 0, NOON)
                self.stored.subscriptions[customer_id, name] = one
        self.router = self.stored.router()

    @rule(
        alert_id=alert_ids,
        scope=st.sampled_from(SCOPES),
        measure=st.sampled_from(MEASURES),
        keys=st.sampled_from([(), ("region",), ("region", "tier")]),
    )
    def put_alert(self, alert_id: str, scope: Scope, measure: Measure, keys: tuple[str, ...]) -> None:
        """Creates an alert, or edits it: then its scope stays."""
        before = self.stored.alerts.get(alert_id)
        scope = scope if before is None else before.scope
        self._take(alert_id, scope, alert(alert_id, scope, measure, keys, self._next()))

    @rule(alert_id=alert_ids)
    def archive(self, alert_id: str) -> None:
        """Archives an alert."""
        before = self.stored.alerts.get(alert_id)
        if before is not None:
            self._next()
            self._take(alert_id, before.scope, None)

    def _take(self, alert_id: str, scope: Scope, changed: AlertRule | None) -> None:
        self.stored.alerts.pop(alert_id, None)
        if changed is not None:
            self.stored.alerts[alert_id] = changed
        if scope.customer_id is None:
            self.router.change_wide_alert(alert_id, changed)
        elif (known := self.router.known.get(scope.customer_id)) is not None:
            known.replace_alert(alert_id, changed)

    @rule(customer_id=st.sampled_from(CUSTOMERS), plan_id=st.sampled_from(PLANS), excluded=alert_ids)
    def put_customer(self, customer_id: str, plan_id: str | None, excluded: str) -> None:
        """Changes the plan and the exclusions of a customer, and perhaps nothing."""
        facts = dataclasses.replace(
            self.stored.customers[customer_id],
            plan_id=plan_id,
            changed_epoch=self._next(),
            excluded=frozenset({(excluded, None)}),
        )
        self._replace(facts)

    @rule(
        customer_id=st.sampled_from(CUSTOMERS),
        amount=st.sampled_from(["1", "5", None]),
        enforcement=st.sampled_from(Enforcement),
        window=st.sampled_from(WINDOWS),
    )
    def put_limit(self, customer_id: str, amount: str | None, enforcement: Enforcement, window: LimitWindow) -> None:
        """Changes a limit of a customer, which changes nothing else of it."""
        limits = self._limits(amount, enforcement, window, self.stored.customers[customer_id].limits)
        facts = dataclasses.replace(self.stored.customers[customer_id], limits=limits)
        self._replace(facts)

    @rule(
        plan_id=st.sampled_from(["gold", "silver"]),
        amount=st.sampled_from(["1", "5", None]),
        enforcement=st.sampled_from(Enforcement),
        window=st.sampled_from(WINDOWS),
    )
    def put_plan_limit(self, plan_id: str, amount: str | None, enforcement: Enforcement, window: LimitWindow) -> None:
        """Changes a limit of a plan."""
        before = self.stored.plan_limits.get(plan_id, NO_LIMITS)
        limits = self.stored.plan_limits[plan_id] = self._limits(amount, enforcement, window, before)
        self.router.change_plan_limits(plan_id, limits)

    @rule(
        customer_id=st.sampled_from(CUSTOMERS),
        name=st.sampled_from(SUBSCRIPTIONS),
        plan_id=st.sampled_from(PLANS),
        tier=st.sampled_from(["a", "b"]),
        changed=st.booleans(),
    )
    def put_subscription(self, customer_id: str, name: str, plan_id: str | None, tier: str, changed: bool) -> None:
        """Changes a subscription, or has it read again for another reason."""
        if changed:
            self.stored.subscriptions[customer_id, name] = SubscriptionFacts(
                customer_id, name, plan_id, None, None, self._next(), NOON, custom_fields={"tier": tier}
            )
        if (known := self.router.known.get(customer_id)) is not None:
            known.doubt_subscription(name)  # the next event that names it reads it

    @rule(name=st.sampled_from(METRICS), aggregation=st.sampled_from([Aggregation.SUM, Aggregation.MAX]))
    def put_metric(self, name: str, aggregation: Aggregation) -> None:
        """Changes a metric. A deleted metric may be created again with another aggregation."""
        metric = self.stored.metrics[name] = MetricFacts(name, aggregation, None)
        self.router.change_metric(metric)

    @rule(name=st.sampled_from(METRICS))
    def delete_metric(self, name: str) -> None:
        """Forgets a metric, which the next event reads again."""
        self.router.forget_metric(name)

    @rule(customer_id=st.sampled_from(CUSTOMERS))
    def forget(self, customer_id: str) -> None:
        """Forgets a customer, which the next event has to read again."""
        self.router.known.pop(customer_id, None)

    @invariant()
    def routes_like_a_new_router(self) -> None:
        """Every event moves the same gauges as with a router that was made anew."""
        fresh = self.stored.router()
        self.router.metrics.update(self.stored.metrics)
        for customer_id in CUSTOMERS:
            if customer_id not in self.router.known:
                self.router.know_customer(self.stored.facts(customer_id))
            for subscription_id in (None, *SUBSCRIPTIONS):
                if (
                    subscription_id is not None
                    and subscription_id not in self.router.known[customer_id].subscriptions
                ):
                    self.router.know_subscription(self.stored.subscriptions[customer_id, subscription_id])
                for metric_id in METRICS:
                    of_event = customer_id, subscription_id, metric_id
                    assert shown(watches(self.router, *of_event)) == shown(watches(fresh, *of_event))

    def _replace(self, facts: CustomerFacts) -> None:
        self.stored.customers[facts.customer_id] = facts
        if facts.customer_id in self.router.known:
            self.router.replace_facts(facts)

    def _next(self) -> int:
        self.epoch += 1
        return self.epoch

    def _limits(self, amount: str | None, enforcement: Enforcement, window: LimitWindow, before: Limits) -> Limits:
        epoch, changed = self._next(), None if amount is None else Decimal(amount)
        return Limits(
            (LimitChange(Unit(metric_id=metric), (), changed, epoch, window, enforcement) for metric in METRICS),
            before,
        )


TestChangedRoutes = ChangedRoutes.TestCase
TestChangedRoutes.settings = settings(max_examples=12, stateful_step_count=25)


@pytest.fixture
def rules() -> Rules:
    """Two customers of the plan gold, and wide alerts on calls and on gigabytes."""
    made = Rules(metrics={name: MetricFacts(name, Aggregation.SUM, None) for name in METRICS})
    for customer_id in CUSTOMERS:
        made.customers[customer_id] = CustomerFacts(customer_id, "gold", "USD", DEFAULT_CYCLE, 0, NOON)
    for metric in METRICS:
        made.alerts[metric] = alert(metric, Scope(ScopeKind.ALL_CUSTOMERS), Measure(metric_id=metric), (), 1)
    return made


def test_a_changed_wide_alert_leaves_the_gauges_of_other_measures_as_they_are(rules: Rules) -> None:
    router = rules.router()
    before = {name: watches(router, "acme", None, name) for name in METRICS}
    changed = dataclasses.replace(rules.alerts["calls"], changed_epoch=2)
    router.change_wide_alert("calls", changed)
    assert watches(router, "acme", None, "gb")[0] is before["gb"][0]
    assert watches(router, "acme", None, "calls")[0].required_epoch == 2


def test_a_changed_alert_of_one_customer_leaves_the_gauges_of_others_as_they_are(rules: Rules) -> None:
    router = rules.router()
    before = {name: watches(router, name, None, "calls")[0] for name in CUSTOMERS}
    other = watches(router, "acme", None, "gb")[0]
    own = alert("own", Scope(ScopeKind.CUSTOMER, customer_id="acme"), Measure(metric_id="calls"), (), 2)
    router.known["acme"].replace_alert("own", own)
    assert [one.alert_id for one in watches(router, "acme", None, "calls")[0].alerts] == ["calls", "own"]
    assert watches(router, "beta", None, "calls")[0] is before["beta"]
    assert watches(router, "acme", None, "gb")[0] is other


def test_a_limit_of_a_plan_touches_only_the_customers_of_the_plan(rules: Rules) -> None:
    rules.customers["beta"] = dataclasses.replace(rules.customers["beta"], plan_id="silver")
    router = rules.router()
    before = {name: watches(router, name, None, "calls")[0] for name in CUSTOMERS}
    router.change_plan_limits("gold", Limits([LimitChange(Unit(metric_id="calls"), (), Decimal(7), 3)]))
    assert watches(router, "acme", None, "calls")[0].limit == 7
    assert watches(router, "beta", None, "calls")[0] is before["beta"]


def test_an_alert_of_a_plan_touches_a_subscription_that_has_to_be_read_again(rules: Rules) -> None:
    pro = rules.subscriptions["acme", "pro"] = SubscriptionFacts("acme", "pro", "gold", None, None, 0, NOON)
    router = rules.router()
    assert len(watches(router, "acme", "pro", "calls")) == 1
    router.known["acme"].doubt_subscription("pro")  # as its deletion does, which usage then cancels
    gold = Scope(ScopeKind.PLAN, plan_id="gold")
    router.change_wide_alert("new", alert("new", gold, Measure(metric_id="calls", per_subscription=True), (), 2))
    watches(router, "acme", None, "calls")  # an event without a subscription comes first
    router.know_subscription(pro)
    assert [one.alerts[0].alert_id for one in watches(router, "acme", "pro", "calls")] == ["calls", "new"]


def test_a_router_apart_shares_the_wide_alerts_and_knows_no_customer(rules: Rules) -> None:
    router = rules.router()
    apart = router.apart()
    assert apart.wide is router.wide
    assert not apart.known
    apart.know_customer(rules.facts("acme"))
    apart.known["acme"].forget_everything()
    assert len(router.known) == len(CUSTOMERS)


def test_route_changes_forget_the_oldest_when_there_are_too_many() -> None:
    changes, calls = RouteChanges(), Measure(metric_id="calls")
    changes.touch(calls, None)
    first = changes.revision
    assert not changes.since(first, calls, "gold")
    for number in range(MAX_NOTED):
        changes.touch(calls, f"p{number}")
    assert changes.all_since(first - 1)
    last = changes.revision
    changes.touch(None, "gold")
    assert not changes.all_since(last)
    assert (changes.since(last, calls, "gold"), changes.since(last, calls, "silver")) == (True, False)
    assert not changes.since(last, calls, None)


def test_customers_that_were_named_since_or_are_used_stay_known(rules: Rules) -> None:
    known = KnownCustomers()
    router = Router(0)
    for number in range(6):
        known[f"c{number}"] = router.know_customer(
            dataclasses.replace(rules.customers["acme"], customer_id=f"c{number}")
        )
    known["c1"].named = 3
    known.forget_unused(4, {"c2"})
    assert list(known) == ["c4", "c5", "c1", "c2"]
    known.forget_unused(10, ())
    assert list(known) == []


def test_an_index_finds_selective_measures_while_an_alert_has_them() -> None:
    index, measure = AlertIndex(), Measure(currency="USD", prices=GPU)
    everyone = Scope(ScopeKind.ALL_CUSTOMERS)
    for name in ("a", "b"):
        index.put(alert(name, everyone, measure, (), 1))
    index.put(alert("c", everyone, Measure(currency="USD"), (), 1))
    assert list(index.selective("USD")) == [measure]
    assert list(index.selective("EUR")) == []
    index.put(alert("a", everyone, Measure(currency="EUR"), (), 2))
    assert [one.alert_id for one in index.on_usage(measure)] == ["b"]
    assert index.remove("b") is not None
    assert index.remove("b") is None
    assert list(index.selective("USD")) == []
    assert {one.alert_id for one in index} == {"a", "c"}

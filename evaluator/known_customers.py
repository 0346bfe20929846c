"""Known customers: what a router keeps of one customer, and what it has found with that."""

from collections.abc import Container
from dataclasses import dataclass, field
from itertools import islice

from evaluator.alerts import AlertRule
from evaluator.gauges import Measure
from evaluator.routing_facts import CustomerFacts, SubscriptionFacts
from evaluator.watched_gauges import CustomerMeasure

# What of a customer's event decides its route, apart from its time and properties: subscription, metric, currency.
RouteKey = tuple[str | None, str, str | None]


@dataclass(eq=False, slots=True)
class KnownCustomer:
    """A customer that a router knows, until too many others were named since.

    facts: with the customer's own alerts. subscriptions: by id. outdated: the facts may have changed since they were
    read. changed_alerts: the ids of own alerts that may have. stale: whether it is outdated or has changed alerts;
    they have to be read before an event of the customer is routed. doubted: subscriptions that may have changed, by
    id. revision: the last route change that `routes` and `measures` take into account. named: by how many commits,
    since it was last considered for removal. draws: whether the last commit of a few events found that usage draws on
    balances of the customer; a hint. covered: see `Router.is_covered`, without those above it. covered_as_of: the
    number of the last change of plans that it takes into account; none with -1. parent: that of the facts. A commit
    needs nothing else of the facts of most customers.
    """

    facts: CustomerFacts
    revision: int
    subscriptions: dict[str, SubscriptionFacts] = field(default_factory=dict)
    routes: dict[RouteKey, tuple[CustomerMeasure, ...]] = field(default_factory=dict)
    measures: dict[tuple[Measure, str | None], CustomerMeasure | None] = field(default_factory=dict)
    stale: bool = False
    outdated: bool = False
    changed_alerts: set[str] = field(default_factory=set)
    doubted: dict[str, SubscriptionFacts] = field(default_factory=dict)
    named: int = 0
    draws: bool = False
    covered: bool = False
    covered_as_of: int = -1
    parent: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.parent = self.facts.parent_customer_id

    def plan_of(self, subscription_id: str | None) -> str | None:
        """The plan of the customer, or of its subscription with that id."""
        if subscription_id is None:
            return self.facts.plan_id
        # Of a doubted one, too: what was found for it is used again if it has not changed.
        known = self.subscriptions.get(subscription_id) or self.doubted.get(subscription_id)
        return None if known is None else known.plan_id

    def replace_facts(self, facts: CustomerFacts) -> None:
        """Takes facts that were read again; the own alerts stay as they are."""
        if facts != self.facts or facts.limits.changed_epoch != self.facts.limits.changed_epoch:
            self.forget_everything()
        self.facts = facts.with_alerts(self.facts.alerts)
        self.parent = facts.parent_customer_id
        self.forget_coverage()

    def replace_alert(self, alert_id: str, rule: AlertRule | None) -> None:
        """Takes an own alert that was read again. rule: None if it is not active."""
        before = self.facts.alerts.get(alert_id)
        if before is not None:
            self.facts.alerts.remove(alert_id)
        if rule is not None:
            if not len(self.facts.alerts):  # it may be the index that customers without own alerts share
                self.facts = self.facts.with_alerts(type(self.facts.alerts)())
            self.facts.alerts.put(rule)
        for one in (before, rule):
            if one is not None and not one.measure.of_facts:
                self._forget_watched_by(one)

    def know_subscription(self, subscription: SubscriptionFacts) -> None:
        """Takes a subscription that was read."""
        subscription_id = subscription.subscription_id
        doubted = self.doubted.pop(subscription_id, None)
        if doubted is not None and not subscription.same_as(doubted):
            self.forget_subscription(subscription_id)
        self.subscriptions[subscription_id] = subscription
        self.forget_coverage()

    def forget_coverage(self) -> None:
        """Has `covered` found anew."""
        self.covered_as_of = -1

    def outdate(self) -> None:
        """Has the facts read again before they are used."""
        self.stale = self.outdated = True

    def doubt_alerts(self, alert_ids: set[str]) -> None:
        """Has own alerts read again before they are used."""
        self.stale = True
        self.changed_alerts |= alert_ids

    def is_current(self) -> None:
        """Notes that everything that was outdated has been read again."""
        self.stale = self.outdated = False
        self.changed_alerts = set()

    def doubt_subscription(self, subscription_id: str) -> None:
        """Has a subscription read again before it is used. What was found for it is kept if it has not changed."""
        if (known := self.subscriptions.pop(subscription_id, None)) is not None:
            self.doubted[subscription_id] = known

    def forget_subscription(self, subscription_id: str) -> None:
        """Forgets a subscription, and what was found for it."""
        self.subscriptions.pop(subscription_id, None)
        self.doubted.pop(subscription_id, None)
        self.routes = {key: route for key, route in self.routes.items() if key[0] != subscription_id}
        self.measures = {key: found for key, found in self.measures.items() if key[1] != subscription_id}

    def forget_measure(self, measure: Measure) -> None:
        """Forgets what was found for a measure. The routes are made again from the measures that are left."""
        self.routes = {}
        self.measures = {key: found for key, found in self.measures.items() if key[0] != measure}

    def _forget_watched_by(self, rule: AlertRule) -> None:
        """Forgets what was found for the measure of an own alert, and for its subscription if it names one."""
        subscription_id = rule.scope.subscription_id
        if subscription_id is None:
            self.forget_measure(rule.measure)
        else:
            self.routes = {key: route for key, route in self.routes.items() if key[0] != subscription_id}
            self.measures.pop((rule.measure, subscription_id), None)

    def forget_metric(self, metric_id: str) -> None:
        """Forgets what was found for the usage of a metric."""
        self.routes = {}
        self.measures = {key: found for key, found in self.measures.items() if key[0].metric_id != metric_id}

    def forget_everything(self) -> None:
        """Forgets all that was found."""
        self.routes, self.measures = {}, {}

    def forget_past_periods(self) -> None:
        """Forgets the gauges of all but the last periods. No commit may be using the customer."""
        for found in self.measures.values():
            if found is not None:
                found.forget_past_periods()


class KnownCustomers(dict[str, KnownCustomer]):
    """The customers that a router knows, by id; first those that it has known for longest."""

    def forget_unused(self, number: int, used: Container[str]) -> None:
        """Considers the first so many for removal. A customer that was named since the last time stays once more.

        used: by commits that are open; these stay.
        """
        for customer_id in list(islice(self, number)):
            known = self.pop(customer_id)
            if known.named or customer_id in used:
                known.named = 0
                self[customer_id] = known

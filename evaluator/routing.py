"""Routing: which gauges an event moves, and which alerts watch each of them.

A router is made for one organization at one epoch of its rules and thrown away with it. What it finds it
remembers, so that the thousandth event of a customer costs a few dictionary look-ups.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from evaluator.aggregation import Aggregation
from evaluator.alerts import AlertRule
from evaluator.gauges import Gauge, Group, Measure
from evaluator.limits import NO_LIMITS, Limits, limit_of
from evaluator.periods import BillingCycle, Period
from evaluator.prices import PriceFilter

# Events may be this far ahead of the clock, so a period may hold events from before its start.
FUTURE_TOLERANCE = timedelta(minutes=5)

# A period that began this long after somebody started to watch is taken as counted from its first event. It covers
# the tolerance above, replicas whose clocks differ, and the wait for a lock; a recount too many only costs time.
COUNTING_MARGIN = timedelta(hours=1)


@dataclass(frozen=True)
class Customer:
    """The facts of a customer that matter to routing; changed_epoch: of the organization, at their last change.

    excluded: alerts that are not evaluated for it although they cover it, each with the subscription for which alone
    that holds, or None for all of the customer. plan_end: when its plan ends; unset where that is not known.
    limits: its own.
    """

    customer_id: str
    plan_id: str | None
    currency: str
    cycle: BillingCycle
    changed_epoch: int
    changed_time: datetime
    excluded: frozenset[tuple[str, str | None]] = frozenset()
    plan_end: datetime | None = None
    limits: Limits = field(default=NO_LIMITS, compare=False)

    def excludes(self, alert_id: str, subscription_id: str | None) -> bool:
        """Whether an alert is not evaluated for the customer, or for one subscription of it."""
        return (alert_id, None) in self.excluded or (alert_id, subscription_id) in self.excluded


@dataclass(frozen=True)
class Subscription:
    """The facts of a subscription; currency and cycle are unset where it follows the customer's."""

    customer_id: str
    subscription_id: str
    plan_id: str | None
    currency: str | None
    cycle: BillingCycle | None
    changed_epoch: int
    changed_time: datetime


@dataclass(frozen=True)
class Metric:
    """The facts of a metric. unique_property: the property whose values UNIQUE_COUNT counts."""

    metric_id: str
    aggregation: Aggregation
    unique_property: str | None


@dataclass(eq=False, slots=True)
class Watch:
    """A gauge, the alerts that watch it, and how it adds up.

    required_epoch: a stored gauge that was visited before this epoch has to be visited again.
    continuous_since_epoch: a stored gauge that was visited at or after this epoch has missed no event since.
    counted_since: a period that starts after this time has been counted from its first event on.
    limit: of the gauge, where alerts draw lines in percent of it.
    """

    gauge: Gauge
    alerts: tuple[AlertRule, ...]
    aggregation: Aggregation
    unique_property: str | None
    required_epoch: int
    continuous_since_epoch: int
    counted_since: datetime
    limit: Decimal | None = None

    @property
    def counted_from_the_start(self) -> bool:
        """Whether no event of its period can have come before somebody watched."""
        return self.counted_since + COUNTING_MARGIN < self.gauge.period.start


def watch_facts(gauge: Gauge, alerts: Iterable[AlertRule], customer: Customer) -> Watch:
    """The watch of a gauge that reads facts."""
    alerts = tuple(alerts)
    return Watch(
        gauge=gauge,
        alerts=alerts,
        aggregation=Aggregation.SUM,
        unique_property=None,
        required_epoch=max(customer.changed_epoch, *(alert.changed_epoch for alert in alerts)),
        continuous_since_epoch=max(customer.changed_epoch, min(alert.watching_epoch for alert in alerts)),
        counted_since=customer.changed_time,
    )


# What of an event decides its route, apart from its time and properties: customer, subscription, metric, currency.
RouteKey = tuple[str, str | None, str, str | None]


@dataclass(eq=False, slots=True)
class Target:
    """One measure of one customer or subscription, over all its periods and groups.

    prices: the measure's; an event counts only if it passes them. limits: the customer's, then the plan's.
    """

    measure: Measure
    customer_id: str
    subscription_id: str | None
    cycle: BillingCycle
    aggregation: Aggregation
    unique_property: str | None
    changed_epoch: int
    changed_time: datetime
    by_keys: dict[tuple[str, ...], list[AlertRule]]
    period: Period
    prices: tuple[PriceFilter, ...] = ()
    limits: tuple[Limits, ...] = ()
    known: dict[tuple[Group, datetime], Watch | None] = field(default_factory=dict)

    def watch(self, group: Group, time: datetime) -> Watch | None:
        """The gauge of that group in the period of `time`; None when no alert watches it."""
        period = self.period
        if not period.start <= time < period.end:
            period = self.period = self.cycle.period_at(time)
        key = (group, period.start)
        if key not in self.known:
            self.known[key] = self._find(group, period)
        return self.known[key]

    def _find(self, group: Group, period: Period) -> Watch | None:
        keys = tuple(key for key, _ in group)
        alerts = tuple(alert for alert in self.by_keys.get(keys, ()) if alert.selects(group))
        if not alerts:
            return None
        # Whom no limit concerns is not looked at again because one has changed.
        limits = self.limits if any(alert.of_limits for alert in alerts) else ()
        epochs = (self.changed_epoch, *(one.changed_epoch for one in limits))
        return Watch(
            gauge=Gauge(self.customer_id, self.subscription_id, self.measure, group, period),
            alerts=alerts,
            aggregation=self.aggregation,
            unique_property=self.unique_property,
            required_epoch=max(*epochs, *(alert.changed_epoch for alert in alerts)),
            continuous_since_epoch=max(self.changed_epoch, min(alert.watching_epoch for alert in alerts)),
            counted_since=max(self.changed_time, min(alert.watching_time for alert in alerts)),
            limit=limit_of(limits, self.measure.unit, group),
        )


class Router:
    """The rules and the facts of one organization at one epoch."""

    def __init__(
        self, epoch: int, alerts: Iterable[AlertRule], plan_limits: Mapping[str, Limits] | None = None
    ) -> None:
        """`plan_limits`: by plan id; those of single customers come with the customers."""
        self.epoch = epoch
        self.plan_limits = dict(plan_limits or {})
        self.alerts: dict[str, AlertRule] = {alert.alert_id: alert for alert in alerts}
        self.customers: dict[str, Customer] = {}
        self.subscriptions: dict[tuple[str, str], Subscription] = {}
        self.metrics: dict[str, Metric] = {}
        self._by_measure: dict[Measure, list[AlertRule]] = {}
        # Of costs that are narrowed to some prices, by currency and whether subscriptions are measured.
        self._narrowed: dict[tuple[str | None, bool], list[Measure]] = {}
        self._fact_rules = [alert for alert in self.alerts.values() if alert.measure.of_facts]
        for alert in self.alerts.values():
            if not alert.measure.of_facts:
                self._by_measure.setdefault(alert.measure, []).append(alert)
        for measure in self._by_measure:
            if measure.prices:
                self._narrowed.setdefault((measure.currency, measure.per_subscription), []).append(measure)
        self._routes: dict[RouteKey, tuple[Target, ...]] = {}
        self._targets: dict[tuple[Measure, str, str | None], Target | None] = {}

    def fact_rules(self, customer: Customer) -> list[AlertRule]:
        """The alerts on facts that cover a customer."""
        who = customer.customer_id, None, customer.plan_id
        return [
            alert
            for alert in self._fact_rules
            if alert.scope.covers(*who) and not customer.excludes(alert.alert_id, None)
        ]

    def limits_of(self, customer: Customer, plan_id: str | None) -> tuple[Limits, ...]:
        """The limits that hold for a customer, or for a subscription of it, by that plan: its own come first."""
        return customer.limits, self.plan_limits.get(plan_id or "", NO_LIMITS)

    def currency_of(self, customer_id: str, subscription_id: str | None) -> str:
        """What a cost is in when the event does not say."""
        if subscription_id is not None:
            currency = self.subscriptions[customer_id, subscription_id].currency
            if currency is not None:
                return currency
        return self.customers[customer_id].currency

    def last_period_end(self, customer_id: str, subscription_id: str | None, time: datetime) -> datetime:
        """The end of the period that `time` lies in: the customer's, or the subscription's if that is later."""
        cycle = self.customers[customer_id].cycle
        end = cycle.period_at(time).end
        if subscription_id is not None:
            own = self.subscriptions[customer_id, subscription_id].cycle
            end = max(end, (own or cycle).period_at(time).end)
        return end

    def exclude(self, customer_id: str, alert_id: str, subscription_id: str | None) -> None:
        """Learns that an alert is not evaluated for a customer any more, or for one subscription of it."""
        customer = self.customers.get(customer_id)
        if customer is None or (alert_id, subscription_id) in customer.excluded:
            return
        excluded = customer.excluded | {(alert_id, subscription_id)}
        self.customers[customer_id] = replace(customer, excluded=excluded)
        self._targets = {key: target for key, target in self._targets.items() if key[1] != customer_id}
        self._routes = {key: route for key, route in self._routes.items() if key[0] != customer_id}

    def forget_routes(self, whose: Iterable[tuple[str, str | None, str]]) -> None:
        """Forgets what it derived from facts that were taken back: of these customers, subscriptions and metrics.

        Customers and their subscriptions are routed by what they were when they were first met.
        """
        forgotten = set(whose)
        if not forgotten:
            return
        customers = {customer_id for customer_id, _, _ in forgotten}
        self._routes = {key: route for key, route in self._routes.items() if key[0] not in customers}
        self._targets = {key: target for key, target in self._targets.items() if key[1] not in customers}

    def targets(self, key: RouteKey, time: datetime) -> tuple[Target, ...]:
        """What an event moves, if its properties pass a target's prices and have its keys.

        Its customer, subscription and metric have to be among the facts.
        """
        route = self._routes.get(key)
        if route is None:
            customer_id, subscription_id, metric_id, currency = key
            measures: list[tuple[Measure, str | None]] = [(Measure(metric_id=metric_id), None)]
            if currency is not None:
                measures.append((Measure(currency=currency), None))
                measures += [(measure, None) for measure in self._narrowed.get((currency, False), ())]
            if subscription_id is not None:
                measures.append((Measure(metric_id=metric_id, per_subscription=True), subscription_id))
                if currency is not None:
                    measures.append((Measure(currency=currency, per_subscription=True), subscription_id))
                    narrowed = self._narrowed.get((currency, True), ())
                    measures += [(measure, subscription_id) for measure in narrowed]
            found = (self.target(measure, customer_id, subscription, time) for measure, subscription in measures)
            route = self._routes[key] = tuple(target for target in found if target is not None)
        return route

    def target(
        self, measure: Measure, customer_id: str, subscription_id: str | None, time: datetime
    ) -> Target | None:
        """The measure of one customer, or subscription; None when no alert watches it."""
        key = (measure, customer_id, subscription_id)
        if key not in self._targets:
            self._targets[key] = self._find(measure, customer_id, subscription_id, time)
        return self._targets[key]

    def _find(self, measure: Measure, customer_id: str, subscription_id: str | None, time: datetime) -> Target | None:
        customer = self.customers[customer_id]
        cycle, plan_id = customer.cycle, customer.plan_id
        changed_epoch, changed_time = customer.changed_epoch, customer.changed_time
        if subscription_id is not None:
            subscription = self.subscriptions[customer_id, subscription_id]
            cycle, plan_id = subscription.cycle or cycle, subscription.plan_id
            changed_epoch = max(changed_epoch, subscription.changed_epoch)
            changed_time = max(changed_time, subscription.changed_time)
        by_keys: dict[tuple[str, ...], list[AlertRule]] = {}
        for alert in self._by_measure.get(measure, ()):
            covers = alert.scope.covers(customer_id, subscription_id, plan_id)
            if covers and not customer.excludes(alert.alert_id, subscription_id):
                by_keys.setdefault(alert.group_keys, []).append(alert)
        if not by_keys:
            return None
        metric = self.metrics.get(measure.metric_id) if measure.metric_id is not None else None
        return Target(
            measure=measure,
            customer_id=customer_id,
            subscription_id=subscription_id,
            cycle=cycle,
            aggregation=metric.aggregation if metric else Aggregation.SUM,
            unique_property=metric.unique_property if metric else None,
            changed_epoch=changed_epoch,
            changed_time=changed_time,
            by_keys=by_keys,
            period=cycle.period_at(time),
            prices=measure.prices,
            limits=self.limits_of(customer, plan_id),
        )


def group_of(keys: tuple[str, ...], properties: Mapping[str, str]) -> Group | None:
    """The group that an event belongs to by those keys; None where it lacks one of them."""
    group = []
    for key in keys:
        value = properties.get(key)
        if value is None:
            return None
        group.append((key, value))
    return tuple(group)

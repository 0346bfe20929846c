"""Routing: which gauges an event moves, and which alerts watch each of them.

A router holds the rules of one organization at one epoch. It caches what it finds, so that the thousandth event of a
customer costs a few dictionary look-ups.
"""

from collections import ChainMap
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from evaluator.aggregation import Aggregation
from evaluator.alert_index import WideAlerts
from evaluator.alerts import AlertRule
from evaluator.events import UsageEvent
from evaluator.gauges import Group, Measure
from evaluator.known_customers import KnownCustomer, KnownCustomers, RouteKey
from evaluator.limits import NO_LIMITS, Limits
from evaluator.raw_events import RawEvents, as_metric_events
from evaluator.route_changes import RouteChanges
from evaluator.routing_facts import MOST_LEVELS, CustomerFacts, MetricFacts, SubscriptionFacts
from evaluator.watched_gauges import CustomerMeasure
from evaluator.watching_alerts import ByKeys, by_keys

# Events may be this far ahead of the clock, so a period may contain events that arrived before its start.
FUTURE_TOLERANCE = timedelta(minutes=5)


class Router:
    """The wide alerts of one organization, and the customers that were named, with their own alerts and facts.

    epoch: the organization's, of which it holds the rules. It is changed in place from one epoch to the next: a
    transaction uses it only while it holds the organization's lock, which lets no epoch begin.
    """

    def __init__(
        self, epoch: int, wide: WideAlerts | None = None, plan_limits: dict[str, Limits] | None = None
    ) -> None:
        """`plan_limits`: by plan id. The limits of single customers are in their `CustomerFacts`."""
        self.epoch = epoch
        self.wide = WideAlerts() if wide is None else wide
        self.metrics: MutableMapping[str, MetricFacts] = {}
        # The metrics in which raw events count. None until a raw event came: they are read all at once, because a raw
        # event does not say which metrics it concerns. Apart from `metrics`, which has what events named.
        self.raw_metrics: dict[str, MetricFacts] | None = None
        self._raw_events: dict[str, dict[str, RawEvents]] = {}  # by event name and metric id
        self._plan_limits = {} if plan_limits is None else plan_limits
        self.known = KnownCustomers()
        self.being_erased: set[str] = set()  # ids of known customers that were being erased when they were read
        self._changes = RouteChanges()
        # Whether any enforced limit has been known: without one, no usage needs to be looked up.
        self.enforces = any(limits.enforces for limits in self._plan_limits.values())
        self._plan_changes = 0  # of the limits of plans that begin or cease to have an enforcement

    def apart(self) -> "Router":
        """A router with the same wide alerts and metrics that knows no customers yet.

        For a transaction that reads its own facts, and whose reading others must not keep.
        """
        router = Router(self.epoch, self.wide, self._plan_limits)
        router.metrics = ChainMap({}, self.metrics)
        return router

    def customer(self, customer_id: str) -> CustomerFacts:
        """The facts of a customer that it knows."""
        return self.known[customer_id].facts

    def know_customer(self, facts: CustomerFacts) -> KnownCustomer:
        """Knows a customer from now on, with nothing found for it yet."""
        known = self.known[facts.customer_id] = KnownCustomer(facts, self._changes.revision)
        if facts.being_erased:
            self.being_erased.add(facts.customer_id)
        self.enforces = self.enforces or facts.limits.enforces
        return known

    def replace_facts(self, facts: CustomerFacts) -> None:
        """Takes facts of a known customer that were read again."""
        self.known[facts.customer_id].replace_facts(facts)
        self.enforces = self.enforces or facts.limits.enforces
        if facts.being_erased:
            self.being_erased.add(facts.customer_id)

    def know_subscription(self, subscription: SubscriptionFacts) -> None:
        """Knows a subscription of a customer that it knows."""
        self.known[subscription.customer_id].know_subscription(subscription)

    def subscription(self, customer_id: str, subscription_id: str) -> SubscriptionFacts:
        """A subscription that it knows."""
        return self.known[customer_id].subscriptions[subscription_id]

    def change_wide_alert(self, alert_id: str, rule: AlertRule | None) -> None:
        """Takes a wide alert that was read again. rule: None if it is not active."""
        before = self.wide.get(alert_id)
        if rule is not None:
            self.wide.put(rule)
        else:
            self.wide.remove(alert_id)
        for one in (before, rule):
            if one is not None and not one.measure.of_facts:
                self._changes.touch(one.measure, one.scope.plan_id)

    def change_plan_limits(self, plan_id: str, changed: Limits) -> None:
        """Takes the limits of a plan."""
        before = self._plan_limits.get(plan_id, NO_LIMITS)
        self._plan_limits[plan_id] = changed
        if before.enforces != changed.enforces:
            self._plan_changes += 1
        self.enforces = self.enforces or changed.enforces
        self._changes.touch(None, plan_id)

    def change_metric(self, metric: MetricFacts) -> None:
        """Takes a metric that was read again."""
        metric_id = metric.metric_id
        if metric_id in self.metrics:  # the others are read when an event names them
            self.metrics[metric_id] = metric
        if self.raw_metrics is not None:
            self.know_raw_metrics({**self.raw_metrics, metric_id: metric}.values())
        self._changes.touch_metric(metric_id)

    def forget_metric(self, metric_id: str) -> None:
        """Has a metric read again before usage counts in it."""
        self.metrics.pop(metric_id, None)
        if self.raw_metrics is not None and metric_id in self.raw_metrics:
            self.raw_metrics = None  # not only this one removed: its deletion may be refused
        self._changes.touch_metric(metric_id)

    def exclude(self, customer_id: str, alert_id: str, subscription_id: str | None) -> None:
        """Stops routing to an alert for a customer, or for one subscription of it."""
        known = self.known.get(customer_id)
        if known is None or (alert_id, subscription_id) in known.facts.excluded:
            return
        known.facts = replace(known.facts, excluded=known.facts.excluded | {(alert_id, subscription_id)})
        rule = self.wide.get(alert_id) or known.facts.alerts.get(alert_id)
        if rule is not None:
            known.forget_measure(rule.measure)

    def fact_rules(self, customer: CustomerFacts) -> list[AlertRule]:
        """The alerts on facts that are evaluated for a customer."""
        covered = customer.customer_id, None, customer.plan_id
        return [
            rule
            for index in (*self.wide.covering((customer.plan_id,)), customer.alerts)
            for rule in index.on_facts
            if rule.scope.covers(*covered) and not customer.excludes(rule.alert_id, None)
        ]

    def usage_rules(self, customer: CustomerFacts, plan_ids: Iterable[str | None] = ()) -> list[AlertRule]:
        """The alerts on usage and cost that may cover a customer, or a subscription of it with one of these plans."""
        indexes = (*self.wide.covering((customer.plan_id, *plan_ids)), customer.alerts)
        return [rule for index in indexes for rule in index if not rule.measure.of_facts]

    def limits_of(self, customer: CustomerFacts, plan_id: str | None) -> tuple[Limits, ...]:
        """The limits of a customer, or of its subscription with that plan: first its own, then those of the plan."""
        return customer.limits, self._plan_limits.get(plan_id or "", NO_LIMITS)

    def chain(self, customer_id: str) -> list[CustomerFacts]:
        """A customer, then those above it, nearest first: all of them count its usage in their enforced limits.

        It ends below a customer that is being erased. `Loading` has read those above each customer that it loads.
        """
        found = [self.known[customer_id].facts]
        while (parent := found[-1].parent_customer_id) is not None and len(found) < MOST_LEVELS:
            above = self.known[parent].facts
            if above.being_erased:
                break
            found.append(above)
        return found

    def top_known(self, customer_id: str) -> str:
        """The highest customer above a customer, as far as the router knows them; it may not know the customer."""
        for _ in range(MOST_LEVELS):
            known = self.known.get(customer_id)
            if known is None or known.facts.parent_customer_id is None:
                break
            customer_id = known.facts.parent_customer_id
        return customer_id

    def is_covered(self, customer_id: str) -> bool:
        """Whether an enforced limit may apply to usage of a customer.

        It is a limit of the customer, of one above it, of the plan of one of them, or of the plan of a known
        subscription of the customer.
        """
        known = self.known[customer_id]
        if known.covered_as_of != self._plan_changes:
            known.covered, known.covered_as_of = self._is_covered_itself(known), self._plan_changes
        if known.covered or known.parent is None:
            return known.covered
        return any(map(self._enforces, self.chain(customer_id)[1:]))

    def enforcing(self, customer_id: str) -> list[str]:
        """Those of a customer and the customers above it that may count its usage in enforced limits.

        The customer itself always: the plan of one of its subscriptions may have limits.
        """
        chain = self.chain(customer_id)
        return [customer_id, *[one.customer_id for one in chain[1:] if self._enforces(one)]]

    def knows_above(self, known: KnownCustomer) -> bool:
        """Whether it knows all customers above a customer, and none of them has to be read again."""
        levels = MOST_LEVELS
        while (parent := known.parent) is not None and (levels := levels - 1):
            above = self.known.get(parent)
            if above is None or above.stale:
                return False
            known = above
        return True

    def _is_covered_itself(self, known: KnownCustomer) -> bool:
        """Whether a customer is covered without those above it."""
        plans = {subscription.plan_id for subscription in known.subscriptions.values() if subscription.plan_id}
        return self._enforces(known.facts) or any(self._plan_enforces(plan_id) for plan_id in plans)

    def _enforces(self, customer: CustomerFacts) -> bool:
        return customer.limits.enforces or self._plan_enforces(customer.plan_id)

    def _plan_enforces(self, plan_id: str | None) -> bool:
        return plan_id is not None and self._plan_limits.get(plan_id, NO_LIMITS).enforces

    def currency_of(self, customer_id: str, subscription_id: str | None) -> str:
        """The currency of a cost whose event names none: the subscription's, or else the customer's."""
        if subscription_id is not None:
            currency = self.subscription(customer_id, subscription_id).currency
            if currency is not None:
                return currency
        return self.customer(customer_id).currency

    def with_currency(self, event: UsageEvent) -> UsageEvent:
        """The event with the currency of its cost: its own, or else `currency_of`."""
        if event.cost is None or event.currency is not None:
            return event
        return event._replace(currency=self.currency_of(event.customer_id, event.subscription_id))

    def know_raw_metrics(self, metrics: Iterable[MetricFacts]) -> None:
        """Knows all metrics in which raw events count from now on."""
        self.raw_metrics, self._raw_events = {}, {}
        for metric in metrics:
            if metric.raw_events is not None:
                self.raw_metrics[metric.metric_id] = metric
                self._raw_events.setdefault(metric.raw_events.event_name, {})[metric.metric_id] = metric.raw_events

    def metric(self, metric_id: str) -> MetricFacts | None:
        """A metric that an event named, or in which raw events count; None when the router knows none."""
        return self.metrics.get(metric_id) or (self.raw_metrics or {}).get(metric_id)

    def metric_events(self, events: Sequence[UsageEvent]) -> Sequence[UsageEvent]:
        """The events, with an event of each metric that a raw event counts in in place of the raw event.

        `raw_metrics` must be known if any event is raw.
        """
        return as_metric_events(self._raw_events, events)

    def last_period_end(self, customer_id: str, subscription_id: str | None, time: datetime) -> datetime:
        """The end of the period that contains `time`: the customer's, or the subscription's if that is later."""
        cycle = self.customer(customer_id).cycle
        end = cycle.period_at(time).end
        if subscription_id is not None:
            own = self.subscription(customer_id, subscription_id).cycle
            end = max(end, (own or cycle).period_at(time).end)
        return end

    @property
    def revision(self) -> int:
        """The number of the last change of routes. A customer whose `revision` it is has no outdated route."""
        return self._changes.revision

    def customer_measures(self, known: KnownCustomer, key: RouteKey, time: datetime) -> tuple[CustomerMeasure, ...]:
        """The watched measures that an event can move; whether it does depends on its properties.

        known: its customer. The facts of its subscription and metric must be in the router.
        """
        if known.revision != self._changes.revision:
            self._forget_touched(known)
        route = known.routes.get(key)
        if route is None:
            found = (self._measure(known, measure, owner, time) for measure, owner in self._measures(known, key))
            route = known.routes[key] = tuple(each for each in found if each is not None)
        return route

    def customer_measure(
        self, measure: Measure, customer_id: str, subscription_id: str | None, time: datetime
    ) -> CustomerMeasure | None:
        """One measure of one customer or subscription; None when no alert watches it."""
        return self._measure(self.known[customer_id], measure, subscription_id, time)

    def _forget_touched(self, known: KnownCustomer) -> None:
        """Forgets what was found for a customer and has been touched by a change since."""
        changes, since = self._changes, known.revision
        known.revision = changes.revision
        if changes.all_since(since):
            known.forget_everything()
            return
        known.routes = {}
        known.measures = {
            (measure, owner): found
            for (measure, owner), found in known.measures.items()
            if not changes.since(since, measure, known.plan_of(owner))
        }

    def _measures(self, known: KnownCustomer, key: RouteKey) -> dict[tuple[Measure, str | None], None]:
        """The measures of an event, in their order, each with its subscription if it measures subscriptions."""
        subscription_id, metric_id, currency = key
        measures = [(Measure(metric_id=metric_id), None)]
        own: list[tuple[Measure, str | None]] = []
        if currency is not None:
            measures.append((Measure(currency=currency), None))
        if subscription_id is not None:
            own.append((Measure(metric_id=metric_id, per_subscription=True), subscription_id))
            if currency is not None:
                own.append((Measure(currency=currency, per_subscription=True), subscription_id))
        plans = known.facts.plan_id, known.plan_of(subscription_id)
        indexes = (*self.wide.covering(plans), known.facts.alerts)
        if any(index.counts_held for index in indexes):
            measures += [(replace(measure, counts_held=True), owner) for measure, owner in measures]
            own += [(replace(measure, counts_held=True), owner) for measure, owner in own]
        if currency is not None:
            contract = known.subscriptions[subscription_id].custom_fields.items() if subscription_id else {}.items()
            for index in indexes:
                for measure in index.selective(currency):
                    if not measure.per_subscription and contract >= set(measure.contract_fields):
                        measures.append((measure, None))
                    elif measure.per_subscription and subscription_id is not None:
                        own.append((measure, subscription_id))
        return dict.fromkeys((*measures, *own))

    def _measure(
        self, known: KnownCustomer, measure: Measure, subscription_id: str | None, time: datetime
    ) -> CustomerMeasure | None:
        key = measure, subscription_id
        if key not in known.measures:
            known.measures[key] = self._find(known, measure, subscription_id, time)
        return known.measures[key]

    def _find(
        self, known: KnownCustomer, measure: Measure, subscription_id: str | None, time: datetime
    ) -> CustomerMeasure | None:
        customer = known.facts
        cycle, plan_id = customer.cycle, customer.plan_id
        changed_epoch, changed_time = customer.changed_epoch, customer.changed_time
        if subscription_id is not None:
            subscription = known.subscriptions[subscription_id]
            cycle, plan_id = subscription.cycle or cycle, subscription.plan_id
            changed_epoch = max(changed_epoch, subscription.changed_epoch)
            changed_time = max(changed_time, subscription.changed_time)
        by_keys = self._by_keys(customer, measure, subscription_id, plan_id)
        if not by_keys:
            return None
        metric = self.metric(measure.metric_id) if measure.metric_id is not None else None
        raw_events = metric.raw_events if metric else None
        if raw_events is not None:  # before the metric existed, no raw event was counted in it
            changed_epoch = max(changed_epoch, raw_events.since_epoch)
            changed_time = max(changed_time, raw_events.since_time)
        return CustomerMeasure(
            measure=measure,
            customer_id=customer.customer_id,
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
            raw_events=raw_events,
        )

    def _by_keys(
        self, customer: CustomerFacts, measure: Measure, subscription_id: str | None, plan_id: str | None
    ) -> ByKeys:
        """The alerts that watch a measure of a customer or subscription, by their group keys, oldest first."""
        own = customer.alerts.on_usage(measure)
        if not own and not customer.excluded:
            return self.wide.by_keys(measure, plan_id)
        covered = customer.customer_id, subscription_id, plan_id
        wide = (rule for index in self.wide.covering((plan_id,)) for rule in index.on_usage(measure))
        return by_keys(
            rule
            for rule in (*wide, *own)
            if rule.scope.covers(*covered) and not customer.excludes(rule.alert_id, subscription_id)
        )


def group_of(keys: tuple[str, ...], properties: Mapping[str, str]) -> Group | None:
    """The group of an event by those keys; None when the event lacks one of them."""
    group = []
    for key in keys:
        value = properties.get(key)
        if value is None:
            return None
        group.append((key, value))
    return tuple(group)

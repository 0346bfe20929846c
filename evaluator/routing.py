"""Routing: which gauges an event moves, and which alerts watch each of them.

A router holds the rules of one organization at one epoch. It caches what it finds, so that the thousandth event of a
customer costs a few dictionary look-ups.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from evaluator.aggregation import Aggregation
from evaluator.alerts import AlertRule
from evaluator.events import UsageEvent
from evaluator.gauges import Group, Measure
from evaluator.limits import NO_LIMITS, Limits
from evaluator.raw_events import RawEvents, as_metric_events
from evaluator.routing_facts import CustomerFacts, MetricFacts, SubscriptionFacts
from evaluator.watched_gauges import CustomerMeasure

# Events may be this far ahead of the clock, so a period may contain events that arrived before its start.
FUTURE_TOLERANCE = timedelta(minutes=5)

# What of an event decides its route, apart from its time and properties: customer, subscription, metric, currency.
RouteKey = tuple[str, str | None, str, str | None]


class Router:
    """The rules and the facts of one organization at one epoch."""

    def __init__(
        self, epoch: int, alerts: Iterable[AlertRule], plan_limits: Mapping[str, Limits] | None = None
    ) -> None:
        """`plan_limits`: by plan id. The limits of single customers are in their `CustomerFacts`."""
        self.epoch = epoch
        self.plan_limits = dict(plan_limits or {})
        self.alerts: dict[str, AlertRule] = {alert.alert_id: alert for alert in alerts}
        self.customers: dict[str, CustomerFacts] = {}
        self.subscriptions: dict[tuple[str, str], SubscriptionFacts] = {}
        self.metrics: dict[str, MetricFacts] = {}
        # The metrics in which raw events count. None until a raw event came: they are read all at once, because a raw
        # event does not say which metrics it concerns. Apart from `metrics`, which has what events named.
        self.raw_metrics: dict[str, MetricFacts] | None = None
        self._raw_events: dict[str, dict[str, RawEvents]] = {}  # by event name and metric id
        self._by_measure: dict[Measure, list[AlertRule]] = {}
        # Cost measures with price filters, by currency and by whether they measure subscriptions.
        self._with_prices: dict[tuple[str | None, bool], list[Measure]] = {}
        # Cost measures with fields of contracts, by currency.
        self._with_contracts: dict[str | None, list[Measure]] = {}
        self._fact_rules = [alert for alert in self.alerts.values() if alert.measure.of_facts]
        for alert in self.alerts.values():
            if not alert.measure.of_facts:
                self._by_measure.setdefault(alert.measure, []).append(alert)
        for measure in self._by_measure:
            if measure.contract_fields:
                self._with_contracts.setdefault(measure.currency, []).append(measure)
            if measure.prices:
                self._with_prices.setdefault((measure.currency, measure.per_subscription), []).append(measure)
        self._routes: dict[RouteKey, tuple[CustomerMeasure, ...]] = {}
        self._customer_measures: dict[tuple[Measure, str, str | None], CustomerMeasure | None] = {}

    def fact_rules(self, customer: CustomerFacts) -> list[AlertRule]:
        """The alerts on facts that are evaluated for a customer."""
        covered = customer.customer_id, None, customer.plan_id
        return [
            alert
            for alert in self._fact_rules
            if alert.scope.covers(*covered) and not customer.excludes(alert.alert_id, None)
        ]

    def limits_of(self, customer: CustomerFacts, plan_id: str | None) -> tuple[Limits, ...]:
        """The limits of a customer, or of its subscription with that plan: first its own, then those of the plan."""
        return customer.limits, self.plan_limits.get(plan_id or "", NO_LIMITS)

    def currency_of(self, customer_id: str, subscription_id: str | None) -> str:
        """The currency of a cost whose event names none: the subscription's, or else the customer's."""
        if subscription_id is not None:
            currency = self.subscriptions[customer_id, subscription_id].currency
            if currency is not None:
                return currency
        return self.customers[customer_id].currency

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
        cycle = self.customers[customer_id].cycle
        end = cycle.period_at(time).end
        if subscription_id is not None:
            own = self.subscriptions[customer_id, subscription_id].cycle
            end = max(end, (own or cycle).period_at(time).end)
        return end

    def exclude(self, customer_id: str, alert_id: str, subscription_id: str | None) -> None:
        """Stops routing to an alert for a customer, or for one subscription of it."""
        customer = self.customers.get(customer_id)
        if customer is None or (alert_id, subscription_id) in customer.excluded:
            return
        excluded = customer.excluded | {(alert_id, subscription_id)}
        self.customers[customer_id] = replace(customer, excluded=excluded)
        self._forget({customer_id})

    def forget_routes(self, whose: Iterable[tuple[str, str | None, str]]) -> None:
        """Forgets what it found for these customers, subscriptions and metrics, whose facts were rolled back."""
        self._forget({customer_id for customer_id, _, _ in whose})

    def _forget(self, customer_ids: set[str]) -> None:
        if not customer_ids:
            return
        self._routes = {key: route for key, route in self._routes.items() if key[0] not in customer_ids}
        self._customer_measures = {
            key: found for key, found in self._customer_measures.items() if key[1] not in customer_ids
        }

    def customer_measures(self, key: RouteKey, time: datetime) -> tuple[CustomerMeasure, ...]:
        """The watched measures that an event can move; whether it does depends on its properties.

        The facts of its customer, subscription and metric must be in the router.
        """
        route = self._routes.get(key)
        if route is None:
            customer_id = key[0]
            found = (
                self.customer_measure(measure, customer_id, owner, time) for measure, owner in self._measures(key)
            )
            route = self._routes[key] = tuple(each for each in found if each is not None)
        return route

    def _measures(self, key: RouteKey) -> list[tuple[Measure, str | None]]:
        """The measures of an event, each with its subscription if it measures subscriptions."""
        customer_id, subscription_id, metric_id, currency = key
        measures: list[tuple[Measure, str | None]] = [(Measure(metric_id=metric_id), None)]
        if currency is not None:
            measures.append((Measure(currency=currency), None))
            measures += [(measure, None) for measure in self._with_prices.get((currency, False), ())]
        if subscription_id is not None:
            measures.append((Measure(metric_id=metric_id, per_subscription=True), subscription_id))
            if currency is not None:
                measures.append((Measure(currency=currency, per_subscription=True), subscription_id))
                measures += [(measure, subscription_id) for measure in self._with_prices.get((currency, True), ())]
                if of_contracts := self._with_contracts.get(currency):
                    fields = self.subscriptions[customer_id, subscription_id].custom_fields.items()
                    measures += [
                        (measure, None) for measure in of_contracts if fields >= set(measure.contract_fields)
                    ]
        return measures

    def customer_measure(
        self, measure: Measure, customer_id: str, subscription_id: str | None, time: datetime
    ) -> CustomerMeasure | None:
        """One measure of one customer or subscription; None when no alert watches it."""
        key = (measure, customer_id, subscription_id)
        if key not in self._customer_measures:
            self._customer_measures[key] = self._find(measure, customer_id, subscription_id, time)
        return self._customer_measures[key]

    def _find(
        self, measure: Measure, customer_id: str, subscription_id: str | None, time: datetime
    ) -> CustomerMeasure | None:
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
        metric = self.metric(measure.metric_id) if measure.metric_id is not None else None
        raw_events = metric.raw_events if metric else None
        if raw_events is not None:  # before the metric existed, no raw event was counted in it
            changed_epoch = max(changed_epoch, raw_events.since_epoch)
            changed_time = max(changed_time, raw_events.since_time)
        return CustomerMeasure(
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
            raw_events=raw_events,
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

"""The index of alerts: those that measure something are found without a search among the others.

Wide alerts (of all customers, or of a plan) are indexed once for an organization. The alerts that name one customer
are indexed with the facts of that customer (`evaluator.routing_facts`).
"""

from collections.abc import Collection, Iterable, Iterator

from evaluator.alerts import AlertRule
from evaluator.gauges import Measure
from evaluator.watching_alerts import NO_KEYS, ByKeys, by_keys


class AlertIndex:
    """Active alerts, by what they measure."""

    __slots__ = ("_by_id", "_counting_held", "_on_facts", "_on_usage", "_selective")

    def __init__(self, rules: Iterable[AlertRule] = ()) -> None:
        self._by_id: dict[str, AlertRule] = {}
        self._on_facts: dict[str, AlertRule] = {}
        self._on_usage: dict[Measure, dict[str, AlertRule]] = {}
        # Measures that count only some cost, by currency: an event has to be compared with each of them.
        self._selective: dict[str | None, dict[Measure, None]] = {}
        # Measures that count what is held, apart from those above: few organizations have any.
        self._counting_held: dict[Measure, None] = {}
        for rule in rules:
            self.put(rule)

    def __iter__(self) -> Iterator[AlertRule]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, alert_id: str) -> AlertRule | None:
        """The alert with that id."""
        return self._by_id.get(alert_id)

    def put(self, rule: AlertRule) -> None:
        """Adds an alert, or replaces the one with its id."""
        self.remove(rule.alert_id)
        self._by_id[rule.alert_id] = rule
        measure = rule.measure
        if measure.of_facts:
            self._on_facts[rule.alert_id] = rule
            return
        self._on_usage.setdefault(measure, {})[rule.alert_id] = rule
        if measure.prices or measure.contract_fields:
            self._selective.setdefault(measure.currency, {})[measure] = None
        elif measure.counts_held:
            self._counting_held[measure] = None

    def remove(self, alert_id: str) -> AlertRule | None:
        """Removes an alert; returns it, or None if there is none with that id."""
        rule = self._by_id.pop(alert_id, None)
        if rule is None:
            return None
        measure = rule.measure
        if self._on_facts.pop(alert_id, None) is None:
            alike = self._on_usage[measure]
            del alike[alert_id]
            if not alike:
                del self._on_usage[measure]
                self._selective.get(measure.currency, {}).pop(measure, None)
                self._counting_held.pop(measure, None)
        return rule

    def on_usage(self, measure: Measure) -> Collection[AlertRule]:
        """The alerts on that measure of usage or cost."""
        return found.values() if (found := self._on_usage.get(measure)) is not None else ()

    @property
    def on_facts(self) -> Collection[AlertRule]:
        """The alerts on facts, such as balances and invoices."""
        return self._on_facts.values()

    def selective(self, currency: str) -> Iterable[Measure]:
        """The measures of cost in a currency that count only some prices, or some contracts."""
        return self._selective.get(currency, ())

    @property
    def counts_held(self) -> bool:
        """Whether it has a measure that counts what is held of all usage of a metric, or of all cost."""
        return bool(self._counting_held)


NO_ALERTS = AlertIndex()  # shared, and never changed


class WideAlerts:
    """The active alerts of all customers, and those of each plan."""

    def __init__(self, rules: Iterable[AlertRule] = ()) -> None:
        """`rules`: none of them names a customer."""
        self.of_all_customers = AlertIndex()
        self._of_plans: dict[str, AlertIndex] = {}
        self._of_any_plan = AlertIndex()  # those of all plans together
        self._plan_ids: dict[str, str | None] = {}  # of each alert; None for one of all customers
        # What `by_keys` has found, by plan; None for customers on a plan without alerts, and on none.
        self._by_keys: dict[Measure, dict[str | None, ByKeys]] = {}
        for rule in rules:
            self.put(rule)

    def __len__(self) -> int:
        return len(self._plan_ids)

    def __iter__(self) -> Iterator[AlertRule]:
        yield from self.of_all_customers
        for index in self._of_plans.values():
            yield from index

    def get(self, alert_id: str) -> AlertRule | None:
        """The alert with that id."""
        if alert_id not in self._plan_ids:
            return None
        return self.of_plan(self._plan_ids[alert_id]).get(alert_id)

    def of_plan(self, plan_id: str | None) -> AlertIndex:
        """The alerts of a plan; None: those of all customers."""
        return self.of_all_customers if plan_id is None else self._of_plans.get(plan_id, NO_ALERTS)

    def covering(self, plan_ids: Iterable[str | None]) -> list[AlertIndex]:
        """The alerts of all customers, and those of the plans, without plans that have none."""
        plans = {plan_id: None for plan_id in plan_ids if plan_id in self._of_plans}
        return [self.of_all_customers, *(self._of_plans[plan_id] for plan_id in plans if plan_id is not None)]

    def on_usage(self, measure: Measure) -> list[AlertRule]:
        """The alerts on that measure of usage or cost, whatever they cover."""
        return [*self.of_all_customers.on_usage(measure), *self._of_any_plan.on_usage(measure)]

    def by_keys(self, measure: Measure, plan_id: str | None) -> ByKeys:
        """The alerts on a measure of usage or cost that cover customers on a plan, by their group keys.

        Found once for all of these customers, until an alert on the measure changes.
        """
        known = self._by_keys.get(measure)
        plan_id = plan_id if plan_id in self._of_plans else None
        if known is not None and plan_id in known:
            return known[plan_id]
        rules = [rule for index in self.covering((plan_id,)) for rule in index.on_usage(measure)]
        if not rules:  # usage can name any number of metrics that no alert measures
            return NO_KEYS
        found = self._by_keys.setdefault(measure, {})[plan_id] = by_keys(rules)
        return found

    def put(self, rule: AlertRule) -> None:
        """Adds an alert, or replaces the one with its id."""
        self.remove(rule.alert_id)
        self._by_keys.pop(rule.measure, None)
        plan_id = rule.scope.plan_id
        self._plan_ids[rule.alert_id] = plan_id
        if plan_id is None:
            self.of_all_customers.put(rule)
        else:
            self._of_plans.setdefault(plan_id, AlertIndex()).put(rule)
            self._of_any_plan.put(rule)

    def remove(self, alert_id: str) -> AlertRule | None:
        """Removes an alert; returns it, or None if there is none with that id."""
        if alert_id not in self._plan_ids:
            return None
        plan_id = self._plan_ids.pop(alert_id)
        index = self.of_plan(plan_id)
        removed = index.remove(alert_id)
        if removed is not None:
            self._by_keys.pop(removed.measure, None)
        if plan_id is not None:
            self._of_any_plan.remove(alert_id)
            if not len(index):
                del self._of_plans[plan_id]
        return removed

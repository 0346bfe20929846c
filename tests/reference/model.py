"""The plain reference model of the evaluation: it keeps every event and counts everything anew each time.

Slow and obvious on purpose, and without a line of evaluator/: fractions instead of decimals, calendar months in UTC
as the only billing periods, lists instead of locks. What it says is what the service has to have done.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from tests.reference.ladder import Crossing, Line, State, crossings, furthest, mark_silently

Month = tuple[int, int]
Prices = frozenset[tuple[str, bool, frozenset[str]]]  # property, whether its values are taken in or left out, values


@dataclass(frozen=True)
class Event:
    """A usage event; every cost names its currency."""

    event_id: str
    customer: str
    time: datetime
    metric: str
    quantity: Fraction
    subscription: str | None = None
    cost: Fraction | None = None
    currency: str | None = None
    properties: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Alert:
    """An alert. measure: ("usage", metric) or ("cost", currency). scope: ("all",), ("plan", plan), ("customer",
    customer) or ("subscription", customer, subscription). keys: properties, each with a value or with None for all.
    prices: which costs count, at most one condition for each property.
    overrides: values of keys, each with the lines that the groups with those values have instead.
    """

    name: str
    measure: tuple[str, str]
    per_subscription: bool
    scope: tuple[str, ...]
    keys: tuple[tuple[str, str | None], ...]
    lines: tuple[Line, ...]
    evaluate: bool = True
    prices: Prices = frozenset()
    overrides: tuple[tuple[tuple[tuple[str, str], ...], tuple[Line, ...]], ...] = ()

    def lines_for(self, group: tuple[tuple[str, str], ...]) -> tuple[Line, ...]:
        """The lines of a group: of the override that names most of its values, of several the first."""
        fitting = [(bound, lines) for bound, lines in self.overrides if set(bound) <= set(group)]
        return max(fitting, key=lambda item: len(item[0]), default=((), self.lines))[1]


@dataclass(frozen=True)
class Gauge:
    """What is measured: of whom, of what, for which values of the keys, in which month."""

    customer: str
    subscription: str | None
    measure: tuple[str, str]
    group: tuple[tuple[str, str], ...]
    month: Month
    prices: Prices = frozenset()


@dataclass(frozen=True)
class Notification:
    """What is sent of one alert on one gauge after one commit. furthest: places in crossings."""

    alert: str
    gauge: Gauge
    sequence: int
    late: bool
    crossings: tuple[Crossing, ...]
    furthest: frozenset[int]


class Model:
    """One organization. aggregations: of each metric, and the property that UNIQUE_COUNT counts."""

    def __init__(self, now: datetime, aggregations: Mapping[str, str], unique_property: str) -> None:
        self.now = now
        self.events: dict[tuple[str, str], Event] = {}
        self.alerts: dict[str, Alert] = {}
        self.states: dict[tuple[str, Gauge], State] = {}
        self.notifications: list[Notification] = []
        self._aggregations = aggregations
        self._unique_property = unique_property
        self._plans: dict[tuple[str, str | None], str] = {}
        self._tick = 0
        self._created: dict[str, tuple[int, Month]] = {}
        self._edited: dict[str, int] = {}
        self._former: dict[str, list[Alert]] = {}
        self.switched_off: set[tuple[str, ...]] = (
            set()
        )  # an alert, or an alert, a customer and perhaps a subscription
        self._changed: dict[tuple[str, str | None], int] = {}
        self._looked_at: dict[Gauge, int] = {}

    def put(self, customer: str, subscription: str | None, plan: str) -> None:
        """A customer, or a subscription, comes to a plan."""
        if self._plans.get((customer, subscription), "") != plan:
            self._tick += 1
            self._plans[customer, subscription] = plan
            self._changed[customer, subscription] = self._tick
            for alert in self.alerts.values():
                self._visit(alert, customer)

    def create(self, alert: Alert) -> None:
        """An alert is created and visits what there is in the current month."""
        self._tick += 1
        self.alerts[alert.name], self._former[alert.name] = alert, []
        self._created[alert.name] = self._tick, month_of(self.now)
        self._edited[alert.name] = self._tick
        for gauge in self.current(alert):
            self._look(gauge, (), new=alert.name)

    def edit(self, alert: Alert, *, reset: bool) -> None:
        """An alert gets other lines, and visits again. reset: it forgets everything before."""
        former = self.alerts[alert.name]
        if former == alert and not reset:
            return
        self._tick += 1
        self.alerts[alert.name], self._edited[alert.name] = alert, self._tick
        self._former[alert.name].insert(0, former)
        if reset:
            self._forget({key for key in self.states if key[0] == alert.name})
        self._visit(alert)

    def switch(self, name: str, whom: tuple[str, ...], *, on: bool) -> None:
        """An alert is switched on or off: as a whole, for a customer, or for a customer's subscription."""
        if on is ((name, *whom) not in self.switched_off):
            return
        self._tick += 1
        (self.switched_off.discard if on else self.switched_off.add)((name, *whom))
        if whom:
            self._changed[whom[0], None] = self._tick
        elif on:
            self._edited[name] = self._tick
        if on:
            self._visit(self.alerts[name], *whom[:1])

    def reset(self, name: str, customer: str) -> None:
        """An alert forgets what it knows of a customer's current month, and looks again."""
        for gauge in self.current(self.alerts[name], customer):
            self._forget({(name, gauge)})
            self._look(gauge, (), afresh=name)

    def archive(self, name: str) -> None:
        """An alert ends."""
        self._tick += 1
        del self.alerts[name]

    def commit(self, events: Sequence[Event]) -> tuple[list[str], dict[Gauge, Fraction]]:
        """What becomes of each event (new, known, other), and the watched gauges that the new ones moved."""
        verdicts: list[str] = []
        new: list[Event] = []
        for event in events:
            known = self.events.get((event.customer, event.event_id))
            seen = known or next((one for one in new if _identity(one) == _identity(event)), None)
            verdicts.append("new" if seen is None else "known" if seen == event else "other")
            if seen is None:
                new.append(event)
        moved: dict[Gauge, list[Event]] = {}
        for event in new:
            for gauge in self._gauges(event, self.alerts.values()):
                moved.setdefault(gauge, []).append(event)
        for gauge, own in moved.items():
            self._look(gauge, own)
        self.events.update({_identity(event): event for event in new})
        return verdicts, {gauge: self.value(gauge, self.events.values()) for gauge in moved}

    def value(self, gauge: Gauge, events: Iterable[Event]) -> Fraction:
        """The gauge, counted from those events."""
        own = [event for event in events if self._counts(event, gauge)]
        kind, name = gauge.measure
        if kind == "cost":
            return sum((event.cost or Fraction(0) for event in own), Fraction(0))
        quantities = [event.quantity for event in own]
        match self._aggregations[name]:
            case "SUM":
                return sum(quantities, Fraction(0))
            case "COUNT":
                return Fraction(sum(-1 if quantity < 0 else 1 for quantity in quantities))
            case "MAX":
                return max(quantities, default=Fraction(0))
            case "LATEST":
                return max(own, key=lambda event: (event.time, event.event_id)).quantity if own else Fraction(0)
        return Fraction(len({dict(event.properties)[self._unique_property] for event in own}))

    def current(self, alert: Alert, customer: str | None = None) -> set[Gauge]:
        """The gauges of the current month that the alert watches, of all or of one customer."""
        events = [event for event in self.events.values() if customer in (None, event.customer)]
        found = {gauge for event in events for gauge in self._gauges(event, [alert])}
        return {gauge for gauge in found if gauge.month == month_of(self.now)}

    def _visit(self, alert: Alert, customer: str | None = None) -> None:
        for gauge in self.current(alert, customer):
            self._look(gauge, ())

    def _forget(self, keys: Iterable[tuple[str, Gauge]]) -> None:
        for key in keys:
            self.states[key] = State(sequence=self.states[key].sequence if key in self.states else 0)

    def _gauges(self, event: Event, alerts: Iterable[Alert]) -> list[Gauge]:
        """The gauges that the event moves and those alerts watch, each once."""
        found: dict[Gauge, None] = {}
        properties = dict(event.properties)
        for alert in alerts:
            kind, name = alert.measure
            measured = event.metric == name if kind == "usage" else event.currency == name
            grouped = all(key in properties and value in (None, properties[key]) for key, value in alert.keys)
            priced = all((properties.get(name) in values) is taken for name, taken, values in alert.prices)
            if measured and grouped and priced and self._evaluates(alert, event.customer, event.subscription):
                subscription = event.subscription if alert.per_subscription else None
                group = tuple(sorted((key, properties[key]) for key, _ in alert.keys))
                month = month_of(event.time)
                found[Gauge(event.customer, subscription, alert.measure, group, month, alert.prices)] = None
        return list(found)

    def _evaluates(self, alert: Alert, customer: str, subscription: str | None) -> bool:
        """Whether the alert covers them and is not switched off."""
        off = {(alert.name,), (alert.name, customer), (alert.name, customer, subscription)} & self.switched_off
        if off or (alert.per_subscription and subscription is None):
            return False
        match alert.scope:
            case ("plan", plan):
                return self._plans.get((customer, subscription if alert.per_subscription else None)) == plan
            case ("customer", name):
                return customer == name
            case ("subscription", name, its):
                return (customer, subscription) == (name, its)
        return True

    def _counts(self, event: Event, gauge: Gauge) -> bool:
        kind, name = gauge.measure
        unique = kind == "usage" and self._aggregations[name] == "UNIQUE_COUNT"
        return (
            event.customer == gauge.customer
            and gauge.subscription in (None, event.subscription)
            and (event.metric == name if kind == "usage" else event.currency == name)
            and set(gauge.group) <= set(event.properties)
            and all((dict(event.properties).get(name) in some) is taken for name, taken, some in gauge.prices)
            and month_of(event.time) == gauge.month
            and (not unique or self._unique_property in dict(event.properties))
        )

    def _look(self, gauge: Gauge, events: Sequence[Event], *, new: str = "", afresh: str = "") -> None:
        """Evaluates every alert on the gauge: what it was before, if somebody has to look at that, and each event.

        new: an alert that has just been created. afresh: one that looks at what was before in any case.
        """
        known = list(self.events.values())
        base, touched = self.value(gauge, known), any(self._counts(event, gauge) for event in known)
        before = self._looked_at.get(gauge, -1)
        watching = [alert for alert in self.alerts.values() if self._watches(alert, gauge)]
        changes = [self._edited[alert.name] for alert in watching]
        changes += [self._changed.get((gauge.customer, who), 0) for who in {None, gauge.subscription}]
        stale = touched and before < max(changes)
        path = [(self.value(gauge, [*known, *events[: at + 1]]), one.event_id) for at, one in enumerate(events)]
        for alert in watching:
            created, month = self._created[alert.name]
            lines, state = alert.lines_for(gauge.group), self.states.setdefault((alert.name, gauge), State())
            steps: list[tuple[Fraction, str | None]] = []
            untold = alert.name == new or (before < created and gauge.month < month)
            if stale and alert.name != afresh and not alert.evaluate and untold:
                mark_silently(lines, state, base)
            elif stale or alert.name == afresh:
                steps.append((base, None))
            former = [line for version in self._former[alert.name] for line in version.lines_for(gauge.group)]
            found = crossings(lines, state, base, [*steps, *path], former)
            told = [crossing for crossing, line in found if crossing.kind in line.told]
            if told:
                state.sequence += 1
                late = gauge.month < month_of(self.now)
                sent = Notification(alert.name, gauge, state.sequence, late, tuple(told), furthest(told))
                self.notifications.append(sent)
        self._looked_at[gauge] = self._tick

    def _watches(self, alert: Alert, gauge: Gauge) -> bool:
        selected = dict(gauge.group)
        return (
            (alert.measure, alert.prices) == (gauge.measure, gauge.prices)
            and alert.per_subscription == (gauge.subscription is not None)
            and {key for key, _ in alert.keys} == set(selected)
            and all(value in (None, selected[key]) for key, value in alert.keys)
            and self._evaluates(alert, gauge.customer, gauge.subscription)
        )


def month_of(time: datetime) -> Month:
    """The calendar month of a time in UTC."""
    return time.year, time.month


def _identity(event: Event) -> tuple[str, str]:
    return event.customer, event.event_id

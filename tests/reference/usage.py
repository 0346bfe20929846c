"""The reference model of alerts on usage and cost: one organization, its events, its alerts and what they find.

Slow and obvious on purpose: every step evaluates every alert that watches a gauge, on every value of the gauge. There
are no caches, locks or trip levels. A customer's billing cycle is set before its first event and stays.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from fractions import Fraction

from tests.reference.alerts import Alert, Notification, measured, priced
from tests.reference.gauges import Event, Fields, Gauge, Metric, Recorded, Tally
from tests.reference.periods import CALENDAR_MONTH, Cycle, Periods
from tests.reference.thresholds import State, Threshold, Transition, follow, furthest, mark_silently

NEW, DUPLICATE, CONFLICT = "new", "duplicate", "conflict"  # what becomes of an event
VOIDED, ALREADY_VOIDED, NOT_FOUND = "VOIDED", "ALREADY_VOIDED", "NOT_FOUND"  # what becomes of one to be voided


class UsageModel:
    """One organization. recorded: every transition. switched_off: (alert,), (alert, customer) or (alert, customer,
    subscription)."""

    def __init__(self, now: datetime, metrics: Iterable[Metric]) -> None:
        self.now = now
        self.events: dict[tuple[str, str], Event] = {}
        self.alerts: dict[str, Alert] = {}
        self.states: dict[tuple[str, Gauge], State] = {}
        self.recorded: list[Recorded] = []
        self.notifications: list[Notification] = []
        self.switched_off: set[tuple[str, ...]] = set()
        self._metrics = {metric.metric_id: metric for metric in metrics}
        self._plans: dict[tuple[str, str | None], str] = {}
        self._fields: dict[tuple[str, str | None], Fields] = {}
        self._cycles: dict[tuple[str, str | None], Cycle] = {}
        self._periods: dict[Cycle, Periods] = {}
        self._tallies: dict[str, dict[Gauge, Tally]] = {}  # of each customer
        # The number of changes of the rules so far, and at which of them each thing changed or was evaluated last.
        self._tick = 0
        self._created: dict[str, tuple[int, datetime]] = {}
        self._edited: dict[str, int] = {}
        self._changed: dict[tuple[str, str | None], int] = {}
        self._evaluated: dict[Gauge, int] = {}
        self._former: dict[str, list[Alert]] = {}
        self._voided: set[tuple[str, str]] = set()
        self._limits: dict[tuple[tuple[str, str], tuple[str, str]], Fraction] = {}
        self._limited = 0  # the change at which a limit changed last

    def put(self, customer: str, subscription: str | None, plan: str, cycle: Cycle | None = None) -> None:
        """A customer or a subscription gets a plan. cycle: its own, when it has one; to be set before any event."""
        if cycle is not None:
            self._cycles[customer, subscription] = cycle
        if self._plans.get((customer, subscription), "") != plan:
            self._tick += 1
            self._plans[customer, subscription] = plan
            self._changed[customer, subscription] = self._tick
            for alert in self.alerts.values():
                self._evaluate_current(alert, customer)

    def put_fields(self, customer: str, subscription: str, fields: Fields) -> None:
        """A subscription gets other custom fields, so that its events count elsewhere."""
        if self._fields.get((customer, subscription), frozenset()) == fields:
            return
        self._tick += 1
        before = {name: self.current(alert, customer) for name, alert in self.alerts.items()}
        self._fields[customer, subscription] = fields
        self._changed[customer, None] = self._tick
        tallies = self._tallies.get(customer, {})
        for gauge in [gauge for gauge in tallies if gauge.contract]:
            del tallies[gauge]
        for name, alert in self.alerts.items():
            for gauge in before[name] | self.current(alert, customer):
                self._evaluate(gauge, ())

    def put_limit(self, holder: tuple[str, str], measure: tuple[str, str], amount: Fraction | None) -> None:
        """A limit without groups is put or removed. holder: ("customer", customer) or ("plan", plan)."""
        if self._limits.get((holder, measure)) == amount:
            return
        self._tick += 1
        self._limited = self._tick
        if amount is None:
            del self._limits[holder, measure]
        else:
            self._limits[holder, measure] = amount
        for alert in self.alerts.values():
            self._evaluate_current(alert, holder[1] if holder[0] == "customer" else None)

    def limit_of(self, gauge: Gauge) -> Fraction | None:
        """The limit of a gauge: its customer's own, or else that of the plan."""
        if gauge.group:
            return None
        plan = self._plans.get((gauge.customer, gauge.subscription), "")
        of_plan = self._limits.get((("plan", plan), gauge.measure))
        return self._limits.get((("customer", gauge.customer), gauge.measure), of_plan)

    def period_start(self, customer: str, subscription: str | None, time: datetime) -> datetime:
        """The start of the billing period that contains `time`."""
        of_customer = self._cycles.get((customer, None), CALENDAR_MONTH)
        cycle = self._cycles.get((customer, subscription), of_customer)
        return self._periods.setdefault(cycle, Periods(cycle)).start_of(time)

    def create(self, alert: Alert) -> None:
        """An alert is created, and evaluated on the gauges of current periods."""
        self._tick += 1
        self.alerts[alert.name], self._former[alert.name] = alert, []
        self._created[alert.name] = self._tick, self.now
        self._edited[alert.name] = self._tick
        for gauge in self.current(alert):
            self._evaluate(gauge, (), new=alert.name)

    def edit(self, alert: Alert, *, reset: bool) -> None:
        """An alert gets other thresholds and is evaluated again. reset: it forgets everything before."""
        former = self.alerts[alert.name]
        if former == alert and not reset:
            return
        self._tick += 1
        self.alerts[alert.name], self._edited[alert.name] = alert, self._tick
        self._former[alert.name].insert(0, former)
        if reset:
            self._forget({key for key in self.states if key[0] == alert.name})
        self._evaluate_current(alert)

    def switch(self, name: str, target: tuple[str, ...], *, on: bool) -> None:
        """An alert is switched on or off: target is empty for the whole alert, or a customer, or a customer and a
        subscription."""
        if on is ((name, *target) not in self.switched_off):
            return
        self._tick += 1
        (self.switched_off.discard if on else self.switched_off.add)((name, *target))
        if target:
            self._changed[target[0], None] = self._tick
        elif on:
            self._edited[name] = self._tick
        if on:
            self._evaluate_current(self.alerts[name], *target[:1])

    def reset(self, name: str, customer: str) -> None:
        """An alert forgets what it knows of a customer's current period, and is evaluated again."""
        for gauge in self.current(self.alerts[name], customer):
            self._forget({(name, gauge)})
            self._evaluate(gauge, (), again=name)

    def archive(self, name: str) -> None:
        """An alert ends."""
        self._tick += 1
        del self.alerts[name]

    def commit(self, events: Sequence[Event]) -> tuple[list[str], dict[Gauge, Fraction]]:
        """What becomes of each event, and the watched gauges that the new ones moved."""
        verdicts: list[str] = []
        new: dict[tuple[str, str], Event] = {}
        for event in events:
            known = self.events.get(event.identity) or new.get(event.identity)
            verdicts.append(NEW if known is None else DUPLICATE if known == event else CONFLICT)
            if known is None:
                new[event.identity] = event
        moved: dict[Gauge, list[Event]] = {}
        for event in new.values():
            for gauge in self._gauges(event, self.alerts.values()):
                moved.setdefault(gauge, []).append(event)
        for gauge, own in moved.items():
            self._evaluate(gauge, own)
        counted = {(gauge, event.identity) for gauge, own in moved.items() for event in own}
        for event in new.values():
            # Gauges that no alert watches at present count too: an alert may watch them again.
            for gauge, tally in self._tallies.get(event.customer, {}).items():
                if (gauge, event.identity) not in counted and self._counts(event, gauge):
                    tally.add(event)
        self.events |= new
        return verdicts, {gauge: self._tally(gauge).value for gauge in moved}

    def void(self, identities: Sequence[tuple[str, str]]) -> list[str]:
        """Takes events back: afterwards everything is counted as if they had not come. Returns the verdicts."""
        gone: dict[tuple[str, str], Event] = {}
        verdicts: list[str] = []
        for identity in identities:
            known = identity in self.events and identity not in gone
            before = identity in gone or identity in self._voided
            verdicts.append(VOIDED if known else ALREADY_VOIDED if before else NOT_FOUND)
            if known:
                gone[identity] = self.events[identity]
        moved: dict[Gauge, list[Event]] = {}
        for event in gone.values():
            for gauge in self._gauges(event, self.alerts.values()):
                self._tally(gauge)
                moved.setdefault(gauge, []).append(event)
        self._voided |= gone.keys()
        self.events = {identity: event for identity, event in self.events.items() if identity not in gone}
        for gauge, own in moved.items():
            self._evaluate(gauge, (), without=own)
        for event in gone.values():
            tallies = self._tallies.get(event.customer, {})
            for gauge in tallies.keys() - moved.keys():
                if self._counts(event, gauge):
                    tallies[gauge] = self._counted(gauge)
        return verdicts

    def values(self) -> dict[Gauge, Fraction]:
        """The value of every gauge that an alert has watched."""
        return {gauge: one.value for tallies in self._tallies.values() for gauge, one in tallies.items()}

    def current(self, alert: Alert, customer: str | None = None) -> set[Gauge]:
        """The gauges of current periods that the alert watches, of all customers or of one."""
        events = [event for event in self.events.values() if customer in (None, event.customer)]
        found = {gauge for event in events for gauge in self._gauges(event, [alert])}
        return {gauge for gauge in found if gauge.period == self._current_period(gauge, self.now)}

    def _current_period(self, gauge: Gauge, now: datetime) -> datetime:
        return self.period_start(gauge.customer, gauge.subscription, now)

    def shown(self, alert: Alert, customer: str) -> set[Gauge]:
        """The gauges of current periods that the state of the alert shows: `current`, and those whose events were all
        voided after they were evaluated."""
        evaluated = {
            gauge
            for gauge in self._evaluated
            if gauge.customer == customer
            and gauge.period == self._current_period(gauge, self.now)
            and self._watches(alert, gauge)
        }
        return self.current(alert, customer) | evaluated

    def _evaluate_current(self, alert: Alert, customer: str | None = None) -> None:
        for gauge in self.current(alert, customer):
            self._evaluate(gauge, ())

    def _forget(self, keys: Iterable[tuple[str, Gauge]]) -> None:
        for key in keys:
            self.states[key] = State(sequence=self.states[key].sequence if key in self.states else 0)

    def _gauges(self, event: Event, alerts: Iterable[Alert]) -> list[Gauge]:
        """The gauges that the event moves and those alerts watch, each once."""
        found: dict[Gauge, None] = {}
        for alert in alerts:
            if (
                alert.counts(event, self._metric(alert.measure))
                and self._of_contract(alert.contract, event)
                and self._covers(alert, event.customer, event.subscription)
            ):
                subscription = event.subscription if alert.per_subscription else None
                properties = dict(event.properties)
                group = tuple(sorted((key, properties[key]) for key, _ in alert.keys))
                period = self.period_start(event.customer, subscription, event.time)
                found[
                    Gauge(event.customer, subscription, alert.measure, group, period, alert.prices, alert.contract)
                ] = None
        return list(found)

    def _covers(self, alert: Alert, customer: str, subscription: str | None) -> bool:
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
            case ("customer plan", name, plan):
                own = self._plans.get((customer, subscription if alert.per_subscription else None))
                return (customer, own) == (name, plan)
        return True

    def _of_contract(self, contract: Fields, event: Event) -> bool:
        """Whether the event's subscription has those custom fields."""
        return contract <= self._fields.get((event.customer, event.subscription), frozenset())

    def _tally(self, gauge: Gauge) -> Tally:
        """The gauge's value; counted from all events when the gauge is new."""
        tallies = self._tallies.setdefault(gauge.customer, {})
        if gauge not in tallies:
            tallies[gauge] = self._counted(gauge)
        return tallies[gauge]

    def _counted(self, gauge: Gauge) -> Tally:
        """The gauge's value, counted from all events."""
        tally = Tally(self._metric(gauge.measure) if gauge.measure[0] == "usage" else None)
        for event in self.events.values():
            if self._counts(event, gauge):
                tally.add(event)
        return tally

    def _metric(self, measure: tuple[str, str]) -> Metric:
        return self._metrics.get(measure[1], Metric(measure[1]))

    def _counts(self, event: Event, gauge: Gauge) -> bool:
        return (
            event.customer == gauge.customer
            and gauge.subscription in (None, event.subscription)
            and measured(gauge.measure, event, self._metric(gauge.measure))
            and set(gauge.group) <= set(event.properties)
            and priced(gauge.prices, dict(event.properties))
            and self._of_contract(gauge.contract, event)
            and self.period_start(event.customer, gauge.subscription, event.time) == gauge.period
        )

    def _evaluate(
        self,
        gauge: Gauge,
        events: Sequence[Event],
        *,
        new: str = "",
        again: str = "",
        without: Sequence[Event] = (),
    ) -> None:
        """Evaluates every alert that watches the gauge: on its value before, when an alert has not seen it, and on
        its value after each of the events, which are counted now.

        new: an alert that has just been created. again: one that is evaluated on the value before in any case.
        without: events that count no more; the latest of them causes the one step that this is.
        """
        tally = self._tally(gauge)
        base, before = tally.value, self._evaluated.get(gauge, -1)
        # A gauge that was evaluated has shown a value. It shows 0 when nothing counts in it any more.
        touched = tally.count > 0 or before >= 0
        path: list[tuple[Fraction, str | None]] = []
        for event in events:
            tally.add(event)
            path.append((tally.value, event.event_id))
        if without:
            tally = self._tallies[gauge.customer][gauge] = self._counted(gauge)
            path.append((tally.value, max((event.time, event.event_id) for event in without)[1]))
        watching = [alert for alert in self.alerts.values() if self._watches(alert, gauge)]
        changes = [self._edited[alert.name] for alert in watching]
        changes += [self._changed.get((gauge.customer, one), 0) for one in {None, gauge.subscription}]
        changes.append(self._limited)
        stale = touched and before < max(changes)
        for alert in watching:
            created, time = self._created[alert.name]
            thresholds = [one.at_limit(self.limit_of(gauge)) for one in alert.thresholds_of(gauge.group)]
            state = self.states.setdefault((alert.name, gauge), State())
            first: list[tuple[Fraction, str | None]] = []
            assert gauge.period is not None
            older = before < created and gauge.period < self._current_period(gauge, time)
            if stale and alert.name != again and not alert.evaluate and (alert.name == new or older):
                mark_silently(thresholds, state, base)
            elif stale or alert.name == again:
                first.append((base, None))
            former = [one for version in self._former[alert.name] for one in version.thresholds_of(gauge.group)]
            self._record(alert, gauge, state, follow(thresholds, state, base, [*first, *path], former))
        self._evaluated[gauge] = self._tick

    def _record(
        self, alert: Alert, gauge: Gauge, state: State, found: Sequence[tuple[Transition, Threshold]]
    ) -> None:
        self.recorded += [
            Recorded(alert.name, gauge, transition, transition.kind in threshold.notify_on)
            for transition, threshold in found
        ]
        sent = tuple(transition for transition, threshold in found if transition.kind in threshold.notify_on)
        if sent:
            state.sequence += 1
            late = gauge.period is not None and gauge.period < self._current_period(gauge, self.now)
            self.notifications.append(Notification(alert.name, gauge, state.sequence, late, sent, furthest(sent)))

    def _watches(self, alert: Alert, gauge: Gauge) -> bool:
        selected = dict(gauge.group)
        return (
            (alert.measure, alert.prices, alert.contract) == (gauge.measure, gauge.prices, gauge.contract)
            and alert.per_subscription == (gauge.subscription is not None)
            and {key for key, _ in alert.keys} == set(selected)
            and all(value in (None, selected[key]) for key, value in alert.keys)
            and self._covers(alert, gauge.customer, gauge.subscription)
        )

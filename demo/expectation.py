"""What has to happen, computed a second time: a plain model of periods, gauges and thresholds.

It shares no code with the evaluator, on purpose: it is what the service is held against. It is slow and simple. Every
alert adds up its own gauges, event by event, in the order in which the events are sent.
"""

from calendar import monthrange
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from zoneinfo import ZoneInfo

from demo.world import (
    COUNT,
    LATEST,
    MAX,
    REACHED,
    RESOLVED,
    SUM,
    UNIQUE_COUNT,
    AlertPlan,
    Crossing,
    Customer,
    Cycle,
    Event,
    Line,
    Metric,
    short,
)

PRECISION = 80  # digits; nothing here ever needs so many
CALENDAR_MONTH = Cycle(datetime(2000, 1, 1, tzinfo=UTC))

ACCEPTED, DUPLICATE, CONFLICT = "accepted", "duplicate", "conflict"

GaugeKey = tuple[str, str, tuple[tuple[str, str], ...], datetime]  # customer, subscription, group, period's start


class Periods:
    """The periods of one cycle, found by stepping from the anchor."""

    def __init__(self, cycle: Cycle) -> None:
        self._cycle = cycle
        self._zone = ZoneInfo(cycle.zone)
        self._anchor = cycle.anchor.astimezone(self._zone).replace(tzinfo=None)
        self._number = 0

    def start_of(self, time: datetime) -> datetime:
        """The start of the period that contains `time`."""
        while self._boundary(self._number + 1) <= time:
            self._number += 1
        while self._boundary(self._number) > time:
            self._number -= 1
        return self._boundary(self._number)

    def _boundary(self, number: int) -> datetime:
        count = number * self._cycle.interval
        if self._cycle.cadence == "month":
            month = self._anchor.month - 1 + count
            year, month = self._anchor.year + month // 12, month % 12 + 1
            day = min(self._anchor.day, monthrange(year, month)[1])
            local = self._anchor.replace(year=year, month=month, day=day)
        else:
            days = {"day": 1, "week": 7}[self._cycle.cadence] * count
            local = self._anchor + timedelta(days=days)
        return local.replace(tzinfo=self._zone).astimezone(UTC)


@dataclass
class Counter:
    """One gauge of one alert.

    past: the fixed levels that were reached and have not resolved; of them `silent` were never told. rungs: how many
    steps of the recurring line are behind it, silent_rungs of them untold. visited: whether its alert has looked.
    """

    value: Decimal = Decimal(0)
    counted: bool = False
    latest: tuple[datetime, str] | None = None
    seen: set[str] = field(default_factory=set)
    past: set[Decimal] = field(default_factory=set)
    silent: set[Decimal] = field(default_factory=set)
    rungs: int = 0
    silent_rungs: int = 0
    visited: bool = True

    def add(self, metric: Metric | None, amount: Decimal, event: Event) -> None:
        """Counts one event; metric is unset for costs, which are summed."""
        aggregation = metric.aggregation if metric else SUM
        if aggregation == SUM:
            self.value += amount
        elif aggregation == COUNT:
            self.value += -1 if amount < 0 else 1
        elif aggregation == MAX:
            self.value = max(self.value, amount) if self.counted else amount
        elif aggregation == LATEST:
            if self.latest is None or (event.time, event.event_id) > self.latest:
                self.value, self.latest = amount, (event.time, event.event_id)
        elif aggregation == UNIQUE_COUNT and metric:
            self.seen |= {event.properties[key] for key in (metric.unique_property,) if key in event.properties}
            self.value = Decimal(len(self.seen))
        self.counted = True


@dataclass
class _Watcher:
    """An alert with its gauges."""

    plan: AlertPlan
    counters: dict[GaugeKey, Counter] = field(default_factory=dict)


class Expectation:
    """The model. crossings: all that has to happen, told or not; told: those that have to be sent to webhooks."""

    def __init__(self, customers: Iterable[Customer], metrics: Iterable[Metric]) -> None:
        self.crossings: list[Crossing] = []
        self.told: list[Crossing] = []
        self.events: list[Event] = []  # accepted, in order
        self._customers = {customer.customer_id: customer for customer in customers}
        self._metrics = {metric.metric_id: metric for metric in metrics}
        self._watchers: list[_Watcher] = []
        self._periods: dict[Cycle, Periods] = {}
        self._identities: dict[tuple[str, str], Event] = {}

    def watch(self, plan: AlertPlan, now: datetime) -> None:
        """An alert is created, when no event is on its way. What is past a line already in the periods that are
        current `now` is told at once (or marked silently); an older period is looked at when an event reaches it."""
        watcher = _Watcher(plan)
        self._watchers.append(watcher)
        with localcontext(prec=PRECISION):
            for event in self.events:
                for counter, metric, amount, _ in self._moved(watcher, event):
                    counter.add(metric, amount, event)
                    counter.visited = False
            for key, counter in watcher.counters.items():
                if self._start(key[0], key[1], now) == key[3]:
                    self._visit(watcher, key, counter)

    def feed(self, event: Event) -> str:
        """An event that is well formed is sent: ACCEPTED, DUPLICATE or CONFLICT."""
        identity = event.customer, event.event_id
        known = self._identities.get(identity)
        if known is not None:
            return DUPLICATE if known == event else CONFLICT
        self._identities[identity] = event
        self.events.append(event)
        with localcontext(prec=PRECISION):
            for watcher in self._watchers:
                for counter, metric, amount, key in self._moved(watcher, event):
                    if not counter.visited:
                        self._visit(watcher, key, counter)
                    counter.add(metric, amount, event)
                    self._cross(watcher.plan, key, counter, event.event_id)
        return ACCEPTED

    def values(self) -> dict[tuple[str, GaugeKey], Decimal]:
        """The value of every gauge, by the alert's name."""
        return {
            (watcher.plan.name, key): counter.value
            for watcher in self._watchers
            for key, counter in watcher.counters.items()
        }

    def _moved(self, watcher: _Watcher, event: Event) -> Iterator[tuple[Counter, Metric | None, Decimal, GaugeKey]]:
        """The alert's gauge that the event moves, if any."""
        plan = watcher.plan
        customer = self._customers.get(event.customer) or Customer(event.customer)
        subscription = event.subscription if plan.per_subscription else ""
        if plan.per_subscription and not subscription:
            return
        if plan.subscription and plan.subscription != subscription:
            return
        if plan.customer and plan.customer != event.customer:
            return
        if plan.plan and plan.plan != self._plan_of(customer, subscription):
            return
        if plan.of_cost and (not event.cost or (event.currency or customer.currency) != plan.measured):
            return
        if not plan.of_cost and event.metric != plan.measured:
            return
        group = []
        for name, wanted in plan.groups:
            value = event.properties.get(name)
            if value is None or (wanted is not None and value != wanted):
                return
            group.append((name, value))
        key = (
            event.customer,
            subscription,
            tuple(sorted(group)),
            self._start(event.customer, subscription, event.time),
        )
        metric = None if plan.of_cost else self._metrics.get(event.metric, Metric(event.metric))
        amount = Decimal(event.cost if plan.of_cost else event.quantity)
        yield watcher.counters.setdefault(key, Counter()), metric, amount, key

    def _plan_of(self, customer: Customer, subscription_id: str) -> str:
        if not subscription_id:
            return customer.plan
        subscription = customer.subscription(subscription_id)
        return subscription.plan if subscription else ""

    def period_start(self, customer_id: str, time: datetime) -> datetime:
        """The start of the customer's billing period that contains `time`."""
        return self._start(customer_id, "", time)

    def _start(self, customer_id: str, subscription_id: str, time: datetime) -> datetime:
        customer = self._customers.get(customer_id) or Customer(customer_id)
        subscription = customer.subscription(subscription_id)
        cycle = (subscription.cycle if subscription else None) or customer.cycle or CALENDAR_MONTH
        if cycle not in self._periods:
            self._periods[cycle] = Periods(cycle)
        return self._periods[cycle].start_of(time)

    def _visit(self, watcher: _Watcher, key: GaugeKey, counter: Counter) -> None:
        """An alert looks at a gauge that had moved before it existed."""
        counter.visited = True
        if watcher.plan.evaluate_on_create:
            self._cross(watcher.plan, key, counter, "")
            return
        told, crossed = len(self.told), len(self.crossings)
        self._cross(watcher.plan, key, counter, "")
        del self.told[told:], self.crossings[crossed:]
        counter.silent, counter.silent_rungs = set(counter.past), counter.rungs

    def _cross(self, plan: AlertPlan, key: GaugeKey, counter: Counter, event_id: str) -> None:
        """Compares the gauge with each line of its alert."""
        for line in plan.lines:
            if line.value is not None:
                self._cross_fixed(plan, key, counter, line.value, line, event_id)
        foot = max((line.value for line in plan.lines if line.value is not None), default=Decimal(0))
        for line in plan.lines:
            if line.step is None:
                continue
            while counter.value >= foot + line.step * (counter.rungs + 1):
                counter.rungs += 1
                self._report(plan, key, REACHED, foot + line.step * counter.rungs, line.tell, event_id)
            while counter.rungs and counter.value < foot + line.step * counter.rungs:
                if counter.rungs > counter.silent_rungs:
                    self._report(plan, key, RESOLVED, foot + line.step * counter.rungs, line.tell, event_id)
                counter.rungs -= 1
                counter.silent_rungs = min(counter.silent_rungs, counter.rungs)

    def _cross_fixed(
        self, plan: AlertPlan, key: GaugeKey, counter: Counter, level: Decimal, line: Line, event_id: str
    ) -> None:
        if level not in counter.past:
            if counter.value >= level:
                counter.past.add(level)
                self._report(plan, key, REACHED, level, line.tell, event_id)
            return
        if counter.value < level if line.resolve is None else counter.value <= line.resolve:
            counter.past.discard(level)
            if level not in counter.silent:
                self._report(plan, key, RESOLVED, level, line.tell, event_id)
            counter.silent.discard(level)

    def _report(
        self, plan: AlertPlan, key: GaugeKey, kind: str, level: Decimal, tell: tuple[str, ...], event_id: str
    ) -> None:
        customer, subscription, group, start = key
        crossing = Crossing(
            plan.name, customer, subscription, plan.measured, group, start, kind, short(level), event_id
        )
        self.crossings.append(crossing)
        if kind in tell:
            self.told.append(crossing)

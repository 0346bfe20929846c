"""Usage events, metrics, and gauges: what is measured, and the value that events add up to."""

import re
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

from tests.reference.thresholds import Transition

SUM, COUNT, MAX, LATEST, UNIQUE_COUNT = "SUM", "COUNT", "MAX", "LATEST", "UNIQUE_COUNT"

Group = tuple[tuple[str, str], ...]  # keys, each with a value
Fields = frozenset[tuple[str, str]]  # custom fields, each with its value
EventFilters = tuple[tuple[str, bool, frozenset[str]], ...]  # property, whether it is included, values or any
Prices = frozenset[tuple[str, bool, frozenset[str]]]  # property, whether its values are included or excluded, values


@dataclass(frozen=True)
class Metric:
    """A metric. unique_property: the property whose values UNIQUE_COUNT counts.

    event_name: of the raw events that count, if they pass the filters; quantity_property: the property with their
    amounts, or the quantity when it is empty.
    """

    metric_id: str
    aggregation: str = SUM
    unique_property: str = ""
    event_name: str = ""
    filters: EventFilters = ()
    quantity_property: str = ""

    def amount(self, event: "Event") -> Fraction | None:
        """The amount of an event; None when it does not count."""
        if not event.event_name:
            return event.quantity if event.metric == self.metric_id else None
        properties = dict(event.properties)
        if event.event_name != self.event_name:
            return None
        for key, included, wanted in self.filters:
            if (key in properties and (not wanted or properties[key] in wanted)) is not included:
                return None
        if not self.quantity_property:
            return event.quantity
        text = properties.get(self.quantity_property, "")
        return Fraction(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else None


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
    properties: Group = ()
    event_name: str = ""  # of a raw event, which names no metric

    @property
    def identity(self) -> tuple[str, str]:
        """Customer and event id. The service adds the month of the time; no two events here differ in that alone."""
        return self.customer, self.event_id


@dataclass(frozen=True)
class Gauge:
    """What is measured: of which customer or subscription, of what, for which group, in which period.

    measure: ("usage", metric) or ("cost", currency); of facts that have no unit, the reading. period: its start;
    None: there are no periods. prices: which costs count. contract: custom fields of the subscriptions whose cost
    counts.
    """

    customer: str
    subscription: str | None
    measure: tuple[str, str]
    group: Group
    period: datetime | None
    prices: Prices = frozenset()
    contract: Fields = frozenset()


class Recorded(NamedTuple):
    """A transition of a threshold of an alert on a gauge. notified: whether it is sent."""

    alert: str
    gauge: Gauge
    transition: Transition
    notified: bool


class Tally:
    """The value of a gauge of usage or cost, to which its events are added one by one. metric: None for cost."""

    def __init__(self, metric: Metric | None) -> None:
        self.value = Fraction(0)
        self.count = 0
        self._metric = metric
        self._latest: tuple[datetime, str] | None = None
        self._seen: set[str] = set()

    def add(self, event: Event) -> None:
        """Counts an event; UNIQUE_COUNT skips one that has no value."""
        if self._metric is None:
            self.value += event.cost or Fraction(0)
        elif (amount := self._metric.amount(event)) is not None:
            match self._metric.aggregation:
                case "SUM":
                    self.value += amount
                case "COUNT":
                    self.value += -1 if amount < 0 else 1
                case "MAX":
                    self.value = max(self.value, amount) if self.count else amount
                case "LATEST":
                    if self._latest is None or (event.time, event.event_id) > self._latest:
                        self.value, self._latest = amount, (event.time, event.event_id)
                case _:
                    value = dict(event.properties).get(self._metric.unique_property)
                    if value is None:
                        return
                    self._seen.add(value)
                    self.value = Fraction(len(self._seen))
        self.count += 1

"""Usage events, metrics, and gauges: what is measured, and the value that events add up to."""

from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

from tests.reference.thresholds import Transition

SUM, COUNT, MAX, LATEST, UNIQUE_COUNT = "SUM", "COUNT", "MAX", "LATEST", "UNIQUE_COUNT"

Group = tuple[tuple[str, str], ...]  # keys, each with a value
Fields = frozenset[tuple[str, str]]  # custom fields, each with its value
Prices = frozenset[tuple[str, bool, frozenset[str]]]  # property, whether its values are included or excluded, values


@dataclass(frozen=True)
class Metric:
    """A metric. unique_property: the property whose values UNIQUE_COUNT counts."""

    metric_id: str
    aggregation: str = SUM
    unique_property: str = ""


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
        else:
            match self._metric.aggregation:
                case "SUM":
                    self.value += event.quantity
                case "COUNT":
                    self.value += -1 if event.quantity < 0 else 1
                case "MAX":
                    self.value = max(self.value, event.quantity) if self.count else event.quantity
                case "LATEST":
                    if self._latest is None or (event.time, event.event_id) > self._latest:
                        self.value, self._latest = event.quantity, (event.time, event.event_id)
                case _:
                    value = dict(event.properties).get(self._metric.unique_property)
                    if value is None:
                        return
                    self._seen.add(value)
                    self.value = Fraction(len(self._seen))
        self.count += 1

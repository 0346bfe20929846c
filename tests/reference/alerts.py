"""The alerts of the reference model on usage and cost, and what is notified of them."""

from dataclasses import dataclass

from tests.reference.gauges import Event, Fields, Gauge, Group, Metric, Prices
from tests.reference.thresholds import Threshold, Transition


@dataclass(frozen=True)
class Alert:
    """An alert on usage or cost.

    measure: ("usage", metric) or ("cost", currency). scope: ("all",), ("plan", plan), ("customer", customer),
    ("subscription", customer, subscription) or ("customer plan", customer, plan). keys: properties that group events,
    each with the one value that counts, or None for all values. evaluate: whether it notifies of what is reached when
    it is created. prices: which costs count, at most one filter for each property. overrides: some values of keys,
    each with the thresholds that groups with these values have instead.
    """

    name: str
    measure: tuple[str, str]
    per_subscription: bool
    scope: tuple[str, ...]
    keys: tuple[tuple[str, str | None], ...]
    thresholds: tuple[Threshold, ...]
    evaluate: bool = True
    prices: Prices = frozenset()
    overrides: tuple[tuple[Group, tuple[Threshold, ...]], ...] = ()
    contract: Fields = frozenset()

    def thresholds_of(self, group: Group) -> tuple[Threshold, ...]:
        """The thresholds of a group: of the override that names most of its values; of equals, the first."""
        fitting = [(bound, thresholds) for bound, thresholds in self.overrides if set(bound) <= set(group)]
        return max(fitting, key=lambda item: len(item[0]), default=((), self.thresholds))[1]

    def counts(self, event: Event, metric: Metric) -> bool:
        """Whether the event is of what the alert measures, whatever its customer and subscription.

        metric: the one that it measures, if it measures usage.
        """
        if not measured(self.measure, event, metric):
            return False
        properties = dict(event.properties)
        grouped = all(key in properties and value in (None, properties[key]) for key, value in self.keys)
        return grouped and priced(self.prices, properties)


@dataclass(frozen=True)
class Notification:
    """What is sent of one alert on one gauge after one commit. furthest: indexes of transitions."""

    alert: str
    gauge: Gauge
    sequence: int
    late: bool
    transitions: tuple[Transition, ...]
    furthest: frozenset[int]


def measured(measure: tuple[str, str], event: Event, metric: Metric) -> bool:
    """Whether the event is of the metric or the currency."""
    kind, name = measure
    return metric.amount(event) is not None if kind == "usage" else event.currency == name


def priced(prices: Prices, properties: dict[str, str]) -> bool:
    """Whether an event with these properties passes all filters of prices."""
    return all((properties.get(name) in values) is included for name, included, values in prices)

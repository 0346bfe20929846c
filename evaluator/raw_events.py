"""Raw events: events that name a type instead of a metric, and count in every metric that takes them."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from evaluator.amounts import AmountError, parse_decimal
from evaluator.events import UsageEvent
from evaluator.prices import FilterOperator

_METRIC_ID = operator.attrgetter("metric_id")


@dataclass(frozen=True, order=True)
class EventFilter:
    """Includes, or excludes, the events whose property has one of these values; without values: any value.

    An event without the property is excluded by INCLUDES and included by EXCLUDES.
    """

    key: str
    operator: FilterOperator
    values: tuple[str, ...] = ()

    def passes(self, properties: Mapping[str, str]) -> bool:
        """Whether an event with these properties counts."""
        value = properties.get(self.key)
        matches = value is not None and (not self.values or value in self.values)
        return matches is (self.operator is FilterOperator.INCLUDES)


@dataclass(frozen=True)
class RawEvents:
    """The raw events that count in a metric, and their amounts.

    filters: in the form of `canonical`; all must pass. quantity_property: its value is the amount; None: the event's
    quantity is.
    since_epoch, since_time: when the metric was created; events that came before are counted by a recount.
    """

    event_name: str
    filters: tuple[EventFilter, ...]
    quantity_property: str | None
    since_epoch: int
    since_time: datetime

    def amount_of(self, event: UsageEvent) -> Decimal | None:
        """The amount of a raw event of this type; None when it does not count."""
        properties = event.properties
        if not all(one.passes(properties) for one in self.filters):
            return None
        if self.quantity_property is None:
            return event.quantity
        try:
            return parse_decimal(properties.get(self.quantity_property, ""))
        except AmountError:
            return None


def canonical(filters: Iterable[EventFilter]) -> tuple[EventFilter, ...]:
    """The same form for filters that differ only in their order."""
    return tuple(sorted({EventFilter(one.key, one.operator, tuple(sorted(set(one.values)))) for one in filters}))


def as_metric_events(
    metrics_of: Mapping[str, Mapping[str, RawEvents]], events: Sequence[UsageEvent]
) -> Sequence[UsageEvent]:
    """The events, with an event of each metric that a raw event counts in in place of the raw event.

    metrics_of: by event name and metric id. The cost of a raw event is an event without a metric, behind those of its
    metrics. The same list when no event is raw.
    """
    if all(map(_METRIC_ID, events)):
        return events
    found: list[UsageEvent] = []
    for event in events:
        if event.metric_id:
            found.append(event)
            continue
        for metric_id, raw_events in metrics_of.get(event.event_name or "", {}).items():
            amount = raw_events.amount_of(event)
            if amount is not None:
                found.append(event._replace(metric_id=metric_id, quantity=amount, cost=None, currency=None))
        if event.cost is not None:
            found.append(event)
    return found

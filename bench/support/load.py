"""The events of the benchmarks, as messages for the server and as rows for a raw COPY."""

import random
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from evaluator.events import UsageEvent
from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    scope_pb2,
    threshold_pb2,
    usage_pb2,
)
from store.usage import events as stored_events

METRIC = "requests"
CROSSING_METRIC = "crossings"  # each unit of it reaches a threshold
ALERTS = 10  # that watch every gauge
MEAN_QUANTITY = 1_000  # of one event; a quantity is an integer from 1 to twice this
EVENTS_TO_CROSS = 10_000  # one event of so many reaches a threshold
STEP = EVENTS_TO_CROSS * MEAN_QUANTITY  # of the recurring threshold
OUT_OF_REACH = 10**15  # the lowest threshold of the other alerts


@dataclass(frozen=True)
class Kind:
    """A kind of traffic: how many gauges the events of a round move."""

    name: str
    gauges: int
    events: int


DENSE = Kind("dense", gauges=500, events=120_000)
SPARSE = Kind("sparse", gauges=10_000, events=80_000)


@dataclass(frozen=True)
class Load:
    """A reproducible round of usage: `make` returns the same events each time.

    name: part of each event id, so that rounds have different ids. gauges: the number of customers, which have one
    gauge each. time: of the first event; each further event is a microsecond later. random_ids: event ids are UUIDs,
    drawn from the name of the round.
    """

    name: str
    gauges: int
    events: int
    time: datetime
    random_ids: bool = False

    def make(self) -> list[UsageEvent]:
        """The events, in the order of sending, each of a random customer."""
        draw = random.Random(self.name)
        customers = [customer(number) for number in range(self.gauges)]
        quantities = [Decimal(number) for number in range(2 * MEAN_QUANTITY)]
        return [
            _event(
                _uuid(draw) if self.random_ids else f"{self.name}-{number:07d}",
                customers[int(draw.random() * self.gauges)],
                quantities[1 + int(draw.random() * (2 * MEAN_QUANTITY - 1))],
                self.time + timedelta(microseconds=number),
            )
            for number in range(self.events)
        ]


def _uuid(draw: random.Random) -> str:
    return str(uuid.UUID(int=draw.getrandbits(128), version=4))


def first_events(gauges: int, time: datetime) -> list[UsageEvent]:
    """One event of each customer, which brings its gauge to a random value between two thresholds."""
    draw = random.Random("first")
    return [
        _event(f"first-{number:07d}", customer(number), Decimal(int(draw.random() * STEP) + 1), time)
        for number in range(gauges)
    ]


def customer(number: int) -> str:
    """The id of a customer."""
    return f"customer-{number:06d}"


def now() -> datetime:
    """The time of the machine's clock."""
    return datetime.now(UTC)


def _event(event_id: str, customer_id: str, quantity: Decimal, time: datetime) -> UsageEvent:
    return UsageEvent(event_id, customer_id, time, METRIC, quantity, None, None, None, {})


def messages(events: Sequence[UsageEvent], batch_events: int) -> list[bytes]:
    """The events as encoded requests of EvaluateUsage."""
    return [
        alert_service_pb2.EvaluateUsageRequest(
            batch=usage_pb2.UsageBatch(batch_id=str(number), events=[message(event) for event in batch])
        ).SerializeToString()
        for number, batch in enumerate(_chunks(events, batch_events))
    ]


def message(event: UsageEvent) -> usage_pb2.UsageEvent:
    """The event as a message of the contract."""
    encoded = usage_pb2.UsageEvent(
        event_id=event.event_id,
        customer_id=event.customer_id,
        metric_id=event.metric_id,
        quantity=str(event.quantity),
    )
    encoded.event_time.FromDatetime(event.event_time)
    return encoded


def rows(events: Sequence[UsageEvent], organization_id: int, writers: int, batch_events: int) -> list[list[bytes]]:
    """The batches of each writer for COPY, divided and sorted as the server does it."""
    divided: list[list[UsageEvent]] = [[] for _ in range(writers)]
    for event in events:
        divided[zlib.crc32(event.customer_id.encode()) % writers].append(event)
    time = events[0].event_time
    return [
        [stored_events.copy_text(organization_id, time, batch) for batch in _chunks(part, batch_events)]
        for part in divided
    ]


def _chunks(events: Sequence[UsageEvent], size: int) -> Iterator[Sequence[UsageEvent]]:
    for start in range(0, len(events), size):
        yield events[start : start + size]


def alerts() -> list[alert_pb2.Alert]:
    """Alerts of all customers: one with a threshold at every STEP, the others with three thresholds out of reach."""
    definitions = [_alert("every step", [threshold_pb2.Threshold(recurring_step=str(STEP))])]
    for number in range(1, ALERTS):
        thresholds = [threshold_pb2.Threshold(value=str(factor * number * OUT_OF_REACH)) for factor in (1, 2, 3)]
        definitions.append(_alert(f"out of reach {number}", thresholds))
    return definitions


def crossing_alert() -> alert_pb2.Alert:
    """An alert of all customers with a threshold at each unit of CROSSING_METRIC."""
    return _alert("every unit", [threshold_pb2.Threshold(recurring_step="1")], CROSSING_METRIC)


def _alert(name: str, thresholds: Sequence[threshold_pb2.Threshold], metric_id: str = METRIC) -> alert_pb2.Alert:
    return alert_pb2.Alert(
        display_name=name,
        scope=scope_pb2.AlertScope(all_customers=scope_pb2.AllCustomersScope()),
        usage_threshold_reached=condition_pb2.UsageThresholdReachedCondition(metric_id=metric_id),
        thresholds=thresholds,
    )

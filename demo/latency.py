"""The latency measurement: usage at a steady rate, timed from its sending to its acknowledgement and its webhook."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC
from fractions import Fraction

from demo.comparison import Comparison
from demo.definitions import USAGE_THRESHOLD_REACHED, AlertDefinition, Customer, Event
from demo.receiver import Received
from demo.streams import UsageStreams
from demo.traffic import Sent
from generated.tidemark.v1.usage_pb2 import UsageOutcome
from runtime.clock import Clock
from tests.reference.gauges import Metric
from tests.reference.periods import Cycle
from tests.reference.thresholds import Threshold
from tidemark_client.usage.batches import Batch

RATE = 100  # events a second
CUSTOMERS = 10
STEP = 4  # units from one threshold to the next: a quarter of the events reach one

METRIC = Metric("probe_units")
ALERT = AlertDefinition(
    "Latency probe, every 4 units",
    USAGE_THRESHOLD_REACHED,
    METRIC.metric_id,
    (Threshold(step=Fraction(STEP)),),
    plan="probe",
)


def customers(clock: Clock) -> tuple[Customer, ...]:
    """The customers of the measurement; none of their periods ends during it."""
    cycle = Cycle(clock.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0), "week", 4)
    return tuple(Customer(f"probe-{number}", plan="probe", cycle=cycle) for number in range(CUSTOMERS))


@dataclass
class Probe:
    """What was timed, in seconds. acknowledgements: of all events; webhooks: of events that reached a threshold."""

    acknowledgements: list[float] = field(default_factory=list)
    webhooks: list[float] = field(default_factory=list)
    _sent: dict[str, float] = field(default_factory=dict)

    async def run(self, streams: UsageStreams, comparison: Comparison, clock: Clock, seconds: float) -> None:
        """Sends RATE events a second, each in a message of its own, and waits for the answers."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number in range(round(RATE * seconds)):
            await asyncio.sleep(start + number / RATE - loop.time())
            event = Event(
                event_id=f"probe-{number:06}",
                customer=f"probe-{number % CUSTOMERS}",
                metric=METRIC.metric_id,
                quantity="1",
                time=clock.now(),
            )
            comparison.sending(Sent(event))
            # Not the loop's clock, which uvloop reads once a turn and in whole milliseconds.
            self._sent[event.event_id] = time.perf_counter()
            streams.send([event])
        await streams.settle()

    def acknowledged(self, batch: Batch, outcome: UsageOutcome) -> None:
        """An answer arrived."""
        now = time.perf_counter()
        for event in batch.events:
            if event.event_id in self._sent:
                self.acknowledgements.append(now - self._sent[event.event_id])

    def received(self, received: Received) -> None:
        """A webhook arrived."""
        for transition in received.transitions:
            if transition.event_id in self._sent:
                self.webhooks.append(received.arrival - self._sent[transition.event_id])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` (0 to 1) of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]

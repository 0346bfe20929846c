"""How long a webhook takes: usage at a steady rate, with crossings among it, timed from send to arrival."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC
from decimal import Decimal

from cli.client.batches import Batch
from demo.lanes import Lanes
from demo.ledger import Ledger
from demo.receiver import Received
from demo.traffic import Sent
from demo.world import USAGE_THRESHOLD_REACHED, AlertPlan, Customer, Cycle, Event, Line, Metric
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageResponse
from runtime.clock import Clock

RATE = 100  # events a second
CUSTOMERS = 10
EVERY = 4  # units from one line to the next: a quarter of the events cross one

METRIC = Metric("probe_units")
ALERT = AlertPlan(
    "Latency probe, every 4 units",
    USAGE_THRESHOLD_REACHED,
    METRIC.metric_id,
    (Line(step=Decimal(EVERY)),),
    plan="probe",
)


def customers(clock: Clock) -> tuple[Customer, ...]:
    """Those who use something during the measurement; no period of theirs ends meanwhile."""
    cycle = Cycle(clock.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0), "week", 4)
    return tuple(Customer(f"probe-{number}", plan="probe", cycle=cycle) for number in range(CUSTOMERS))


@dataclass
class Probe:
    """What was timed, in seconds. acknowledgements: of every event; webhooks: of every event that crossed a line."""

    acknowledgements: list[float] = field(default_factory=list)
    webhooks: list[float] = field(default_factory=list)
    _sent: dict[str, float] = field(default_factory=dict)

    async def run(self, lanes: Lanes, ledger: Ledger, clock: Clock, seconds: float) -> None:
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
            ledger.sending(Sent(event))
            # Not the loop's clock, which uvloop reads once a turn and in whole milliseconds.
            self._sent[event.event_id] = time.perf_counter()
            lanes.send([event])
        await lanes.settle()

    def acknowledged(self, batch: Batch, response: EvaluateUsageResponse) -> None:
        """An answer arrived."""
        now = time.perf_counter()
        for event in batch.events:
            if event.event_id in self._sent:
                self.acknowledgements.append(now - self._sent[event.event_id])

    def received(self, received: Received) -> None:
        """A webhook arrived."""
        for crossing in received.crossings:
            if crossing.event_id in self._sent:
                self.webhooks.append(received.arrival - self._sent[crossing.event_id])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` (0 to 1) of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]

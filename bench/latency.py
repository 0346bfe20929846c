"""latency.ack and latency.webhook: the latency of an event at a steady rate, below the limit of the server."""

import asyncio
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import grpc

from bench.support import load
from bench.support.client import Client, Job
from bench.support.receiver import EventArrivals
from bench.support.sending import TIMEOUT, Call, check, close_channels, create_alerts, evaluate_usage, open_channels
from bench.support.stack import PostgreSQL
from evaluator.events import UsageEvent
from generated.tidemark.v1 import webhook_service_pb2
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub

RATES = (100, 1_000)  # events a second
CROSSINGS = 25  # events a second that reach a threshold; each results in one webhook
SECONDS = 12.0  # that are measured
WARM_UP = 2.0  # seconds before these
STREAMS = 4
CUSTOMERS = 500
LAST_WAIT = 30.0  # seconds after the last event for the last webhook to arrive


@dataclass(frozen=True)
class Latencies:
    """Seconds from the time at which an event was due, to its acknowledgement and to the arrival of its webhook."""

    rate: int
    ack: list[float]
    webhook: list[float]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {
            "events_per_second": self.rate,
            "crossings_per_second": CROSSINGS,
            "streams": STREAMS,
            "seconds": SECONDS,
            "ack": _summary(self.ack),
            "webhook": _summary(self.webhook),
        }


def _summary(seconds: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(seconds)

    def at(share: float) -> float:
        """The smallest value that at least that share of all values does not exceed, in milliseconds."""
        return round(1_000 * ordered[math.ceil(share * len(ordered)) - 1], 2)

    return {"samples": len(ordered), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)}


@dataclass
class Pace(Job[Latencies]):
    """Sends single events at random times, on average `rate` a second, without waiting for the answers."""

    server: str
    rate: int
    _due: dict[str, float] = field(default_factory=dict)  # seconds after the start, by event id, in this order
    _messages: list[bytes] = field(default_factory=list)
    _channels: list[grpc.aio.Channel] = field(default_factory=list)
    _receiver: EventArrivals | None = None
    _endpoint_id: str = ""

    async def prepare(self) -> None:
        """Encodes the messages, chooses their times, connects, and creates an endpoint for the webhooks."""
        draw = random.Random(self.rate)
        times = itertools.accumulate(draw.expovariate(self.rate) for _ in itertools.count())
        due = list(itertools.takewhile(lambda time: time < WARM_UP + SECONDS, times))
        start = load.now()
        events = [self._event(number, start + timedelta(seconds=time)) for number, time in enumerate(due)]
        self._due = {event.event_id: time for event, time in zip(events, due, strict=True)}
        self._messages = load.messages(events, 1)
        self._channels = await open_channels(self.server, STREAMS)
        self._receiver = EventArrivals(
            [event.event_id for event in events if event.metric_id == load.CROSSING_METRIC]
        )
        endpoint = await WebhookServiceStub(self._channels[0]).CreateEndpoint(
            webhook_service_pb2.CreateEndpointRequest(endpoint=Endpoint(url=await self._receiver.start())),
            timeout=TIMEOUT,
        )
        self._endpoint_id = endpoint.endpoint.endpoint_id

    def _event(self, number: int, time: datetime) -> UsageEvent:
        every = self.rate // CROSSINGS
        reaches = number % every == 0
        # Customers rotate, so that no customer reaches two thresholds in one commit.
        customer = load.customer((number // every if reaches else number) % CUSTOMERS)
        metric = load.CROSSING_METRIC if reaches else load.METRIC
        return UsageEvent(f"pace-{self.rate}-{number:07d}", customer, time, metric, Decimal(1), None, None, None, {})

    async def run(self) -> Latencies:
        """Sends the events; returns when every webhook has arrived. Raises NotDelivered if one does not arrive."""
        assert self._receiver is not None
        start = asyncio.get_running_loop().time()
        calls = [evaluate_usage(over) for over in self._channels]
        answered = await asyncio.gather(*(self._stream(call, number, start) for number, call in enumerate(calls)))
        await self._receiver.complete(LAST_WAIT)
        await WebhookServiceStub(self._channels[0]).DeleteEndpoint(
            webhook_service_pb2.DeleteEndpointRequest(endpoint_id=self._endpoint_id), timeout=TIMEOUT
        )
        await close_channels(self._channels)
        await self._receiver.stop()
        acknowledged = {event_id: time for times in answered for event_id, time in times.items()}
        return Latencies(self.rate, self._waited(acknowledged, start), self._waited(self._receiver.arrived, start))

    async def _stream(self, call: Call, first: int, start: float) -> dict[str, float]:
        """Sends every STREAMS-th message when it is due; returns the time of each answer."""
        clock = asyncio.get_running_loop().time
        due = list(self._due.items())[first::STREAMS]

        async def write() -> None:
            for (_, time), message in zip(due, self._messages[first::STREAMS], strict=True):
                early = start + time - clock()
                if early > 0:
                    await asyncio.sleep(early)
                await call.write(message)
            await call.done_writing()

        writing = asyncio.create_task(write())
        answered: dict[str, float] = {}
        event_ids = iter(due)
        async for response in call:
            if not response.heartbeat:
                answered[next(event_ids)[0]] = clock()
                check(response)
        await writing
        return answered

    def _waited(self, times: Mapping[str, float], start: float) -> list[float]:
        """The latencies of the measured events."""
        return [
            time - start - self._due[event_id] for event_id, time in times.items() if self._due[event_id] >= WARM_UP
        ]


async def measure(postgresql: PostgreSQL, rate: int) -> Latencies:
    """Measures one rate, with its own database, server and notifier."""
    async with postgresql.stack(f"bench_latency_{rate}", notifier=True) as stack:
        await create_alerts(stack.server, [*load.alerts(), load.crossing_alert()])
        with Client() as client:
            return await (await client.prepare(Pace(stack.server, rate)))()

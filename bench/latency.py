"""latency: how long an event waits for its acknowledgement and its webhook at a steady rate, and one event alone."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from time import perf_counter
from typing import Any

import grpc
from rich.table import Table

from bench.support import load
from bench.support.client import Client, Job
from bench.support.figures import milliseconds
from bench.support.load import Load
from bench.support.receiver import EventArrivals
from bench.support.sending import TIMEOUT, Call, check, close_channels, create_alerts, evaluate_usage, open_channels
from bench.support.stack import PostgreSQL, Stack
from evaluator.events import UsageEvent
from generated.tidemark.v1 import webhook_service_pb2
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub

RATES = (100, 1_000, 10_000)  # events a second
# Events of a message, by rate. At 10,000 a second a caller collects ten, which takes a millisecond: server and client
# on two cores do not handle as many messages of one event.
BATCH_EVENTS = {100: 1, 1_000: 1, 10_000: 10}
CROSSINGS = 25  # events a second that reach a threshold; each results in one webhook
SECONDS = 42.0  # that are measured: more than 1,000 webhooks, so that one in a thousand exists
SHORT_SECONDS = 12.0  # of a run of several parts
WARM_UP = 2.0  # seconds before these
STREAMS = 4
CUSTOMERS = 500
LAST_WAIT = 30.0  # seconds after the last event for the last webhook to arrive
ALONE_EVENTS = 2_000  # one after the other, on an idle server
ALONE_WARM_UP = 200  # events before these


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
            "events_of_a_message": BATCH_EVENTS[self.rate],
            "crossings_per_second": CROSSINGS,
            "streams": STREAMS,
            "ack": summary(self.ack),
            "webhook": summary(self.webhook),
        }


@dataclass(frozen=True)
class Report:
    """The results by rate, and the seconds that events took of which each was sent after the answer to the last."""

    latencies: Sequence[Latencies]
    alone: Sequence[float]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {"rates": [one.figures() for one in self.latencies], "alone": summary(self.alone)}

    def table(self) -> Table:
        """The figures as a table for people."""
        found = self.figures()
        rows = [
            (f"latency.{kind}", f"{one['events_per_second']:,}", one[kind])
            for kind in ("ack", "webhook")
            for one in found["rates"]
        ]
        table = Table(title="latency, ms")
        table.add_column("benchmark")
        for name in ("events/s", "p50", "p99", "p99.9", "max", "samples"):
            table.add_column(name, justify="right")
        for name, rate, one in [*rows, ("one event alone", "", found["alone"])]:
            cells = [one[share] for share in ("p50_ms", "p99_ms", "p99_9_ms", "max_ms")]
            table.add_row(
                name, rate, *("" if cell is None else f"{cell:.1f}" for cell in cells), f"{one['samples']:,}"
            )
        return table


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """Percentiles in milliseconds. That of one sample in a thousand is unset when there are fewer."""
    return {
        "samples": len(seconds),
        "p50_ms": milliseconds(seconds, 0.5),
        "p99_ms": milliseconds(seconds, 0.99),
        "p99_9_ms": milliseconds(seconds, 0.999) if len(seconds) >= 1_000 else None,
        "max_ms": milliseconds(seconds, 1.0),
    }


@dataclass
class Pace(Job[Latencies]):
    """Sends events that are due at random times, on average `rate` a second, without waiting for the answers.

    A message is sent when the last of its events is due. name: part of each event id.
    """

    server: str
    rate: int
    seconds: float
    name: str = "pace"
    _due: dict[str, float] = field(default_factory=dict)  # seconds after the start, by event id, in this order
    _messages: list[bytes] = field(default_factory=list)
    _channels: list[grpc.aio.Channel] = field(default_factory=list)
    _receiver: EventArrivals | None = None
    _endpoint_id: str = ""

    async def prepare(self) -> None:
        """Encodes the messages, chooses their times, connects, and creates an endpoint for the webhooks."""
        draw = random.Random(self.rate)
        times = itertools.accumulate(draw.expovariate(self.rate) for _ in itertools.count())
        due = list(itertools.takewhile(lambda time: time < WARM_UP + self.seconds, times))
        start = load.now()
        events = [self._event(number, start + timedelta(seconds=time)) for number, time in enumerate(due)]
        self._due = {event.event_id: time for event, time in zip(events, due, strict=True)}
        self._messages = load.messages(events, BATCH_EVENTS[self.rate])
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
        return UsageEvent(
            f"{self.name}-{self.rate}-{number:07d}", customer, time, metric, Decimal(1), None, None, None, {}
        )

    async def run(self) -> Latencies:
        """Sends the events; returns when every webhook has arrived. Raises NotDelivered if one does not arrive."""
        assert self._receiver is not None
        start = perf_counter()
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
        """Sends every STREAMS-th message when it is due; returns the time at which each event was answered."""
        size = BATCH_EVENTS[self.rate]
        event_ids = list(self._due)
        batches = [event_ids[begin : begin + size] for begin in range(0, len(event_ids), size)][first::STREAMS]

        async def write() -> None:
            for batch, message in zip(batches, self._messages[first::STREAMS], strict=True):
                early = start + self._due[batch[-1]] - perf_counter()
                if early > 0:
                    await asyncio.sleep(early)
                await call.write(message)
            await call.done_writing()

        writing = asyncio.create_task(write())
        answered: dict[str, float] = {}
        waiting = iter(batches)
        async for response in call:
            if not response.heartbeat:
                answered |= dict.fromkeys(next(waiting), perf_counter())
                check(response)
        await writing
        return answered

    def _waited(self, times: Mapping[str, float], start: float) -> list[float]:
        """The latencies of the measured events."""
        return [
            time - start - self._due[event_id] for event_id, time in times.items() if self._due[event_id] >= WARM_UP
        ]


@dataclass
class Alone(Job[list[float]]):
    """Sends single events on one stream, each after the answer to the one before; the seconds that each took.

    events, warm_up: how many are measured, and how many are sent before. name: part of each event id.
    """

    server: str
    events: int = ALONE_EVENTS
    warm_up: int = ALONE_WARM_UP
    name: str = "alone"
    _messages: list[bytes] = field(default_factory=list)
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def prepare(self) -> None:
        """Encodes the messages and connects."""
        events = Load(self.name, CUSTOMERS, self.warm_up + self.events, load.now()).make()
        self._messages = load.messages(events, 1)
        self._channels = await open_channels(self.server, 1)

    async def run(self) -> list[float]:
        """Sends them."""
        call = evaluate_usage(self._channels[0])
        answers = (response async for response in call if not response.heartbeat)
        took = []
        for message in self._messages:
            started = perf_counter()
            await call.write(message)
            check(await anext(answers))
            took.append(perf_counter() - started)
        await call.done_writing()
        await close_channels(self._channels)
        return took[self.warm_up :]


async def measure(postgresql: PostgreSQL, report: Callable[[str], None], seconds: float = SECONDS) -> Report:
    """Measures each rate for so many seconds, and one event alone, each with a database and processes of its own."""
    latencies = []
    for rate in RATES:
        report(f"{rate:,} events/s for {seconds:g} s")
        async with _stack(postgresql, f"bench_latency_{rate}") as stack:
            with Client() as client:
                latencies.append(await (await client.prepare(Pace(stack.server, rate, seconds)))())
    report("one event alone")
    async with _stack(postgresql, "bench_latency_alone") as stack:
        with Client() as client:
            alone = await (await client.prepare(Alone(stack.server)))()
    return Report(latencies, alone)


@asynccontextmanager
async def _stack(postgresql: PostgreSQL, name: str) -> AsyncIterator[Stack]:
    async with postgresql.stack(name, notifier=True) as stack:
        await create_alerts(stack.server, [*load.alerts(), load.crossing_alert()])
        yield stack

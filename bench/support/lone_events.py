"""Single events: sent when they are due, whatever the answers do, or each after the answer to the one before."""

import asyncio
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from time import perf_counter

import grpc

from bench.support import load
from bench.support.client import Job
from bench.support.load import Load
from bench.support.receiver import EventArrivals
from bench.support.sending import TIMEOUT, Call, check, close_channels, evaluate_usage, open_channels
from evaluator.events import UsageEvent
from generated.tidemark.v1 import webhook_service_pb2
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub

# Events of a message, by rate. At 10,000 a second a caller collects ten, which takes a millisecond: server and client
# on two cores do not handle as many messages of one event.
BATCH_EVENTS = {100: 1, 1_000: 1, 10_000: 10}
CROSSINGS = 25  # events a second that reach a threshold; each results in one webhook
WARM_UP = 2.0  # seconds before these
STREAMS = 4
CUSTOMERS = 500
LAST_WAIT = 30.0  # seconds after the last event for the last webhook to arrive
ALONE_EVENTS = 2_000  # one after the other, on an idle server
ALONE_WARM_UP = 200  # events before these


@dataclass(frozen=True)
class Waited:
    """Seconds from the time at which an event was due, to its acknowledgement and to the arrival of its webhook."""

    ack: list[float]
    webhook: list[float]


@dataclass
class Pace(Job[Waited]):
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

    async def run(self) -> Waited:
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
        return Waited(self._waited(acknowledged, start), self._waited(self._receiver.arrived, start))

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

"""Usage that streams until it is stopped, and the waits for its acknowledgements."""

import asyncio
import itertools
import random
import time
from collections import deque
from dataclasses import dataclass, field

import grpc

from bench.rules.requests import GROUP_KEYS, group_value
from bench.support import load
from bench.support.client import Job
from bench.support.sending import Call, check, close_channels, evaluate_usage, open_channels
from generated.tidemark.v1 import alert_service_pb2, usage_pb2

BATCH_EVENTS = 500
STREAMS = 2
IN_FLIGHT = 2  # batches of one stream that are sent and not yet answered
MESSAGES = 40  # batches that are encoded beforehand; each is sent again with other ids of events
REGISTERING_STREAMS = 4
REPEAT_PAUSE = 0.1  # seconds before a stream that failed begins again
_REPEATED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_PASS = "########"  # part of each encoded event id; replaced by as many digits before the batch is sent


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """When it came, after how many seconds, and for how many events. time: of the clock of `time.perf_counter`.

    On Linux all processes share that clock.
    """

    time: float
    waited: float
    events: int


@dataclass
class Streamed:
    """The result of a job. interruptions: when a stream failed; its events are sent again on the next one."""

    acknowledgements: list[Acknowledgement] = field(default_factory=list)
    interruptions: list[float] = field(default_factory=list)


@dataclass
class Usage(Job[Streamed]):
    """Streams usage of random customers as fast as the server accepts it, until the job is stopped.

    name: part of the event ids; no two jobs on one database may have the same. customers: how many. grouped: whether
    events have the properties GROUP_KEYS.
    """

    server: str
    name: str
    customers: int
    grouped: bool = False
    batch_events: int = BATCH_EVENTS
    streams: int = STREAMS
    in_flight: int = IN_FLIGHT
    _messages: list[bytes] = field(default_factory=list)
    _channels: list[grpc.aio.Channel] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _streamed: Streamed = field(default_factory=Streamed)

    async def prepare(self) -> None:
        """Encodes the messages and connects."""
        draw = random.Random(self.name)
        now = load.now()
        for message in range(MESSAGES):
            events = []
            for number in range(self.batch_events):
                event = _event(
                    f"{self.name}-{_PASS}-{message}-{number}", draw.randrange(self.customers), self.grouped
                )
                event.quantity = str(draw.randint(1, 2 * load.MEAN_QUANTITY))
                event.event_time.FromDatetime(now)
                events.append(event)
            self._messages.append(_encoded(events))
        self._channels = await open_channels(self.server, self.streams)

    async def run(self) -> Streamed:
        """Sends until the job is stopped, then waits for the last acknowledgements."""
        await asyncio.gather(*(self._stream(over) for over in self._channels))
        await close_channels(self._channels)
        return self._streamed

    async def _stream(self, over: grpc.aio.Channel) -> None:
        unanswered = deque[tuple[float, bytes]]()
        while True:
            try:
                await self._call(evaluate_usage(over), unanswered)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() not in _REPEATED:
                    raise
                self._streamed.interruptions.append(time.perf_counter())
                await asyncio.sleep(REPEAT_PAUSE)

    async def _call(self, call: Call, unanswered: deque[tuple[float, bytes]]) -> None:
        """One stream, which first repeats what the stream before it left unanswered; with the times of sending."""
        room = asyncio.Semaphore(max(0, self.in_flight - len(unanswered)))

        async def write() -> None:
            for _, message in list(unanswered):
                await call.write(message)
            while not self.stopping.is_set():
                await room.acquire()
                number = next(self._numbers)
                message = self._messages[number % MESSAGES].replace(_PASS.encode(), b"%08d" % (number // MESSAGES))
                unanswered.append((time.perf_counter(), message))
                await call.write(message)
            await call.done_writing()

        writing = asyncio.create_task(write())
        try:
            async for response in call:
                if response.heartbeat:
                    continue
                now = time.perf_counter()
                if not self._streamed.interruptions:  # else an event may have been stored without an acknowledgement
                    check(response)
                sent, _ = unanswered.popleft()
                events = response.outcome.accepted + response.outcome.duplicates
                self._streamed.acknowledgements.append(Acknowledgement(now, now - sent, events))
                room.release()
            await writing
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)


def one_by_one(server: str, name: str, customers: int, *, grouped: bool = False) -> Usage:
    """Usage of one event at a time: each is sent after the acknowledgement of the one before."""
    return Usage(server, name, customers, grouped, batch_events=1, streams=1, in_flight=1)


@dataclass
class Register(Job[float]):
    """Sends events of each customer once, so that the customers and their gauges exist, and the server knows them.

    name: part of the event ids.
    """

    server: str
    name: str
    customers: int
    events_each: int = 1
    grouped: bool = False
    _messages: list[bytes] = field(default_factory=list)
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def prepare(self) -> None:
        """Encodes the messages and connects."""
        now = load.now()
        for round_number in range(self.events_each):
            for start in range(0, self.customers, BATCH_EVENTS):
                events = []
                for number in range(start, min(start + BATCH_EVENTS, self.customers)):
                    event = _event(f"{self.name}-{round_number}-{number}", number, self.grouped)
                    event.quantity = str(load.MEAN_QUANTITY)
                    event.event_time.FromDatetime(now)
                    events.append(event)
                self._messages.append(_encoded(events))
        self._channels = await open_channels(self.server, REGISTERING_STREAMS)

    async def run(self) -> float:
        """Sends all messages; returns the seconds until the last acknowledgement."""
        messages = iter(self._messages)
        started = time.perf_counter()

        async def stream(call: Call) -> None:
            for message in messages:
                await call.write(message)
                while isinstance(answer := await call.read(), alert_service_pb2.EvaluateUsageResponse):
                    if not answer.heartbeat:
                        check(answer)
                        break
            await call.done_writing()

        await asyncio.gather(*(stream(evaluate_usage(over)) for over in self._channels))
        seconds = time.perf_counter() - started
        await close_channels(self._channels)
        return seconds


@dataclass
class FirstEvent(Job[float]):
    """Connects to a server that has just started, and sends one event; returns when it was acknowledged."""

    server: str
    name: str
    customer: int

    async def prepare(self) -> None:
        """Nothing: the server may not run yet."""

    async def run(self) -> float:
        """Sends the event. The result is a time of `time.perf_counter`, which all processes share on Linux."""
        event = _event(self.name, self.customer, False)
        event.quantity = "1"
        event.event_time.FromDatetime(load.now())
        channels = await open_channels(self.server, 1)
        call = evaluate_usage(channels[0])
        await call.write(_encoded([event]))
        answer = await call.read()
        assert isinstance(answer, alert_service_pb2.EvaluateUsageResponse)
        check(answer)
        acknowledged = time.perf_counter()
        await close_channels(channels)
        return acknowledged


def _event(event_id: str, customer: int, grouped: bool) -> usage_pb2.UsageEvent:
    event = usage_pb2.UsageEvent(event_id=event_id, customer_id=load.customer(customer), metric_id=load.METRIC)
    if grouped:
        for key in GROUP_KEYS:
            event.properties[key] = group_value(customer)
    return event


def _encoded(events: list[usage_pb2.UsageEvent]) -> bytes:
    return alert_service_pb2.EvaluateUsageRequest(
        batch=usage_pb2.UsageBatch(batch_id="usage", events=events)
    ).SerializeToString()

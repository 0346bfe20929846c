"""Watchers: what one notification costs while very many streams of one organization wait for it."""

import asyncio
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import grpc

from bench.support import load, memory
from bench.support.client import Client, Job
from bench.support.flood_calls import Metadata, metadata_of
from bench.support.sending import open_channels
from bench.support.stack import PostgreSQL
from bench.views.measuring import BEAT, Beats
from cli.serving.garbage_collection import reduce_garbage_collection
from generated.tidemark.v1 import alert_service_pb2, usage_pb2
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from runtime.clock import SystemClock
from runtime.configuration import Configuration
from store.identity import keys
from store.migrate import migrate
from store.postgres.database import Database
from tests.support.server.running import running

NUMBERS = (10, 1_000, 10_000)
STREAMS_OF_A_CHANNEL = 100
OPENED_AT_ONCE = 50
NOTIFICATIONS = 10  # one after the other, each after all watchers have the one before
HEARTBEAT = 200  # bytes, at most; an answer with a notification has more
TIMEOUT = 60.0  # seconds until all have one

_Watch = grpc.aio.UnaryStreamCall[alert_service_pb2.WatchNotificationsRequest, bytes]


@dataclass(frozen=True)
class Watched:
    """What so many watchers cost.

    kibibytes: of the server's memory for one watcher. idle_cpu: seconds of CPU in a second without notifications.
    The others are medians of one notification: milliseconds of the server's CPU; of the longest pass of its event
    loop, in CPU time; and until the event was acknowledged, half of the watchers had it, all had it.
    """

    watchers: int
    kibibytes: float
    idle_cpu: float
    cpu: float
    block: float
    acknowledged: float
    half: float
    all: float


@dataclass
class _Seen:
    """Seconds from the sending of an event until its acknowledgement, and until each of the watchers had it."""

    acknowledged: float
    watchers: list[float]


@dataclass
class _Watching(Job[_Seen]):
    """Streams of one organization. Each run sends an event that reaches a threshold."""

    server: str
    key: str
    number: int
    _channels: list[grpc.aio.Channel] = field(default_factory=list)
    _calls: list[_Watch] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _times: list[float] = field(default_factory=list)
    _all: asyncio.Event = field(default_factory=asyncio.Event)
    _events: int = 0

    async def prepare(self) -> None:
        """Opens the streams."""
        self._channels = await open_channels(self.server, 1 + self.number // STREAMS_OF_A_CHANNEL)
        stub = AlertServiceStub(self._channels[0])
        request = alert_service_pb2.CreateAlertRequest(alert=load.crossing_alert())
        await stub.CreateAlert(request, metadata=self._metadata)
        for start in range(0, self.number, OPENED_AT_ONCE):
            await asyncio.gather(*map(self._open, range(start, min(start + OPENED_AT_ONCE, self.number))))
        self._tasks = [asyncio.create_task(self._read(call)) for call in self._calls]

    async def run(self) -> _Seen:
        """Sends one event, and waits until every watcher has the notification."""
        self._times.clear()
        self._all.clear()
        self._events += 1
        event = usage_pb2.UsageEvent(
            event_id=f"e{self._events}", customer_id="watched", metric_id=load.CROSSING_METRIC, quantity="1"
        )
        event.event_time.FromDatetime(load.now())
        batch = alert_service_pb2.EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=[event]))
        started = time.perf_counter()
        await AlertServiceStub(self._channels[0]).EvaluateUsageBatch(batch, metadata=self._metadata)
        acknowledged = time.perf_counter() - started
        async with asyncio.timeout(TIMEOUT):
            await self._all.wait()
        return _Seen(acknowledged, [one - started for one in self._times])

    @property
    def _metadata(self) -> Metadata:
        return metadata_of(self.key)

    async def _open(self, number: int) -> None:
        over = self._channels[number // STREAMS_OF_A_CHANNEL]
        method: grpc.aio.UnaryStreamMultiCallable[alert_service_pb2.WatchNotificationsRequest, bytes]
        # Answers stay encoded: only the server's part is of interest.
        method = over.unary_stream(
            "/tidemark.v1.AlertService/WatchNotifications",
            alert_service_pb2.WatchNotificationsRequest.SerializeToString,
        )
        call = method(alert_service_pb2.WatchNotificationsRequest(), metadata=self._metadata)
        await call.read()  # the first answer: the stream has begun
        self._calls.append(call)

    async def _read(self, call: _Watch) -> None:
        while isinstance(answer := await call.read(), bytes):
            if len(answer) > HEARTBEAT:
                self._times.append(time.perf_counter())
                if len(self._times) == self.number:
                    self._all.set()


async def measure(
    postgresql: PostgreSQL, report: Callable[[str], None], numbers: tuple[int, ...] = NUMBERS
) -> list[Watched]:
    """Measures each number of watchers on a server and a database of its own."""
    found = []
    for number in numbers:
        found.append(await _of(postgresql.create_database(f"bench_watchers_{number}"), number))
        report(line(found[-1]))
    return found


def line(one: Watched) -> str:
    """The figures in one line."""
    return (
        f"{one.watchers:,} watchers: {one.kibibytes:.0f} KiB each; a notification takes {one.cpu:,.0f} ms of the"
        f" server's CPU, longest block {one.block:.1f} ms; acknowledged after {one.acknowledged:,.0f} ms, half of"
        f" them have it after {one.half:,.0f} ms, all after {one.all:,.0f} ms; idle {one.idle_cpu:.2f} of a core"
    )


async def _of(url: str, number: int) -> Watched:
    await asyncio.to_thread(migrate, url)
    database, clock, beats = Database(url), SystemClock(), Beats()
    configuration = replace(
        Configuration(listen_port=0, propagation_delay=0.0),
        organization_watchers=number,
        max_watchers=2 * number,
    )
    try:
        async with database.transaction() as connection:
            key = (await keys.create_key(connection, "bench", clock.now())).key
        reduce_garbage_collection()  # as the command does that starts a server
        async with running(database, clock, configuration=configuration) as server, beats.counting():
            with Client() as client:
                before = _resident()
                run = await client.prepare(_Watching(f"127.0.0.1:{server.port}", key, number))
                kibibytes = (_resident() - before) / number / 1024
                cpu = time.process_time()
                await asyncio.sleep(2)
                idle = (time.process_time() - cpu) / 2
                await run()  # the first one also registers the customer
                cpus, blocks, seen = list[float](), list[float](), list[_Seen]()
                for _ in range(NOTIFICATIONS):
                    await asyncio.sleep(10 * BEAT)
                    beats.reset()
                    cpu = time.process_time()
                    seen.append(await run())
                    cpus.append(time.process_time() - cpu)
                    blocks.append(beats.longest)
        return Watched(
            number,
            round(kibibytes, 1),
            round(idle, 3),
            *(
                round(1_000 * statistics.median(values), 1)
                for values in (
                    cpus,
                    blocks,
                    [one.acknowledged for one in seen],
                    [statistics.median(one.watchers) for one in seen],
                    [max(one.watchers) for one in seen],
                )
            ),
        )
    finally:
        await database.close()


def _resident() -> int:
    of_this = memory.of(os.getpid())
    return 0 if of_this is None else of_this.resident

"""New metrics: a metric is created beside very many alerts on it, which are evaluated on the stored raw events."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from bench.support import load
from bench.support.flood_calls import metadata_of
from bench.support.stack import PostgreSQL
from bench.views.measuring import BEAT, Beats
from cli.serving.garbage_collection import reduce_garbage_collection
from generated.tidemark.v1 import account_service_pb2, alert_service_pb2, metric_pb2, usage_pb2
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from runtime.clock import SystemClock
from store.identity import keys
from store.migrate import migrate
from store.postgres.database import Database
from tests.support.alerts.client import Client
from tests.support.server.running import Running, running

METRIC, EVENT_NAME = "calls", "call"
BATCH = 5_000  # events
PROBE_PAUSE = 0.05  # seconds between two events that are sent meanwhile
POLL_PAUSE = 0.02
TIMEOUT = 600.0  # seconds until all backfills are complete

_ALERT = f'display_name: "own" scope {{ customer {{ customer_id: "c0" }} }}\
 usage_threshold_reached {{ metric_id: "{METRIC}" }} thresholds {{ value: "7" }}'
# Copies of one alert, each for a customer of its own.
_COPY = """
INSERT INTO alert SELECT (jsonb_populate_record(a, jsonb_build_object(
    'alert_id', 'alt_' || md5(number::text), 'name', 'alert ' || number, 'natural_key', NULL, 'visit_after', NULL,
    'customer_id', 'c' || number))).*
FROM alert a, generate_series(1, %s) AS number
"""
_NOT_BEGUN = "SELECT EXISTS (SELECT FROM metric WHERE backfill_after IS NOT NULL)"
_NOT_COMPLETE = "SELECT EXISTS (SELECT FROM alert WHERE visit_after IS NOT NULL)"


@dataclass(frozen=True)
class NewMetric:
    """What one PutMetric did beside so many alerts on its metric.

    answered: milliseconds of the call. begun, complete: seconds until all backfills had begun, were complete. block:
    milliseconds of the longest pass of the event loop, in CPU time. waited: milliseconds until a single event was
    acknowledged meanwhile, at most; before: the same in the seconds before the call.
    """

    alerts: int
    answered: float
    begun: float
    complete: float
    block: float
    waited: float
    before: float


async def measure(postgresql: PostgreSQL, report: Callable[[str], None], sizes: Sequence[int]) -> list[NewMetric]:
    """Measures each number of alerts on a server and a database of its own."""
    found = []
    for size in sizes:
        found.append(await _of(postgresql.create_database(f"bench_new_metric_{size}"), size))
        report(line(found[-1]))
    return found


def line(one: NewMetric) -> str:
    """The figures in one line."""
    return (
        f"PutMetric beside {one.alerts:,} alerts on it: {one.answered:,.0f} ms; backfills begun after"
        f" {one.begun:.2f} s, complete after {one.complete:.1f} s; longest block {one.block:.1f} ms; an event waits"
        f" {one.waited:,.0f} ms at most, before {one.before:,.0f} ms"
    )


async def _of(url: str, size: int) -> NewMetric:
    await asyncio.to_thread(migrate, url)
    database, clock, beats = Database(url), SystemClock(), Beats()
    try:
        async with database.transaction() as connection:
            key = (await keys.create_key(connection, "bench", clock.now())).key
        reduce_garbage_collection()  # as the command does that starts a server
        async with (
            running(database, clock) as server,
            await psycopg.AsyncConnection.connect(url, autocommit=True) as rows,
            beats.counting(),
        ):
            await _prepare(server, key, rows, size)
            probe = _Probe(server, key)
            return await _put(server, key, rows, beats, probe, size)
    finally:
        await database.close()


async def _prepare(server: Running, key: str, rows: psycopg.AsyncConnection, size: int) -> None:
    """Alerts of single customers, and one raw event of each of these."""
    await Client(server.channel, key).create(_ALERT)
    await _until_none(rows, _NOT_COMPLETE)
    await rows.execute(_COPY, (size - 1,))
    for start in range(0, size, BATCH):
        customers = range(start, min(start + BATCH, size))
        await _send(server, key, [_raw(f"r{number}", f"c{number}") for number in customers])
    await rows.execute("VACUUM ANALYZE")


async def _put(
    server: Running, key: str, rows: psycopg.AsyncConnection, beats: Beats, probe: "_Probe", size: int
) -> NewMetric:
    before = await probe.longest_during(asyncio.sleep(2))
    metric = metric_pb2.Metric(metric_id=METRIC, aggregation=metric_pb2.AGGREGATION_COUNT, event_name=EVENT_NAME)
    times = list[float]()

    async def put() -> None:
        started = time.perf_counter()
        request = account_service_pb2.PutMetricRequest(metric=metric)
        await AccountServiceStub(server.channel).PutMetric(request, metadata=metadata_of(key), timeout=TIMEOUT)
        times.append(time.perf_counter() - started)
        for statement in (_NOT_BEGUN, _NOT_COMPLETE):
            await _until_none(rows, statement)
            times.append(time.perf_counter() - started)

    await asyncio.sleep(10 * BEAT)
    beats.reset()
    waited = await probe.longest_during(put())
    answered, begun, complete = times
    return NewMetric(
        size,
        round(1_000 * answered, 1),
        round(begun, 3),
        round(complete, 3),
        round(1_000 * beats.longest, 1),
        round(1_000 * waited, 1),
        round(1_000 * before, 1),
    )


class _Probe:
    """A customer that sends one event after another."""

    def __init__(self, server: Running, key: str) -> None:
        self._server = server
        self._key = key
        self._sent = 0

    async def longest_during(self, work: Coroutine[Any, Any, None]) -> float:
        """The longest time until an acknowledgement while the work is done, in seconds."""
        longest, task = 0.0, asyncio.ensure_future(work)
        while not task.done():
            self._sent += 1
            started = time.perf_counter()
            await _send(self._server, self._key, [_raw(f"p{self._sent}", "probe")])
            longest = max(longest, time.perf_counter() - started)
            await asyncio.wait([task], timeout=PROBE_PAUSE)
        await task
        return longest


def _raw(event_id: str, customer_id: str) -> usage_pb2.UsageEvent:
    event = usage_pb2.UsageEvent(event_id=event_id, customer_id=customer_id, event_name=EVENT_NAME)
    event.event_time.FromDatetime(load.now())
    return event


async def _send(server: Running, key: str, events: Sequence[usage_pb2.UsageEvent]) -> None:
    batch = usage_pb2.UsageBatch(events=events)
    request = alert_service_pb2.EvaluateUsageBatchRequest(batch=batch)
    stub = AlertServiceStub(server.channel)
    answer = await stub.EvaluateUsageBatch(request, metadata=metadata_of(key), timeout=TIMEOUT)
    assert answer.outcome.accepted == len(events), answer


async def _until_none(rows: psycopg.AsyncConnection, statement: LiteralString) -> None:
    async with asyncio.timeout(TIMEOUT):
        while True:
            row = await (await rows.execute(statement)).fetchone()
            assert row is not None
            if not row[0]:
                return
            await asyncio.sleep(POLL_PAUSE)

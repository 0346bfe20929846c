"""ingest.dense and ingest.sparse: events a second through the server, compared with a raw COPY of the same rows."""

import asyncio
import contextlib
import math
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg

from bench.support import cpu, load
from bench.support.access import Access
from bench.support.client import Client
from bench.support.full_speed import BATCH_EVENTS, IN_FLIGHT, STREAMS, Send
from bench.support.load import Kind, Load
from bench.support.sending import (
    NotCounted,
    create_alerts,
)
from bench.support.stack import PostgreSQL, Stack
from runtime.configuration import DEFAULT_INGEST_WRITERS
from store.postgres.database import DriverConnection
from store.usage import events as stored_events

ROUNDS = 4  # of ingest and COPY in rotation; the result is their median
WARM_UP_EVENTS = 30_000
# The organizations of the copied rows; no organization has these ids.
_COPIED = 1_000_000
_COPIED_GROUPED = 1_000_001


@dataclass(frozen=True)
class Round:
    """The same events, in events a second: through the server, and by COPY in commits of two sizes.

    copy: a COPY and a commit for each message of the client. grouped_copy: with as many events in each commit as the
    commits of the server had on average (commit_events). server_cpu, database_cpu: seconds of CPU for one event that
    the server ingests; unset if the system does not report it.
    """

    ingest: float
    copy: float
    grouped_copy: float
    commit_events: int
    transitions: int
    server_cpu: float | None
    database_cpu: float | None

    @property
    def ratio(self) -> float:
        """The rate of ingest divided by that of a raw COPY."""
        return self.ingest / self.copy

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {
            "events_per_second": round(self.ingest),
            "copy_limit_events_per_second": round(self.copy),
            "ratio": round(self.ratio, 3),
            "grouped_copy_limit_events_per_second": round(self.grouped_copy),
            "grouped_ratio": round(self.ingest / self.grouped_copy, 3),
            "events_of_a_commit": self.commit_events,
            "transitions": self.transitions,
            "server_cpu_us": _microseconds(self.server_cpu),
            "database_cpu_us": _microseconds(self.database_cpu),
        }


def _microseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1e6 * seconds, 1)


@dataclass(frozen=True)
class Report:
    """The rounds of one kind of traffic."""

    kind: Kind
    workers: int
    rounds: Sequence[Round]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results: the median over the rounds."""
        rounds = [one.figures() for one in self.rounds]
        return {
            "gauges": self.kind.gauges,
            "alerts": load.ALERTS,
            "events_of_a_round": self.kind.events,
            "workers": self.workers,
            "batch_events": BATCH_EVENTS,
            "streams": STREAMS * self.workers,
            "batches_in_flight_of_a_stream": IN_FLIGHT,
            "writers": DEFAULT_INGEST_WRITERS,
            **{
                name: None if None in values else round(statistics.median(values), 3)
                for name, values in {name: [one[name] for one in rounds] for name in rounds[0]}.items()
            },
            "rounds": rounds,
        }


async def measure(
    postgresql: PostgreSQL, kind: Kind, report: Callable[[str], None], *, workers: int = 1, native: bool = True
) -> Report:
    """Measures one kind of traffic on its own database.

    workers: processes of the server. native: whether they decode usage natively, where that is compiled.
    """
    settings = {"TIDEMARK_NATIVE": str(native).lower()}
    async with (
        postgresql.stack(f"bench_{kind.name}", workers=workers, settings=settings) as stack,
        _copier(stack) as copier,
    ):
        with Client() as client:
            await create_alerts(stack.server, load.alerts())
            await _send(client, Send(Access(stack.server), None, kind.gauges), kind.gauges)
            _checkpoint(stack)
            rounds: list[Round] = []
            for number in range(ROUNDS + 1):  # the first warms everything up and does not count
                events = WARM_UP_EVENTS if number == 0 else kind.events
                one = await _round(client, copier, stack, Load(f"round-{number}", kind.gauges, events, load.now()))
                if number:
                    rounds.append(one)
                    report(f"{one.ingest:,.0f} events/s, raw COPY {one.copy:,.0f}: {one.ratio:.2f}")
        _verify(stack, kind)
    return Report(kind, workers, rounds)


async def _round(client: Client, copier: "_Copier", stack: Stack, events: Load) -> Round:
    streams = STREAMS * max(1, len(stack.worker_pids))
    run = await client.prepare(Send(Access(stack.server), events, events.gauges, streams))
    backends = cpu.children(stack.postmaster_pid) if cpu.available() else []
    server_before, database_before = cpu.seconds(*stack.server_pids), cpu.seconds(*backends)
    sent = await run()
    server, database = cpu.seconds(*stack.server_pids) - server_before, cpu.seconds(*backends) - database_before
    if sent.accepted != events.events:
        raise NotCounted(f"{sent.accepted} events were accepted, {events.events} were sent")
    commit_events = math.ceil(events.events / _commits(stack, events))
    return Round(
        ingest=events.events / sent.seconds,
        copy=events.events / await copier.copy(events, BATCH_EVENTS, _COPIED),
        grouped_copy=events.events / await copier.copy(events, commit_events, _COPIED_GROUPED),
        commit_events=commit_events,
        transitions=sent.transitions,
        server_cpu=server / events.events if cpu.available() else None,
        database_cpu=database / events.events if cpu.available() else None,
    )


def _commits(stack: Stack, events: Load) -> int:
    """The number of transactions in which the server stored a round; each has its own ingest_time."""
    with psycopg.connect(stack.url) as connection:
        row = connection.execute(
            "SELECT count(DISTINCT ingest_time) FROM event WHERE organization_id < %s AND event_id LIKE %s",
            (_COPIED, f"{events.name}-%"),
        ).fetchone()
    assert row is not None
    return int(row[0])


async def _send(client: Client, job: Send, events: int) -> None:
    sent = await (await client.prepare(job))()
    if sent.accepted != events:
        raise NotCounted(f"{sent.accepted} events were accepted, {events} were sent")


class _Copier:
    """Copies rows into the same table as the server, for other organizations, and does nothing else."""

    def __init__(self, connections: Sequence[DriverConnection]) -> None:
        self._connections = connections

    async def copy(self, events: Load, copy_events: int, organization_id: int) -> float:
        """Copies and commits so many events at once, with concurrent writers; returns the duration in seconds."""
        rows = await asyncio.to_thread(load.rows, events.make(), organization_id, len(self._connections), copy_events)
        started = time.perf_counter()
        await asyncio.gather(*map(self._write, self._connections, rows))
        return time.perf_counter() - started

    async def _write(self, connection: DriverConnection, batches: Sequence[bytes]) -> None:
        for batch in batches:
            await stored_events.copy(connection, batch)
            await connection.commit()


@contextlib.asynccontextmanager
async def _copier(stack: Stack) -> AsyncIterator[_Copier]:
    async with contextlib.AsyncExitStack() as exits:
        connections: list[DriverConnection] = []
        for _ in range(DEFAULT_INGEST_WRITERS):
            connection = await psycopg.AsyncConnection.connect(stack.url)
            connections.append(await exits.enter_async_context(connection))
        yield _Copier(connections)


def _checkpoint(stack: Stack) -> None:
    """Runs a checkpoint, so that none starts during the measurement."""
    with psycopg.connect(stack.url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def _verify(stack: Stack, kind: Kind) -> None:
    """Raises NotCounted unless the gauges contain exactly what was sent."""
    total = Decimal(0)
    sent = [load.first_events(kind.gauges, load.now())]
    sent += [
        Load(f"round-{number}", kind.gauges, kind.events if number else WARM_UP_EVENTS, load.now()).make()
        for number in range(ROUNDS + 1)
    ]
    for events in sent:
        total += sum((event.quantity for event in events), Decimal(0))
    with psycopg.connect(stack.url) as connection:
        row = connection.execute("SELECT sum(value), count(*) FROM gauge").fetchone()
    if row != (total, kind.gauges):
        raise NotCounted(f"sum and number of the gauges are {row}, but should be {(total, kind.gauges)}")

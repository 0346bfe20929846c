"""batches: events a second by the size of a message, the number of streams, and the number of server processes."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from rich.table import Table

from bench.support import cpu, load
from bench.support.access import Access
from bench.support.client import Client
from bench.support.full_speed import Send
from bench.support.load import DENSE, SPARSE, Kind, Load
from bench.support.sending import NotCounted, create_alerts
from bench.support.stack import PostgreSQL, Stack

# Events of a round at most, by events of a message.
EVENTS: Mapping[int, int] = {1: 3_000, 10: 15_000, 100: 50_000, 1_000: 80_000}
SECONDS = 2.0  # of a round at most
ROUNDS = 2  # of all cases in turn; the result is their mean
WARM_UP_EVENTS = 20_000
WARM_UP_BATCH = 500


@dataclass(frozen=True)
class Case:
    """batch: events of a message. streams: each on a connection of its own."""

    kind: Kind
    workers: int
    streams: int
    batch: int

    @property
    def name(self) -> str:
        """Part of the ids of its events."""
        return f"{self.kind.name}-{self.workers}-{self.streams}-{self.batch}"


def _cases() -> Iterator[Case]:
    """Eight streams with one worker and with two; one stream with one worker, because only one can serve it.

    One stream is measured with dense traffic only: it waits for acknowledgements, whatever the number of gauges.
    """
    for kind in (DENSE, SPARSE):
        for workers, streams in ((1, 8), (2, 8), (1, 1)):
            if streams > 1 or kind is DENSE:
                yield from (Case(kind, workers, streams, batch) for batch in EVENTS)


CASES = tuple(_cases())


@dataclass(frozen=True)
class Round:
    """Events a second, and the CPU of server and database for one event in microseconds."""

    rate: float
    cpu: float


@dataclass(frozen=True)
class Report:
    """The rounds of each case."""

    rounds: Mapping[Case, Sequence[Round]]

    def figures(self) -> list[dict[str, Any]]:
        """The figures for the file of results."""
        return [
            {
                "kind": case.kind.name,
                "workers": case.workers,
                "streams": case.streams,
                "batch_events": case.batch,
                "events_per_second": round(statistics.mean(one.rate for one in rounds)),
                "cpu_us": round(statistics.mean(one.cpu for one in rounds), 1),
            }
            for case, rounds in self.rounds.items()
        ]

    def table(self) -> Table:
        """A row for each kind of traffic, workers and streams; a column for each size of a message."""
        table = Table(title="batches: events/s, CPU of server and database for one event")
        for name in ("traffic", "workers", "streams"):
            table.add_column(name)
        for batch in EVENTS:
            table.add_column(f"{batch:,} a message", justify="right")
        rows: dict[tuple[str, int, int], list[str]] = {}
        for one in self.figures():
            cells = rows.setdefault((one["kind"], one["workers"], one["streams"]), [])
            cells.append(f"{one['events_per_second']:,}, {one['cpu_us']:.1f} µs")
        for (kind, workers, streams), cells in rows.items():
            table.add_row(kind, str(workers), str(streams), *cells)
        return table


async def measure(postgresql: PostgreSQL, report: Callable[[str], None]) -> Report:
    """Measures all cases; those of one kind of traffic and number of workers share a database and a server."""
    rounds: dict[Case, list[Round]] = {case: [] for case in CASES}
    for kind, workers in dict.fromkeys((case.kind, case.workers) for case in CASES):
        async with postgresql.stack(f"bench_batches_{kind.name}_{workers}", workers=workers) as stack:
            with Client() as client:
                await create_alerts(stack.server, load.alerts())
                await _send(client, stack, Send(Access(stack.server), None, kind.gauges))
                await _warm_up(client, stack, kind)
                for number in range(ROUNDS):
                    for case in CASES:
                        if (case.kind, case.workers) == (kind, workers):
                            one = await _round(client, stack, case, number)
                            rounds[case].append(one)
                            report(f"{case.name}: {one.rate:,.0f} events/s, {one.cpu:.1f} µs")
            _verify(stack)
    return Report(rounds)


async def _warm_up(client: Client, stack: Stack, kind: Kind) -> None:
    events = Load("warm", kind.gauges, WARM_UP_EVENTS, load.now())
    await _send(client, stack, Send(Access(stack.server), events, kind.gauges, 8, WARM_UP_BATCH))


async def _round(client: Client, stack: Stack, case: Case, number: int) -> Round:
    events = EVENTS[case.batch]
    usage = Load(f"{case.name}-{number}", case.kind.gauges, events, load.now())
    job = Send(Access(stack.server), usage, case.kind.gauges, case.streams, case.batch, SECONDS)
    return await _send(client, stack, job)


async def _send(client: Client, stack: Stack, job: Send) -> Round:
    run = await client.prepare(job)
    meter = cpu.Meter(stack.postmaster_pid, *stack.server_pids)
    sent = await run()
    used = meter.used()
    return Round(sent.accepted / sent.seconds, 1e6 * used / sent.accepted)


def _verify(stack: Stack) -> None:
    """Raises NotCounted unless the gauges have exactly what is stored."""
    with psycopg.connect(stack.url) as connection:
        row = connection.execute(
            "SELECT (SELECT sum(value) FROM gauge), (SELECT sum(quantity) FROM event)"
        ).fetchone()
    assert row is not None
    if row[0] != row[1]:
        raise NotCounted(f"the gauges have {row[0]}, the events {row[1]}")

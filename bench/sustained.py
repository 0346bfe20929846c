"""sustained: what an event costs while millions of them are stored.

One server, 5,000 customers, random ids of 36 characters (UUIDs) that are never repeated, as fast as the server
accepts them. Each row of the result is a tenth of the events: events a second, CPU of server and database, log, disk.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from rich.table import Table

from bench.support import cpu, load
from bench.support.access import Access
from bench.support.client import Client
from bench.support.full_speed import Send, Sent
from bench.support.load import Load
from bench.support.sending import NotCounted, create_alerts
from bench.support.stack import PostgreSQL, Stack

CUSTOMERS = 5_000
EVENTS = 5_000_000
SECONDS = 150.0
ROWS = 10  # of the result
ROUND_EVENTS = 250_000  # that the client holds in memory at once
WARM_UP_EVENTS = 50_000
_STORED_METRIC = "stored"  # of events that were in the table before

# As many events of the same customers as an older part of the month would have. The key is built after them, as full
# as random ids leave its pages.
_STORE = """
INSERT INTO {name} (organization_id, customer_id, event_id, event_time, ingest_time, metric_id, quantity)
SELECT (SELECT min(organization_id) FROM organization), 'customer-' || lpad((n * 7919 %% {customers})::text, 6, '0'),
    md5(n::text)::uuid::text, %(month)s::timestamptz + n * interval '1 us', %(now)s, '{metric}', 1 + n %% 1999
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
"""
_FILLERS = 2  # connections that store at the same time, and processes that build the key
_KEYS = "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass"
_SIZES = """
SELECT sum(pg_table_size(inhrelid)), sum(pg_indexes_size(inhrelid))
FROM pg_inherits WHERE inhparent = 'event'::regclass
"""


@dataclass(frozen=True)
class Row:
    """A part of the events. stored: events in the table before it. Bytes and CPU are of one event."""

    stored: int
    events: int
    rate: float
    server_us: float
    database_us: float
    wal_bytes: float
    table_bytes: float
    index_bytes: float

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {
            "stored": self.stored,
            "events": self.events,
            "events_per_second": round(self.rate),
            "server_cpu_us": round(self.server_us, 1),
            "database_cpu_us": round(self.database_us, 1),
            "wal_bytes": round(self.wal_bytes),
            "table_bytes": round(self.table_bytes, 1),
            "index_bytes": round(self.index_bytes, 1),
        }


@dataclass(frozen=True)
class Report:
    """The rows, in the order of time. empty: the same with an empty table, where that was measured."""

    rows: Sequence[Row]
    empty: Sequence[Row] = ()

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results.

        last_to_first: of the rates of the last and the first three rows. stored_to_empty: of the median rates, and of
        the median CPU of server and database.
        """
        rates = [row.rate for row in self.rows]
        found: dict[str, Any] = {
            "customers": CUSTOMERS,
            "last_to_first": round(statistics.median(rates[-3:]) / statistics.median(rates[:3]), 3),
            "bytes_of_an_event": round(self.rows[-1].table_bytes + self.rows[-1].index_bytes, 1),
        }
        if self.empty:
            found["stored_to_empty"] = round(_median(self.rows, _rate) / _median(self.empty, _rate), 3)
            found["stored_to_empty_cpu"] = round(_median(self.rows, _cpu) / _median(self.empty, _cpu), 3)
            found["rows_of_an_empty_table"] = [row.figures() for row in self.empty]
        return {**found, "rows": [row.figures() for row in self.rows]}

    def table(self) -> Table:
        """The figures as a table for people."""
        found = self.figures()
        title = f"sustained: last ÷ first {found['last_to_first']}"
        if self.empty:
            title += f", stored ÷ empty {found['stored_to_empty']}"
        table = Table(title=title)
        for name in found["rows"][0]:
            table.add_column(name.replace("_", " "), justify="right")
        for row in (*found.get("rows_of_an_empty_table", ()), *found["rows"]):
            table.add_row(*(f"{value:,}" for value in row.values()))
        return table


def _rate(row: Row) -> float:
    return row.rate


def _cpu(row: Row) -> float:
    return row.server_us + row.database_us


def _median(rows: Sequence[Row], figure: Callable[[Row], float]) -> float:
    return statistics.median(map(figure, rows))


@dataclass(frozen=True)
class _Reading:
    """What is known of the stack at one time. server: seconds of its CPU. The others are bytes."""

    server: float
    wal: int
    table: int
    index: int


async def measure(
    postgresql: PostgreSQL,
    report: Callable[[str], None],
    *,
    events: int = EVENTS,
    seconds: float = SECONDS,
    stored: int = 0,
) -> Report:
    """Sends so many events, and ends early after so many seconds.

    stored: events that are in the table before. With some, the same is measured first with an empty table.
    """
    empty: Sequence[Row] = ()
    if stored:
        report("an empty table")
        empty = await _rows(postgresql, "bench_empty", report, events, seconds)
        with psycopg.connect(postgresql.url, autocommit=True) as connection:
            connection.execute("DROP DATABASE bench_empty")
    return Report(await _rows(postgresql, "bench_sustained", report, events, seconds, stored), empty)


async def _rows(
    postgresql: PostgreSQL,
    name: str,
    report: Callable[[str], None],
    events: int,
    seconds: float,
    stored: int = 0,
) -> list[Row]:
    """Measures on a new database of that name."""
    rows: list[Row] = []
    async with postgresql.stack(name) as stack:
        with Client() as client:
            await create_alerts(stack.server, load.alerts())
            await _send(client, Send(Access(stack.server), None, CUSTOMERS))
            if stored:
                _store(stack, stored, report)
            await _send(client, _of_round(stack, "warm", WARM_UP_EVENTS))
            counted = CUSTOMERS + WARM_UP_EVENTS + stored
            deadline = time.monotonic() + seconds
            for number in range(ROWS):
                if time.monotonic() >= deadline:
                    break
                row = await _row(client, stack, number, events // ROWS, counted)
                counted += row.events
                rows.append(row)
                report(f"{row.stored:,} stored: {row.rate:,.0f} events/s")
        _verify(stack, counted - stored)
    return rows


async def _row(client: Client, stack: Stack, number: int, events: int, stored: int) -> Row:
    meter = cpu.Meter(stack.postmaster_pid)
    before, lasted, database = _read(stack), 0.0, 0.0
    for start in range(0, events, ROUND_EVENTS):
        size = min(ROUND_EVENTS, events - start)
        run = await client.prepare(_of_round(stack, f"{number}-{start}", size))
        used = meter.used()
        sent = await run()
        _check(sent, size)
        lasted += sent.seconds
        database += meter.used() - used
    after, total = _read(stack), stored + events
    return Row(
        stored,
        events,
        rate=events / lasted,
        server_us=1e6 * (after.server - before.server) / events,
        database_us=1e6 * database / events,
        wal_bytes=(after.wal - before.wal) / events,
        table_bytes=after.table / total,
        index_bytes=after.index / total,
    )


def _of_round(stack: Stack, name: str, events: int) -> Send:
    return Send(Access(stack.server), Load(name, CUSTOMERS, events, load.now(), random_ids=True), CUSTOMERS)


async def _send(client: Client, job: Send) -> None:
    _check(await (await client.prepare(job))(), job.events.events if job.events else job.gauges)


def _check(sent: Sent, events: int) -> None:
    if sent.accepted != events:
        raise NotCounted(f"{sent.accepted} events were accepted, {events} were sent")


def _store(stack: Stack, events: int, report: Callable[[str], None]) -> None:
    """Puts events into the table that the server does not count."""
    began = time.monotonic()
    now = load.now()
    name = f"event_{now:%Y_%m}"
    with _connected(stack) as connection:
        [(key, definition)] = connection.execute(_KEYS, (name,)).fetchall()
        connection.execute(f"DROP INDEX {key}".encode())
        bounds = [events * number // _FILLERS for number in range(_FILLERS + 1)]
        with ThreadPoolExecutor(_FILLERS) as threads:
            parts = [threads.submit(_store_part, stack, name, now, *part) for part in itertools.pairwise(bounds)]
            for part in parts:
                part.result()
        report(f"{events:,} events stored before the measurement in {time.monotonic() - began:.0f} s")
        connection.execute("SET maintenance_work_mem = '1GB'")
        connection.execute(f"SET max_parallel_maintenance_workers = {_FILLERS - 1}".encode())
        connection.execute(f"{definition} WITH (fillfactor = 70)".encode())
        connection.execute(f"ALTER INDEX {key} RESET (fillfactor)".encode())
        report(f"their key after {time.monotonic() - began:.0f} s")
        # Otherwise PostgreSQL does it in the middle of the measurement.
        connection.execute(f"VACUUM (ANALYZE) {name}".encode())
        connection.execute("CHECKPOINT")
        report(f"ready after {time.monotonic() - began:.0f} s")


def _store_part(stack: Stack, name: str, now: datetime, first: int, end: int) -> None:
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    statement = _STORE.format(name=name, customers=CUSTOMERS, metric=_STORED_METRIC)
    parameters = {"month": month, "now": now, "first": first, "last": end - 1}
    with _connected(stack) as connection:
        connection.execute(statement.encode(), parameters)


def _connected(stack: Stack) -> psycopg.Connection:
    connection = psycopg.connect(stack.url, autocommit=True)
    connection.execute("SET synchronous_commit = off")
    return connection


def _read(stack: Stack) -> _Reading:
    with psycopg.connect(stack.url) as connection:
        row = connection.execute(_SIZES).fetchone()
        wal = connection.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    assert wal is not None
    return _Reading(cpu.seconds(stack.server_pid), int(wal[0]), int(row[0]), int(row[1]))


def _verify(stack: Stack, events: int) -> None:
    """Raises NotCounted unless the gauges have exactly what is stored, and every event is stored once."""
    with psycopg.connect(stack.url) as connection:
        found = connection.execute(
            "SELECT (SELECT sum(value) FROM gauge), sum(quantity), count(*) FROM event WHERE metric_id = %s",
            (load.METRIC,),
        ).fetchone()
    assert found is not None
    if found[0] != found[1] or found[2] != events:
        raise NotCounted(f"the gauges have {found[0]}, and {found[2]} events of {found[1]} are stored, not {events}")

"""room: bytes of a row in each table that grows with usage, and what an event costs that reaches a threshold.

Each customer has a gauge, and each of its events reaches a threshold, so each event becomes a notification, and a
delivery to each endpoint. Room for dead rows counts, too: tables are vacuumed after each round, as autovacuum does
where it keeps up, and gauges and states are written again in each round.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
from rich.table import Table

from bench.support import cpu, load
from bench.support.access import Access
from bench.support.client import Client
from bench.support.fast_receiver import FastReceiver
from bench.support.full_speed import Send
from bench.support.sending import TIMEOUT, NotCounted, channel, create_alerts
from bench.support.stack import PostgreSQL
from evaluator.events import UsageEvent
from generated.tidemark.v1 import webhook_service_pb2
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from tests.support.processes.programs import Program

CUSTOMERS = 5_000
ROUNDS = 3  # one event of each customer in each
ENDPOINTS = 2
PATIENCE = 120.0  # seconds for the last webhook to arrive, and to be recorded
_FEWEST_ROWS = 1_000  # of a table that is shown

# Of each table, with its partitions: bytes of the rows, bytes of the indexes. Deliveries that are not finished are a
# partition that is empty again in the end, and whose size does not grow with what is kept.
_TABLES = """
SELECT root::regclass::text, sum(pg_table_size(c.oid)), sum(pg_indexes_size(c.oid))
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = current_schema()
CROSS JOIN LATERAL (SELECT coalesce(pg_partition_root(c.oid), c.oid) AS root) r
WHERE c.relkind = 'r' AND c.relname <> 'delivery_live'
GROUP BY root
"""
_UNFINISHED = "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM delivery_live)"
_WAL = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"


@dataclass(frozen=True)
class Grown:
    """A table after the load: rows, and bytes of each row and of its index entries."""

    table: str
    rows: int
    table_bytes: float
    index_bytes: float


@dataclass(frozen=True)
class Report:
    """The tables, the largest row first.

    cpu_us, wal_bytes: microseconds by process, and bytes of log, of one event that reaches a threshold, before its
    webhooks. delivery_wal_bytes: bytes of log of one delivery.
    """

    tables: Sequence[Grown]
    cpu_us: dict[str, float]
    wal_bytes: float
    delivery_wal_bytes: float

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {
            "events": CUSTOMERS * ROUNDS,
            "wal_bytes": round(self.wal_bytes),
            "delivery_wal_bytes": round(self.delivery_wal_bytes),
            "cpu_us": {name: round(used) for name, used in self.cpu_us.items()},
            "tables": {
                one.table: {
                    "rows": one.rows,
                    "table_bytes": round(one.table_bytes, 1),
                    "index_bytes": round(one.index_bytes, 1),
                }
                for one in self.tables
            },
        }

    def table(self) -> Table:
        """The same for people."""
        used = ", ".join(f"{name} {each:.0f} µs" for name, each in self.cpu_us.items())
        log = f"{self.wal_bytes:,.0f} bytes of log, and {self.delivery_wal_bytes:,.0f} for each delivery"
        table = Table(title=f"an event that reaches a threshold: {used}, {log}")
        table.add_column("table", no_wrap=True)
        for name in ("rows", "bytes of a row", "of its index entries", "together"):
            table.add_column(name, justify="right")
        for one in self.tables:
            both = one.table_bytes + one.index_bytes
            table.add_row(
                one.table, f"{one.rows:,}", f"{one.table_bytes:,.0f}", f"{one.index_bytes:,.0f}", f"{both:,.0f}"
            )
        return table


@dataclass
class Crossings(Send):
    """One event of each customer, each of which reaches a threshold. name: part of the event ids."""

    name: str = ""

    async def prepare(self) -> None:
        """Encodes the messages and connects."""
        now = load.now()
        events = [
            UsageEvent(
                f"{self.name}-{number:07d}",
                load.customer(number),
                now + timedelta(microseconds=number),
                load.CROSSING_METRIC,
                Decimal(1),
                None,
                None,
                None,
                {},
            )
            for number in range(self.gauges)
        ]
        self._messages = load.messages(events, self.batch_events)
        self._channels = await self.access.channels(self.streams)


async def measure(postgresql: PostgreSQL, report: Callable[[str], None]) -> Report:
    """Measures on a database, a server and a notifier of its own."""
    url = postgresql.create_database("bench_room")
    async with contextlib.AsyncExitStack() as exits:
        receiver, client = exits.enter_context(FastReceiver()), exits.enter_context(Client())
        server = await postgresql.server(exits, url)
        access = Access(server.address.server)
        await create_alerts(access.server, [load.crossing_alert()])
        async with channel(access.server) as over:
            for number in range(ENDPOINTS):
                endpoint = Endpoint(url=f"{receiver.url}/{number}")
                request = webhook_service_pb2.CreateEndpointRequest(endpoint=endpoint)
                await WebhookServiceStub(over).CreateEndpoint(request, timeout=TIMEOUT)
        postgresql.checkpoint()
        used, log = {"server": 0.0, "PostgreSQL": 0.0}, 0
        for number in range(ROUNDS):
            run = await client.prepare(Crossings(access, None, CUSTOMERS, name=f"round-{number}"))
            before, began = _cpu(server, postgresql), _value(url, _WAL)
            sent = await run()
            for name, now in _cpu(server, postgresql).items():
                used[name] += now - before[name]
            log += _value(url, _WAL) - began
            if (sent.accepted, sent.transitions) != (CUSTOMERS, CUSTOMERS):
                raise NotCounted(f"{sent.accepted} events, {sent.transitions} transitions of {CUSTOMERS}")
            report(f"{CUSTOMERS:,} events that reach a threshold in {sent.seconds:.1f} s")
            _vacuum(url)
        events = CUSTOMERS * ROUNDS
        began = _value(url, _WAL)
        await postgresql.notifier(exits, url, {})
        await receiver.arrived(ENDPOINTS * events, PATIENCE)
        async with asyncio.timeout(PATIENCE):
            while _value(url, _UNFINISHED):  # noqa: ASYNC110 (the notifier is another process)
                await asyncio.sleep(0.2)
        deliveries = (_value(url, _WAL) - began) / (ENDPOINTS * events)
        report(f"{ENDPOINTS * events:,} deliveries")
        _vacuum(url)
        cpu_us = {name: 1e6 * seconds / events for name, seconds in used.items()}
        return Report(_tables(url), cpu_us, log / events, deliveries)


def _cpu(server: Program, postgresql: PostgreSQL) -> dict[str, float]:
    return {"server": cpu.seconds(server.pid), "PostgreSQL": cpu.tree_seconds(postgresql.postmaster_pid())}


def _vacuum(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM")


def _value(url: str, query: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def _tables(url: str) -> list[Grown]:
    with psycopg.connect(url) as connection:
        found = []
        for table, table_bytes, index_bytes in connection.execute(_TABLES).fetchall():
            if rows := _value(url, f"SELECT count(*) FROM {table}"):
                found.append(Grown(table, rows, float(table_bytes) / rows, float(index_bytes) / rows))
    shown = [one for one in found if one.rows >= _FEWEST_ROWS]
    return sorted(shown, key=lambda one: -one.table_bytes - one.index_bytes)

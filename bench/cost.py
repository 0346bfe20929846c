"""cost: CPU and disk of an event, and what a load costs at the reader's own prices."""

import statistics
from collections.abc import Callable, Sequence
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

ROUNDS = 3
WARM_UP_EVENTS = 30_000
DAY = 86_400  # seconds
BUSY = 0.5  # the share of a core that is planned to be used

# Of the rows of events, and of the whole database: gauges, alerts, notifications and their indexes too.
_SIZES = """
SELECT (SELECT sum(pg_table_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'event'::regclass),
    (SELECT sum(pg_indexes_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'event'::regclass),
    pg_database_size(current_database()), pg_current_wal_lsn() - '0/0'::pg_lsn
"""


@dataclass(frozen=True)
class Plan:
    """What the price is of. rate: events a second on average. days: that events are kept.

    core, gigabyte: the reader's prices of one core, and of one gigabyte of disk, for the same time, such as a month.
    """

    rate: float
    days: float
    core: float
    gigabyte: float


@dataclass(frozen=True)
class Price:
    """Cores that are used up to BUSY, gigabytes (10**9 bytes) of disk, and the price of both."""

    cores: float
    gigabytes: float
    total: float


def price(plan: Plan, cpu_us: float, disk_bytes: float) -> Price:
    """The price of a load. cpu_us: microseconds of CPU, disk_bytes: bytes of disk of one event."""
    cores = plan.rate * cpu_us / 1e6 / BUSY
    gigabytes = plan.rate * DAY * plan.days * disk_bytes / 1e9
    return Price(cores, gigabytes, cores * plan.core + gigabytes * plan.gigabyte)


@dataclass(frozen=True)
class Cost:
    """Of one event: microseconds of CPU, and bytes of the table, its indexes, the whole database and the log."""

    kind: Kind
    server_us: float
    database_us: float
    table_bytes: float
    index_bytes: float
    whole_bytes: float
    log_bytes: float

    @property
    def cpu_us(self) -> float:
        """Of server and database."""
        return self.server_us + self.database_us

    @property
    def disk_bytes(self) -> float:
        """Of the event and its indexes."""
        return self.table_bytes + self.index_bytes

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {
            "server_cpu_us": round(self.server_us, 2),
            "database_cpu_us": round(self.database_us, 2),
            "events_of_a_core_second": round(1e6 / self.cpu_us),
            "table_bytes": round(self.table_bytes, 1),
            "index_bytes": round(self.index_bytes, 1),
            "whole_database_bytes": round(self.whole_bytes, 1),
            "log_bytes": round(self.log_bytes),
            "events_of_a_gigabyte": round(1e9 / self.disk_bytes),
        }


_LABELS = {
    "CPU of the server, µs": "server_cpu_us",
    "CPU of PostgreSQL, µs": "database_cpu_us",
    "events a core-second": "events_of_a_core_second",
    "bytes of the table": "table_bytes",
    "bytes of its indexes": "index_bytes",
    "bytes of the whole database": "whole_database_bytes",
    "bytes of log, which is reused": "log_bytes",
    "events a gigabyte (table and indexes)": "events_of_a_gigabyte",
}


@dataclass(frozen=True)
class Report:
    """The costs of each kind of traffic, and the price of a plan."""

    costs: Sequence[Cost]
    plan: Plan

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {one.kind.name: one.figures() for one in self.costs}

    def table(self) -> Table:
        """The costs as a table for people."""
        table = Table(title="cost of one event")
        table.add_column("")
        for one in self.costs:
            table.add_column(one.kind.name, justify="right")
        found = [one.figures() for one in self.costs]
        for label, name in _LABELS.items():
            table.add_row(label, *(f"{one[name]:,}" for one in found))
        return table

    def price_table(self) -> Table:
        """The price of the plan."""
        plan = self.plan
        table = Table(title=f"{plan.rate:,g} events/s, kept for {plan.days:g} days")
        for name in ("traffic", "cores", f"× {plan.core:g}", "gigabytes", f"× {plan.gigabyte:g}", "price"):
            table.add_column(name, justify="right")
        for one in self.costs:
            found = price(plan, one.cpu_us, one.disk_bytes)
            table.add_row(
                one.kind.name,
                f"{found.cores:.3f}",
                f"{found.cores * plan.core:,.2f}",
                f"{found.gigabytes:,.1f}",
                f"{found.gigabytes * plan.gigabyte:,.2f}",
                f"{found.total:,.2f}",
            )
        table.caption = f"cores are used to {BUSY:.0%}; the client, webhooks, replicas and backups are not in it"
        return table


async def measure(postgresql: PostgreSQL, report: Callable[[str], None], plan: Plan) -> Report:
    """Measures dense and sparse traffic as fast as the server accepts it, each with a database of its own."""
    costs = []
    for kind in (DENSE, SPARSE):
        async with postgresql.stack(f"bench_cost_{kind.name}") as stack:
            with Client() as client:
                await create_alerts(stack.server, load.alerts())
                await _send(client, stack, Send(Access(stack.server), None, kind.gauges), kind.gauges)
                await _send(client, stack, _round(stack, kind, "warm", WARM_UP_EVENTS), WARM_UP_EVENTS)
                before = _sizes(stack)
                used = [
                    await _send(client, stack, _round(stack, kind, f"round-{number}", kind.events), kind.events)
                    for number in range(ROUNDS)
                ]
                sizes = [
                    (after - start) / (ROUNDS * kind.events)
                    for after, start in zip(_sizes(stack), before, strict=True)
                ]
        server, database = (statistics.median(one) for one in zip(*used, strict=True))
        costs.append(Cost(kind, server, database, *sizes))
        report(f"{kind.name}: {server:.1f} + {database:.1f} µs, {sizes[0] + sizes[1]:.0f} bytes")
    return Report(costs, plan)


def _round(stack: Stack, kind: Kind, name: str, events: int) -> Send:
    return Send(Access(stack.server), Load(name, kind.gauges, events, load.now()), kind.gauges)


async def _send(client: Client, stack: Stack, job: Send, events: int) -> tuple[float, float]:
    """Microseconds of the server and of the database for one event."""
    run = await client.prepare(job)
    meter, before = cpu.Meter(stack.postmaster_pid), cpu.seconds(*stack.server_pids)
    sent = await run()
    used = cpu.seconds(*stack.server_pids) - before, meter.used()
    if sent.accepted != events:
        raise NotCounted(f"{sent.accepted} events were accepted, {events} were sent")
    return 1e6 * used[0] / events, 1e6 * used[1] / events


def _sizes(stack: Stack) -> tuple[int, int, int, int]:
    with psycopg.connect(stack.url) as connection:
        row = connection.execute(_SIZES).fetchone()
    assert row is not None
    return int(row[0]), int(row[1]), int(row[2]), int(row[3])

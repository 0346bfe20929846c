"""timers: the cost of wallets that are due in the future, and the delay of notifications of due wallets."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from bench.support import holders, load
from bench.support.access import Access
from bench.support.client import Client
from bench.support.figures import milliseconds
from bench.support.full_speed import Send
from bench.support.sending import create_alerts
from bench.support.stack import PostgreSQL, Stack
from engine.limits import DEFAULT_LIMITS
from store.balances import wallet_timers
from store.postgres.channels import OUTBOX_CHANNEL
from store.postgres.database import Database

FUTURE = 1_000_000  # wallets that are due next year
SWEEPS = 300  # measured with and without these wallets
DUE = 1_000  # customers whose commit ends during the benchmark
LEAD = 15.0  # seconds before the first commit ends
SPREAD = 20.0  # seconds from the end of the first commit to that of the last
LAST_WAIT = 30.0  # seconds after the end of the last commit, for the last notification
_NO_ORGANIZATION = 1_000_000  # the organization of the future wallets, which does not exist

_FUTURE = """
INSERT INTO wallet (organization_id, customer_id, due_time)
SELECT %(organization)s, 'customer-' || number, now() + interval '1 year' + number * interval '1 second'
FROM generate_series(1, %(count)s) AS number
"""
_NOTIFIED = "SELECT DISTINCT customer_id FROM notification WHERE event_type = 'alert.reached'"


class NoNotification(Exception):
    """A timer did not result in a notification in time."""


@dataclass(frozen=True)
class Timers:
    """Durations in seconds.

    empty, full: one sweep for due wallets, without and with the future wallets. late: from the end of a commit until
    another connection reads its notification.
    """

    empty: list[float]
    full: list[float]
    late: list[float]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {
            "future_timers": FUTURE,
            "sweep_without_p50_ms": milliseconds(self.empty, 0.5),
            "sweep_without_p99_ms": milliseconds(self.empty, 0.99),
            "sweep_with_p50_ms": milliseconds(self.full, 0.5),
            "sweep_with_p99_ms": milliseconds(self.full, 0.99),
            "due": DUE,
            "due_in_seconds": SPREAD,
            "late_p50_ms": milliseconds(self.late, 0.5),
            "late_p99_ms": milliseconds(self.late, 0.99),
            "late_max_ms": milliseconds(self.late, 1.0),
        }


async def measure(postgresql: PostgreSQL, report: Callable[[str], None]) -> Timers:
    """Measures on its own database and server."""
    async with postgresql.stack("bench_timers") as stack:
        empty = await _sweeps(stack)
        with psycopg.connect(stack.url, autocommit=True) as connection:
            connection.execute(_FUTURE, {"organization": _NO_ORGANIZATION, "count": FUTURE})
            connection.execute("VACUUM ANALYZE wallet")
        full = await _sweeps(stack)
        report(
            f"a sweep for due wallets: {milliseconds(empty, 0.5)} ms, with {FUTURE:,} in the future"
            f" {milliseconds(full, 0.5)} ms"
        )
        late = await _lateness(stack)
        report(f"late: p50 {milliseconds(late, 0.5)} ms, p99 {milliseconds(late, 0.99)} ms")
    return Timers(empty, full, late)


async def _sweeps(stack: Stack) -> list[float]:
    """The durations of sweeps for due wallets, each in its own transaction."""
    database = Database(stack.url)
    try:
        taken = []
        for _ in range(SWEEPS):
            started = time.perf_counter()
            async with database.transaction() as connection:
                await wallet_timers.due_timers(connection, load.now(), DEFAULT_LIMITS.timers.sweep)
                await wallet_timers.next_due_time(connection)
            taken.append(time.perf_counter() - started)
        return taken
    finally:
        await database.close()


async def _lateness(stack: Stack) -> list[float]:
    with Client() as client:
        await (await client.prepare(Send(Access(stack.server), None, DUE)))()
    first = load.now() + timedelta(seconds=LEAD)
    due = {load.customer(number): first + number * timedelta(seconds=SPREAD / DUE) for number in range(DUE)}
    with psycopg.connect(stack.url) as connection:
        holders.grant_until(connection, due)
    await create_alerts(stack.server, [holders.commit_alert()], LEAD)
    if load.now() > first:
        raise NoNotification(f"the alert took more than {LEAD:g} seconds to evaluate {DUE:,} customers")
    return await _listen(stack, due)


async def _listen(stack: Stack, due: dict[str, datetime]) -> list[float]:
    """Waits for the notifications of all customers; returns the delay of each in seconds."""
    late: dict[str, float] = {}
    deadline = max(due.values()) + timedelta(seconds=LAST_WAIT)
    async with await psycopg.AsyncConnection.connect(stack.url, autocommit=True) as connection:
        await connection.execute(f"LISTEN {OUTBOX_CHANNEL}".encode())
        while len(late) < len(due):
            if load.now() > deadline:
                raise NoNotification(f"{len(due) - len(late)} of {len(due)} timers did not result in a notification")
            async for _ in connection.notifies(timeout=1.0, stop_after=1):
                pass
            now = load.now()
            for (customer_id,) in await (await connection.execute(_NOTIFIED)).fetchall():
                late.setdefault(customer_id, (now - due[customer_id]).total_seconds())
    return list(late.values())

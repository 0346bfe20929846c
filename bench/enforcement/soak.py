"""enforcement-soak: minutes of pairs and of reservations that nothing settles; then the meters equal the ledger."""

import asyncio
import time
from collections.abc import Callable

import psycopg

from bench.enforcement.calls import RESERVE, Calls
from bench.enforcement.requests import CUSTOMERS, put_limits
from bench.enforcement.rows import MOST_CALLS, MOST_MESSAGES, wrong_meters
from bench.enforcement.streams import Pairs
from bench.support.access import Access
from bench.support.client import Client
from bench.support.goals import Figure, Goal, Report
from bench.support.stack import PostgreSQL, Stack

ROUND_SECONDS = 5.0
EXPIRY_TIMEOUT = 120.0  # seconds until the last reservations have expired: 65 after they were made
ROW = "soak"


async def measure(postgresql: PostgreSQL, minutes: float, report: Callable[[str], None]) -> Report:
    """Pairs and reservations in turn, for so many minutes."""
    pairs, reserves = 0, 0.0
    async with postgresql.stack("bench_enforcement_soak") as stack:
        access = Access(stack.server)
        await put_limits(access)
        wrong = []
        end, number = time.monotonic() + 60 * minutes, 0
        with Client() as client:
            while time.monotonic() < end:
                number += 1
                customers = CUSTOMERS if number % 2 else 1
                job = Pairs(access, f"soak-{number}", customers, MOST_MESSAGES, ROUND_SECONDS)
                pairs += (await (await client.prepare(job))()).pairs
                calls = Calls(access, RESERVE, f"left-{number}", 1.0, MOST_CALLS // 10)
                reserves += await (await client.prepare(calls))()
                wrong.append(wrong_meters(stack.url))
                report(f"round {number}: {pairs:,} pairs, {wrong[-1]} meters that differ")
        await _expired(stack)
        wrong.append(wrong_meters(stack.url))
        held = _held(stack)
    return Report(
        "minutes of reservations",
        [
            Figure(ROW, f"pairs in {minutes:g} minutes", pairs),
            Figure(ROW, "meters that differ from the stored events, most", max(wrong), "", Goal(0, at_most=True)),
            Figure(ROW, "meters that hold anything in the end", held, "", Goal(0, at_most=True)),
        ],
        {},
        {},
    )


async def _expired(stack: Stack) -> None:
    """Waits until the reservations that nothing has settled have expired."""
    async with asyncio.timeout(EXPIRY_TIMEOUT):
        while _count(stack, "SELECT count(*) FROM reservation WHERE state = 'OPEN'"):  # noqa: ASYNC110 (another process ends them)
            await asyncio.sleep(1.0)


def _held(stack: Stack) -> int:
    return _count(stack, "SELECT count(*) FROM meter WHERE held <> 0")


def _count(stack: Stack, query: str) -> int:
    with psycopg.connect(stack.url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])

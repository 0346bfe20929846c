"""The rows `rolling` and `slow`: a window that rolls, and many customers beside one whose wallet is held.

Each compares with the same load without it, on the same machine.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable
from datetime import timedelta

import psycopg

from bench.enforcement.calls import Paced
from bench.enforcement.requests import CUSTOMERS, put_limits, reserve
from bench.enforcement.streams import Pairs
from bench.support import cpu, load
from bench.support.access import Access
from bench.support.client import Client
from bench.support.figures import milliseconds
from bench.support.goals import Figure
from bench.support.sending import TIMEOUT
from bench.support.stack import PostgreSQL, Stack
from generated.tidemark.v1.limit_service_pb2_grpc import LimitServiceStub

ROLLING, SLOW = "rolling", "slow"
WINDOW = timedelta(hours=5)
ROUNDS = 3
PAIR_SECONDS = 2.5
MESSAGES = 500  # of one round and kind
OTHERS = 100  # customers beside the one whose wallet is held
RATE = 100
PACED_SECONDS = 6.0
HELD, PAUSE = 1.0, 0.5  # seconds in which the wallet is held, and then is not

_HOLD = "SELECT FROM wallet WHERE customer_id = %(customer)s FOR UPDATE"


async def rolling(postgresql: PostgreSQL, client: Client) -> list[Figure]:
    """Pairs of customers with a limit of a calendar window, and with one of a window that rolls."""
    rates: dict[str, list[float]] = {"month": [], "rolling window": []}
    used: dict[str, list[float]] = {name: [] for name in rates}
    async with (
        postgresql.stack("bench_enforcement_month") as month,
        postgresql.stack("bench_enforcement_rolling") as rolls,
    ):
        await put_limits(Access(month.server))
        await put_limits(Access(rolls.server), rolling=WINDOW)
        for number in range(ROUNDS + 1):  # the first warms up
            for name, stack in zip(rates, (month, rolls), strict=True):
                job = Pairs(Access(stack.server), f"{name[0]}-{number}", CUSTOMERS, MESSAGES, PAIR_SECONDS)
                run = await client.prepare(job)
                database, server = cpu.Meter(stack.postmaster_pid), cpu.seconds(*stack.server_pids)
                found = await run()
                if number:
                    rates[name].append(found.pairs / found.seconds)
                    seconds = database.used() + cpu.seconds(*stack.server_pids) - server
                    used[name].append(1e6 * seconds / found.pairs)
    ratios = [rolled / plain for plain, rolled in zip(*used.values(), strict=True)]
    return [
        *(Figure(ROLLING, f"reserve + settle, {name}", statistics.median(rates[name]), "/s") for name in rates),
        *(Figure(ROLLING, f"CPU of a pair, {name}", statistics.median(used[name]), "µs") for name in used),
        Figure(ROLLING, "CPU of a pair, rolling window ÷ month", statistics.median(ratios), ""),
    ]


async def slow(postgresql: PostgreSQL, client: Client) -> list[Figure]:
    """Reservations of many customers, alone and beside one whose wallet another session holds, again and again."""
    figures: list[Figure] = []
    async with postgresql.stack("bench_enforcement_slow") as stack:
        await put_limits(Access(stack.server), OTHERS + 1)
        for name in ("warm up", "alone", "beside one that waits"):
            paced = Paced(Access(stack.server), name.replace(" ", "-"), RATE, PACED_SECONDS, OTHERS)
            running = (await client.prepare(paced))()
            if name.startswith("beside"):
                took, waited = await _beside_one_that_waits(stack, running)
                figures.append(Figure(SLOW, "reservation of the one that waits, median", 1e3 * waited, "ms"))
            else:
                took = await running
            if name != "warm up":
                what = f"reserve at {RATE}/s of {OTHERS} customers, {name}"
                figures += [
                    Figure(SLOW, f"{what}, p{share * 100:.0f}", milliseconds(took, share), "ms")
                    for share in (0.5, 0.99)
                ]
    return figures


async def _beside_one_that_waits(stack: Stack, running: Awaitable[list[float]]) -> tuple[list[float], float]:
    """The result of a run; and the median of the seconds that reservations of the last customer took meanwhile."""
    over = Access(stack.server).channel()
    limits: LimitServiceStub = LimitServiceStub(over)
    others = asyncio.ensure_future(running)
    waited: list[float] = []
    await limits.ReserveUsage(reserve(OTHERS, "held-first"), timeout=TIMEOUT)  # makes the wallet
    async with await psycopg.AsyncConnection.connect(stack.url) as connection:
        while not others.done():
            await connection.execute(_HOLD, {"customer": load.customer(OTHERS)})
            waiting = asyncio.create_task(_reserve(limits, f"held-{len(waited)}"))
            await asyncio.sleep(HELD)
            await connection.rollback()
            waited.append(await waiting)
            await asyncio.sleep(PAUSE)
    took = await others
    await over.close()
    return took, statistics.median(waited)


async def _reserve(limits: LimitServiceStub, reservation_id: str) -> float:
    """The seconds of one reservation of the last customer."""
    began = time.perf_counter()
    await limits.ReserveUsage(reserve(OTHERS, reservation_id), timeout=TIMEOUT)
    return time.perf_counter() - began

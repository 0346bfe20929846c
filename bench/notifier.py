"""notifier.*: rate, latency, fairness and memory of one notifier process."""

import asyncio
import itertools
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

import aiohttp

from bench.rivals.environment import Unavailable
from bench.rivals.measuring import RIVALS, jobs
from bench.rivals.measuring import rate as rival_rate
from bench.rivals.task import Task
from bench.support import cpu
from bench.support.fast_receiver import HANGING, Arrival, FastReceiver
from bench.support.notifier_stack import SECRET, QueueDatabase, body_of, notification_id, notifier_on, resident
from bench.support.stack import PostgreSQL
from notifier.request_headers import HEADERS
from webhooks.signature import signed_headers

ENDPOINTS = 30  # fast receivers of the throughput
DELIVERIES_EACH = 400  # to each endpoint; fewer end too soon to measure a rate
BARE_CONCURRENCY = ENDPOINTS * 4  # requests of the bare loop at a time: as many as the notifier may have
ROUNDS = 2  # of the bare loop, the notifier and the rivals in turn
IDLE_SAMPLES = 120
IDLE_PAUSE = 0.04  # seconds between two notifications, on average
HEALTHY = 999  # endpoints beside the one that hangs
HANGING_ROWS = 100_000
FAIR_RATE = 40  # notifications a second to the healthy endpoints
FAIR_ROUNDS = 3  # without and beside the one that hangs in turn, so many seconds each
FAIR_SECONDS = 4.0
MEMORY_IN_FLIGHT = 500
TIMEOUT = 120.0  # seconds for anything here to arrive


@dataclass(frozen=True)
class Rates:
    """Deliveries a second in one round, and the CPU of one delivery in seconds.

    rivals: by name; without those that could not be measured. CPU: None if the system does not report it.
    """

    bare: float
    notifier: float
    rivals: dict[str, float]
    bare_cpu: float
    notifier_cpu: float | None
    database_cpu: float | None


@dataclass(frozen=True)
class Report:
    """The results. Latencies are seconds from the commit to the arrival."""

    rates: list[Rates]  # of each round
    unavailable: str  # why the rivals were not measured; empty when they were
    idle: list[float]
    healthy_alone: list[float]
    healthy_beside: list[float]
    resident_bytes: int | None  # None if the system does not report it

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        alone, beside = quantile(self.healthy_alone, 0.99), quantile(self.healthy_beside, 0.99)
        return {
            "deliveries_per_second": round(median(one.notifier for one in self.rates)),
            "bare_aiohttp_per_second": round(median(one.bare for one in self.rates)),
            "ratio": round(median(one.notifier / one.bare for one in self.rates), 3),
            "rounds": [
                {
                    "bare": round(one.bare),
                    "notifier": round(one.notifier),
                    "bare_cpu_us": round(1e6 * one.bare_cpu),
                    "notifier_cpu_us": None if one.notifier_cpu is None else round(1e6 * one.notifier_cpu),
                    "database_cpu_us": None if one.database_cpu is None else round(1e6 * one.database_cpu),
                }
                | {name: round(rate) for name, rate in one.rivals.items()}
                for one in self.rates
            ],
            "rivals_per_second": {
                name: round(median(one.rivals[name] for one in self.rates if name in one.rivals))
                for name in RIVALS
                if any(name in one.rivals for one in self.rates)
            },
            "rivals_unavailable": self.unavailable,
            "idle_p50_ms": _milliseconds(quantile(self.idle, 0.5)),
            "idle_p99_ms": _milliseconds(quantile(self.idle, 0.99)),
            "healthy_p99_alone_ms": _milliseconds(alone),
            "healthy_p99_beside_hanging_ms": _milliseconds(beside),
            "healthy_p99_ratio": round(beside / alone, 2),
            "hanging_rows": HANGING_ROWS,
            "memory_in_flight": MEMORY_IN_FLIGHT,
            "resident_mib": None if self.resident_bytes is None else round(self.resident_bytes / 2**20, 1),
        }


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least that share of all values does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def _ms(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{1_000 * seconds:.3f}"


def _milliseconds(seconds: float) -> float:
    return round(1_000 * seconds, 2)


async def measure(postgresql: PostgreSQL, report: Callable[[str], None]) -> Report:
    """Measures each part with its own database and notifier."""
    with FastReceiver() as receiver:
        rates, unavailable, idle = await _throughput_and_latency(postgresql, receiver, report)
        alone, beside = await _fairness(postgresql, receiver)
        report(f"{HEALTHY} healthy endpoints beside one that hangs: measured")
        resident = await _memory(postgresql, receiver)
    return Report(rates, unavailable, idle, alone, beside, resident)


async def _bare(receiver: FastReceiver) -> tuple[float, float]:
    """Posts the same signed bodies in a loop that does nothing else; returns the rate, and the CPU of one request."""
    number = ENDPOINTS * DELIVERIES_EACH
    ids = iter([notification_id(index) for index in range(number)])

    async def post(session: aiohttp.ClientSession) -> None:
        for one in ids:
            body = body_of(one).encode()
            headers = HEADERS | signed_headers([SECRET], one, datetime.now(UTC), body)
            async with session.post(f"{receiver.url}/bare", data=body, headers=headers) as response:
                await response.read()

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        start, used = time.monotonic(), time.process_time()
        await asyncio.gather(*(post(session) for _ in range(BARE_CONCURRENCY)))
        seconds, used = time.monotonic() - start, time.process_time() - used
    await receiver.arrived(number, TIMEOUT)
    return number / seconds, used / number


async def _throughput_and_latency(
    postgresql: PostgreSQL, receiver: FastReceiver, report: Callable[[str], None]
) -> tuple[list[Rates], str, list[float]]:
    rates, unavailable = [], ""
    async with notifier_on(postgresql, "bench_notifier_rate") as (database, program):
        await database.endpoints((f"{receiver.url}/{number}", "alert.reached") for number in range(ENDPOINTS))
        await database.commit(5, "alert.reached")  # connections are made, statements prepared
        await receiver.arrived(5 * ENDPOINTS, TIMEOUT)
        for number in range(ROUNDS):
            # In turn, and close together: on a machine that others use too, each has the same luck.
            bare, bare_cpu = await _bare(receiver)
            backends = cpu.children(postgresql.postmaster_pid()) if cpu.available() else []
            before = cpu.seconds(program.pid), cpu.seconds(*backends)
            start = await database.commit(DELIVERIES_EACH, "alert.reached")
            arrivals = await receiver.arrived(ENDPOINTS * DELIVERIES_EACH, TIMEOUT)
            rate = len(arrivals) / (max(arrival.time for arrival in arrivals) - start)
            await database.finished(TIMEOUT)
            used = cpu.seconds(program.pid) - before[0], cpu.seconds(*backends) - before[1]
            each = [seconds / len(arrivals) if backends else None for seconds in used]
            rivals = {}
            for name in RIVALS:
                try:
                    rivals[name] = await _rival(postgresql, receiver, name, number)
                except Unavailable as error:
                    unavailable = str(error)
            rates.append(Rates(bare, rate, rivals, bare_cpu, *each))
            others = "".join(f"; {name}: {other:,.0f}" for name, other in rivals.items())
            report(f"deliveries/s, a bare aiohttp loop: {bare:,.0f}; the notifier: {rate:,.0f}{others}")
            loop, notifier, database_cpu = map(_ms, (bare_cpu, *each))
            report(f"CPU of one in ms, the loop: {loop}; the notifier: {notifier}; PostgreSQL: {database_cpu}")
        if unavailable:
            report(f"some rivals were not measured: {unavailable}")
        await database.endpoints([(f"{receiver.url}/idle", "bench.idle")])
        await asyncio.sleep(2.0)
        idle = await _paced(database, receiver, ["bench.idle"], IDLE_SAMPLES, 1 / IDLE_PAUSE)
    return rates, unavailable, idle


async def _rival(postgresql: PostgreSQL, receiver: FastReceiver, name: str, number: int) -> float:
    """Makes the same number of deliveries with a general job queue, on the same database server."""
    ids = [notification_id(index) for index in range(DELIVERIES_EACH)]
    url = postgresql.create_database(f"bench_{name}_{number}")
    task = Task(url, SECRET, body_of(ids[0]), BARE_CONCURRENCY, jobs(receiver, ENDPOINTS, ids))
    return await rival_rate(name, task, receiver)


async def _fairness(postgresql: PostgreSQL, receiver: FastReceiver) -> tuple[list[float], list[float]]:
    types = [f"bench.{number}" for number in range(HEALTHY)]
    samples = round(FAIR_RATE * FAIR_SECONDS)
    alone: list[float] = []
    beside: list[float] = []
    async with (
        notifier_on(postgresql, "bench_notifier_alone") as (quiet, _),
        notifier_on(postgresql, "bench_notifier_beside") as (shared, _),
    ):
        for database in (quiet, shared):
            await database.endpoints((f"{receiver.url}/{event_type}", event_type) for event_type in types)
            await _paced(database, receiver, types, FAIR_RATE, FAIR_RATE)
        await shared.endpoints([(f"{receiver.url}{HANGING}", "bench.hanging")])
        await shared.flood("bench.hanging", HANGING_ROWS)
        await receiver.arrived(1, TIMEOUT)
        for _ in range(FAIR_ROUNDS):
            # In turn, as above.
            alone += await _paced(quiet, receiver, types, samples, FAIR_RATE)
            beside += await _paced(shared, receiver, types, samples, FAIR_RATE)
    return alone, beside


async def _memory(postgresql: PostgreSQL, receiver: FastReceiver) -> int | None:
    # No organization gets all of a process's slots, and no endpoint more than four.
    concurrency = math.ceil(MEMORY_IN_FLIGHT / 0.75) + 8
    settings = {"TIDEMARK_NOTIFIER_CONCURRENCY": str(concurrency)}
    async with notifier_on(postgresql, "bench_notifier_memory", settings) as (database, program):
        number = math.ceil(MEMORY_IN_FLIGHT / 4) + 1
        await database.endpoints((f"{receiver.url}{HANGING}/{index}", "alert.reached") for index in range(number))
        await database.commit(6, "alert.reached")
        await receiver.arrived(MEMORY_IN_FLIGHT, TIMEOUT)
        memory = resident(program.pid)
        program.kill()  # there is nothing to drain for
        return memory


async def _paced(
    database: QueueDatabase, receiver: FastReceiver, types: Sequence[str], number: int, rate: float
) -> list[float]:
    """Commits single notifications of random types at random times; returns their latencies."""
    draw = random.Random(number)
    clock = time.monotonic
    times = itertools.accumulate(draw.expovariate(rate) for _ in range(number))
    begin, committed = clock(), {}
    for due in times:
        if (early := begin + due - clock()) > 0:
            await asyncio.sleep(early)
        first = database.next_number
        committed[notification_id(first)] = await database.commit(1, draw.choice(types))
    found: dict[str, Arrival] = {}
    async with asyncio.timeout(TIMEOUT):
        while len(found) < number:
            found |= {
                arrival.webhook_id: arrival for arrival in await receiver.take() if arrival.webhook_id in committed
            }
            await asyncio.sleep(0.05)
    return [arrival.time - committed[webhook_id] for webhook_id, arrival in found.items()]

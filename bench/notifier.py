"""notifier.*: how many webhooks a second one process sends, how soon, how fairly, and in how much memory."""

import asyncio
import base64
import contextlib
import itertools
import json
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import psycopg

from bench.fast_receiver import HANGING, Arrival, FastReceiver
from bench.stack import PostgreSQL
from cli.processes import Child
from notifier.sending import HEADERS
from notifier.signature import signed_headers
from store.migrate import migrate
from store.secrets import SecretBox, secret_place

ENDPOINTS = 30  # fast receivers of the throughput
DELIVERIES_EACH = 200  # to each of them
BARE_CONCURRENCY = ENDPOINTS * 4  # requests of the bare loop at a time: as many as the notifier may have
IDLE_SAMPLES = 120
IDLE_PAUSE = 0.04  # seconds between two notifications, on average
HEALTHY = 999  # endpoints beside the one that hangs
HANGING_ROWS = 100_000
FAIR_RATE = 40  # notifications a second to the healthy endpoints
FAIR_SECONDS = 6.0
MEMORY_IN_FLIGHT = 500
TIMEOUT = 120.0  # seconds for anything here to arrive

ORGANIZATION = 1_000_001
KEY = b"tidemark benchmarks, not secret!"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CHANNEL = "tidemark_outbox"


@dataclass(frozen=True)
class Report:
    """What was measured; latencies in seconds from the commit to the arrival."""

    deliveries_per_second: float
    bare_per_second: float
    idle: list[float]
    healthy_alone: list[float]
    healthy_beside: list[float]
    resident_bytes: int | None  # None where the system does not tell

    def figures(self) -> dict[str, Any]:
        """What is kept of it."""
        alone, beside = quantile(self.healthy_alone, 0.99), quantile(self.healthy_beside, 0.99)
        return {
            "deliveries_per_second": round(self.deliveries_per_second),
            "bare_aiohttp_per_second": round(self.bare_per_second),
            "ratio": round(self.deliveries_per_second / self.bare_per_second, 3),
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


def _milliseconds(seconds: float) -> float:
    return round(1_000 * seconds, 2)


async def measure(postgresql: PostgreSQL, say: Callable[[str], None]) -> Report:
    """Measures all of it, each on a database and a notifier of its own."""
    with FastReceiver() as receiver:
        before = await _bare(receiver)
        rate, idle = await _throughput_and_latency(postgresql, receiver)
        # Once more after it: on a machine that others use too, either may have had a bad moment.
        bare = max(before, await _bare(receiver))
        say(f"a bare aiohttp loop: {bare:,.0f} a second; the notifier: {rate:,.0f} a second")
        alone, beside = await _fairness(postgresql, receiver)
        say(f"{HEALTHY} healthy endpoints beside one that hangs: measured")
        resident = await _memory(postgresql, receiver)
    return Report(rate, bare, idle, alone, beside, resident)


async def _bare(receiver: FastReceiver) -> float:
    """Posts the same signed bodies from a loop that does nothing else."""
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
        start = time.monotonic()
        await asyncio.gather(*(post(session) for _ in range(BARE_CONCURRENCY)))
        seconds = time.monotonic() - start
    await receiver.arrived(number, TIMEOUT)
    return number / seconds


async def _throughput_and_latency(postgresql: PostgreSQL, receiver: FastReceiver) -> tuple[float, list[float]]:
    async with _notifier(postgresql, "bench_notifier_rate") as (database, _):
        await database.endpoints((f"{receiver.url}/{number}", "alert.reached") for number in range(ENDPOINTS))
        await database.commit(5, "alert.reached")  # connections are made, statements prepared
        await receiver.arrived(5 * ENDPOINTS, TIMEOUT)
        start = await database.commit(DELIVERIES_EACH, "alert.reached")
        arrivals = await receiver.arrived(ENDPOINTS * DELIVERIES_EACH, TIMEOUT)
        rate = len(arrivals) / (max(arrival.time for arrival in arrivals) - start)
        await database.endpoints([(f"{receiver.url}/idle", "bench.idle")])
        await asyncio.sleep(2.0)
        idle = await _paced(database, receiver, ["bench.idle"], IDLE_SAMPLES, 1 / IDLE_PAUSE)
    return rate, idle


async def _fairness(postgresql: PostgreSQL, receiver: FastReceiver) -> tuple[list[float], list[float]]:
    async with _notifier(postgresql, "bench_notifier_fair") as (database, _):
        types = [f"bench.{number}" for number in range(HEALTHY)]
        await database.endpoints((f"{receiver.url}/{event_type}", event_type) for event_type in types)
        samples = round(FAIR_RATE * FAIR_SECONDS)
        await _paced(database, receiver, types, FAIR_RATE, FAIR_RATE)
        alone = await _paced(database, receiver, types, samples, FAIR_RATE)
        await database.endpoints([(f"{receiver.url}{HANGING}", "bench.hanging")])
        await database.flood("bench.hanging", HANGING_ROWS)
        await receiver.arrived(1, TIMEOUT)
        beside = await _paced(database, receiver, types, samples, FAIR_RATE)
    return alone, beside


async def _memory(postgresql: PostgreSQL, receiver: FastReceiver) -> int | None:
    # No organization gets all of a process's slots, and no endpoint more than four.
    concurrency = math.ceil(MEMORY_IN_FLIGHT / 0.75) + 8
    settings = {"TIDEMARK_NOTIFIER_CONCURRENCY": str(concurrency)}
    async with _notifier(postgresql, "bench_notifier_memory", settings) as (database, child):
        number = math.ceil(MEMORY_IN_FLIGHT / 4) + 1
        await database.endpoints((f"{receiver.url}{HANGING}/{index}", "alert.reached") for index in range(number))
        await database.commit(6, "alert.reached")
        await receiver.arrived(MEMORY_IN_FLIGHT, TIMEOUT)
        resident = _resident(child.process.pid)
        child.process.kill()  # there is nothing to drain for
        return resident


def _resident(pid: int) -> int | None:
    """The bytes of memory that a process has in use; None where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) * 1024


async def _paced(
    database: "_Database", receiver: FastReceiver, types: Sequence[str], number: int, rate: float
) -> list[float]:
    """Commits single notifications of random types at random moments; returns how long each took to arrive."""
    draw = random.Random(number)
    clock = time.monotonic
    moments = itertools.accumulate(draw.expovariate(rate) for _ in range(number))
    begin, committed = clock(), {}
    for moment in moments:
        if (early := begin + moment - clock()) > 0:
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


def notification_id(number: int) -> str:
    """The id of the notification of that number."""
    return f"ntf_{number:026d}"


def body_of(one: str) -> str:
    """A body as long as an alert's."""
    return json.dumps({"id": one, "type": "alert.reached", "data": {"alert": "a" * 400, "transitions": "t" * 400}})


class _Database:
    """What the evaluator and the service would write, written without them."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._box = SecretBox([("bench", KEY)])
        self.next_number = 1
        self._endpoints = itertools.count(1)

    async def endpoints(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Creates endpoints: URLs and the event type that each wants."""
        async with self._connection.transaction():
            for url, event_type in wanted:
                endpoint_id = f"whe_{next(self._endpoints):026d}"
                await self._connection.execute(
                    "INSERT INTO endpoint (organization_id, endpoint_id, url, event_types, state, create_time)"
                    " VALUES (%s, %s, %s, %s, 'ENABLED', now())",
                    (ORGANIZATION, endpoint_id, url, [event_type]),
                )
                sealed = self._box.seal(SECRET.encode(), secret_place(ORGANIZATION, endpoint_id, 1))
                await self._connection.execute(
                    "INSERT INTO endpoint_secret"
                    " (organization_id, endpoint_id, sequence, ciphertext, key_id, create_time)"
                    " VALUES (%s, %s, 1, %s, 'bench', now())",
                    (ORGANIZATION, endpoint_id, sealed),
                )

    async def commit(self, number: int, event_type: str) -> float:
        """Commits notifications with their outbox rows; returns when they were committed."""
        await self._write(number, event_type)
        return time.monotonic()

    async def flood(self, event_type: str, number: int) -> None:
        """Commits deliveries to the endpoint that wants that type, as a fan-out long ago would have left them."""
        first = self.next_number
        await self._write(number, event_type, deliveries=True)
        assert self.next_number == first + number
        await self._connection.execute("ANALYZE")

    async def _write(self, number: int, event_type: str, *, deliveries: bool = False) -> None:
        rows = [(notification_id(self.next_number + index), event_type) for index in range(number)]
        self.next_number += number
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            async with cursor.copy(
                "COPY notification (organization_id, customer_id, notification_id, alert_id, gauge_id, sequence,"
                " event_type, condition_type, create_time, body) FROM STDIN"
            ) as copy:
                now = datetime.now(UTC)
                for one, kind in rows:
                    gauge = "00000000-0000-0000-0000-000000000000"
                    await copy.write_row(
                        (ORGANIZATION, "bench", one, "alt_1", gauge, 1, kind, "usage", now, body_of(one))
                    )
            if deliveries:
                await cursor.execute(
                    "INSERT INTO delivery (organization_id, delivery_id, endpoint_id, notification_id, customer_id,"
                    " event_type, status, create_time, next_attempt_time)"
                    " SELECT organization_id, 'whd_' || substr(notification_id, 5), endpoint_id, notification_id,"
                    " customer_id, event_type, 'PENDING', now(), now() - interval '1 hour'"
                    " FROM notification JOIN endpoint USING (organization_id)"
                    " WHERE event_type = %s AND event_type = ANY (event_types)",
                    (event_type,),
                )
            else:
                await cursor.execute(
                    "INSERT INTO outbox (organization_id, customer_id, notification_id, event_type, condition_type,"
                    " create_time) SELECT %s, 'bench', unnest(%s::text[]), %s, 'usage', now()",
                    (ORGANIZATION, [one for one, _ in rows], event_type),
                )
            await cursor.execute(f"NOTIFY {CHANNEL}".encode())


@asynccontextmanager
async def _notifier(
    postgresql: PostgreSQL, name: str, settings: dict[str, str] | None = None
) -> AsyncIterator[tuple[_Database, Child]]:
    """A notifier process on a new database of that name."""
    url = postgresql.create_database(name)
    await asyncio.to_thread(migrate, url)
    keys = {"TIDEMARK_SECRET_KEYS": f"bench:{base64.b64encode(KEY).decode()}", "TIDEMARK_DRAIN_TIMEOUT_SECONDS": "1"}
    async with contextlib.AsyncExitStack() as exits:
        connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
        exits.push_async_callback(connection.close)
        child = await postgresql.notifier(exits, url, keys | (settings or {}))
        yield _Database(connection), child

"""gateway: what a call costs over HTTP and JSON beside gRPC, CloudEvents, and the memory of idle streams."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
from rich.table import Table

from bench.support import cpu, memory
from bench.support.sending import channel, create_alerts
from bench.support.stack import PostgreSQL
from generated.tidemark.v1 import alert_pb2, alert_service_pb2, scope_pb2, threshold_pb2, usage_pb2
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub

ROUNDS = 10  # of each kind of calls, in turn: other work of the machine meets all kinds
CALLS = 150  # of a round, one after the other
WARM_UP = 200
BATCH_ROUNDS = 4
SIZES = (100, 1_000)  # events of a batch
SENDERS = 4  # callers that send batches at the same time, each one after the other
SECONDS = 2.0  # of batches of each kind and size, in a round
CUSTOMERS = 200
STREAMS = 1_000
SETTLED = 3.0  # seconds until streams are idle
SETTINGS = {
    "TIDEMARK_HTTP_LISTEN": "127.0.0.1:0",
    "TIDEMARK_ORGANIZATION_WATCHERS": "2000",
    "TIDEMARK_MAX_WATCHERS": "4000",
    "TIDEMARK_MAX_CONNECTIONS": "5000",
    "TIDEMARK_LOG_LEVEL": "warning",
}
CLOUD, JSON, GRPC = "CloudEvents", "HTTP and JSON", "gRPC"
_BATCH = {"Content-Type": "application/cloudevents-batch+json"}


@dataclass(frozen=True)
class Calls:
    """Calls of one kind: the seconds of each, and the CPU time of the server for all."""

    seconds: Sequence[float]
    server_cpu: float

    @property
    def cpu_of_call(self) -> float:
        """Microseconds of the server's CPU."""
        return self.server_cpu / len(self.seconds) * 1e6


@dataclass(frozen=True)
class Batches:
    """Batches of one kind and size."""

    kind: str
    size: int
    events: int
    seconds: float
    server_cpu: float

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    @property
    def cpu_of_event(self) -> float:
        """Microseconds of the server's CPU."""
        return self.server_cpu / self.events * 1e6


@dataclass(frozen=True)
class Report:
    """calls: by kind. stream_bytes: of the server's memory, for each idle stream of events."""

    calls: Mapping[str, Calls]
    batches: Sequence[Batches]
    stream_bytes: float | None

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        one, other = self.calls[JSON], self.calls[GRPC]
        return {
            "unary": {
                kind: {
                    "p50_ms": round(statistics.median(found.seconds) * 1_000, 3),
                    "server_cpu_us": round(found.cpu_of_call, 1),
                }
                for kind, found in self.calls.items()
            },
            "unary_http_to_grpc": {
                "p50": round(statistics.median(one.seconds) / statistics.median(other.seconds), 2),
                "server_cpu": round(one.cpu_of_call / other.cpu_of_call, 2),
            },
            "batches": [
                {
                    "kind": found.kind,
                    "events_of_a_batch": found.size,
                    "events_per_second": round(found.rate),
                    "server_cpu_us_per_event": round(found.cpu_of_event, 1),
                }
                for found in self.batches
            ],
            "idle_streams": STREAMS,
            "bytes_of_an_idle_stream": None if self.stream_bytes is None else round(self.stream_bytes),
        }

    def table(self) -> Table:
        """The figures as a table for people."""
        table = Table(title="HTTP and JSON beside gRPC")
        for name in ("benchmark", "p50, ms", "events/s", "server CPU, µs"):
            table.add_column(name, justify="left" if name == "benchmark" else "right")
        for kind, found in self.calls.items():
            p50 = f"{statistics.median(found.seconds) * 1_000:.2f}"
            table.add_row(f"GetAlert, {kind}", p50, "", f"{found.cpu_of_call:.0f} a call")
        for batch in self.batches:
            name = f"batches of {batch.size:,}, {batch.kind}"
            table.add_row(name, "", f"{batch.rate:,.0f}", f"{batch.cpu_of_event:.1f} an event")
        if self.stream_bytes is not None:
            table.add_row(f"{STREAMS:,} idle streams of events", "", "", f"{self.stream_bytes / 1024:.1f} KiB each")
        return table


async def measure(postgresql: PostgreSQL, say: Callable[[str], None]) -> Report:
    """Measures a server on a database of its own."""
    url = postgresql.create_database("gateway")
    async with contextlib.AsyncExitStack() as exits:
        server = await postgresql.server(exits, url, SETTINGS)
        address, base, pid = server.address.server, server.http, server.pid
        await create_alerts(address, [_alert()])
        over = await exits.enter_async_context(channel(address))
        session = await exits.enter_async_context(aiohttp.ClientSession(base))
        stub = AlertServiceStub(over)
        say("unary calls")
        calls = await _unary(stub, session, pid)
        batches = []
        numbers = iter(range(10**9))
        for size in SIZES:
            say(f"batches of {size:,}")
            rounds: dict[str, list[Batches]] = {}
            for _ in range(BATCH_ROUNDS):
                for kind, send in _senders(stub, session).items():
                    rounds.setdefault(kind, []).append(await _batches(kind, size, send, numbers, pid))
            batches += [_together(found) for found in rounds.values()]
        say(f"{STREAMS:,} idle streams")
        return Report(calls, batches, await _stream_bytes(base, pid))


def _alert() -> alert_pb2.Alert:
    alert = alert_pb2.Alert(
        display_name="calls",
        scope=scope_pb2.AlertScope(all_customers=scope_pb2.AllCustomersScope()),
        thresholds=[threshold_pb2.Threshold(value="1000000000")],
    )
    alert.usage_threshold_reached.metric_id = "calls"
    return alert


async def _unary(stub: AlertServiceStub, session: aiohttp.ClientSession, pid: int) -> Mapping[str, Calls]:
    listed = await stub.ListAlerts(alert_service_pb2.ListAlertsRequest())
    alert_id = listed.alerts[0].alert_id
    request = alert_service_pb2.GetAlertRequest(alert_id=alert_id)

    async def over_grpc() -> None:
        await stub.GetAlert(request)

    async def over_http() -> None:
        async with session.get(f"/v1/alerts/{alert_id}") as response:
            assert orjson.loads(await response.read())["alert"]["alertId"] == alert_id

    kinds = {GRPC: over_grpc, JSON: over_http}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    used = dict.fromkeys(kinds, 0.0)
    for call in kinds.values():
        for _ in range(WARM_UP):
            await call()
    for _ in range(ROUNDS):
        for kind, call in kinds.items():
            before = cpu.seconds(pid)
            for _ in range(CALLS):
                began = time.perf_counter()
                await call()
                seconds[kind].append(time.perf_counter() - began)
            used[kind] += cpu.seconds(pid) - before
    return {kind: Calls(seconds[kind], used[kind]) for kind in kinds}


Send = Callable[[Sequence[int]], Awaitable[None]]


def _senders(stub: AlertServiceStub, session: aiohttp.ClientSession) -> Mapping[str, Send]:
    now = datetime.now(UTC)
    text = now.isoformat()

    async def cloud(numbers: Sequence[int]) -> None:
        body = orjson.dumps(
            [
                {
                    "specversion": "1.0",
                    "id": f"c-{number}",
                    "source": "/bench",
                    "type": "calls",
                    "subject": f"customer-{number % CUSTOMERS}",
                    "time": text,
                    "data": {"quantity": "1", "model": "large"},
                }
                for number in numbers
            ]
        )
        async with session.post("/v1/events", data=body, headers=_BATCH) as response:
            assert orjson.loads(await response.read())["accepted"] == len(numbers)

    async def plain(numbers: Sequence[int]) -> None:
        events = [
            {
                "eventId": f"h-{number}",
                "customerId": f"customer-{number % CUSTOMERS}",
                "metricId": "calls",
                "quantity": "1",
                "eventTime": text,
                "properties": {"model": "large"},
            }
            for number in numbers
        ]
        headers = {"Content-Type": "application/json"}
        body = orjson.dumps({"batch": {"events": events}})
        async with session.post("/v1/usage:evaluate", data=body, headers=headers) as response:
            assert orjson.loads(await response.read())["outcome"]["accepted"] == len(numbers)

    async def grpc_batch(numbers: Sequence[int]) -> None:
        batch = usage_pb2.UsageBatch()
        for number in numbers:
            event = batch.events.add(
                event_id=f"g-{number}",
                customer_id=f"customer-{number % CUSTOMERS}",
                metric_id="calls",
                quantity="1",
                properties={"model": "large"},
            )
            event.event_time.FromDatetime(now)
        answer = await stub.EvaluateUsageBatch(alert_service_pb2.EvaluateUsageBatchRequest(batch=batch))
        assert answer.outcome.accepted == len(numbers)

    return {GRPC: grpc_batch, JSON: plain, CLOUD: cloud}


async def _batches(kind: str, size: int, send: Send, numbers: Any, pid: int) -> Batches:
    events, end = 0, 0.0

    async def sender() -> None:
        nonlocal events
        while time.perf_counter() < end:
            await send([next(numbers) for _ in range(size)])
            events += size

    await send([next(numbers) for _ in range(size)])
    before, began = cpu.seconds(pid), time.perf_counter()
    end = began + SECONDS
    await asyncio.gather(*(sender() for _ in range(SENDERS)))
    return Batches(kind, size, events, time.perf_counter() - began, cpu.seconds(pid) - before)


def _together(rounds: Sequence[Batches]) -> Batches:
    return Batches(
        rounds[0].kind,
        rounds[0].size,
        sum(one.events for one in rounds),
        sum(one.seconds for one in rounds),
        sum(one.server_cpu for one in rounds),
    )


async def _stream_bytes(base: str, pid: int) -> float | None:
    """The memory of the server for each idle stream of notifications."""
    before = memory.of(pid)
    if before is None:
        return None
    async with _streams(base, 10):  # what the first ones need once
        await asyncio.sleep(SETTLED)
    before = memory.of(pid)
    async with _streams(base, STREAMS):
        await asyncio.sleep(SETTLED)
        after = memory.of(pid)
    assert before is not None
    assert after is not None
    return (after.resident - before.resident) / STREAMS


@asynccontextmanager
async def _streams(base: str, number: int) -> AsyncIterator[None]:
    """So many streams of events, each of which has sent its first heartbeat."""
    address = urlsplit(base)
    head = f"GET /v1/notifications:watch HTTP/1.1\r\nHost: {address.netloc}\r\nAccept: text/event-stream\r\n\r\n"
    opened: list[asyncio.StreamWriter] = []
    try:
        for _ in range(number):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            opened.append(writer)
            writer.write(head.encode())
            await reader.readuntil(b": heartbeat")
        yield
    finally:
        for writer in opened:
            writer.close()

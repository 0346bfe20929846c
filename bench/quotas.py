"""quotas: what calls and usage cost an organization with quotas beside one without, by the number of its alerts."""

import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import grpc
import psycopg
from rich.table import Table
from sqlalchemy import delete

from bench.rules import requests
from bench.rules.servers import copy_alert, copy_customer
from bench.support import load
from bench.support.access import Access
from bench.support.client import Client
from bench.support.figures import milliseconds
from bench.support.full_speed import Send
from bench.support.load import DENSE, Load
from bench.support.sending import TIMEOUT, channel, check, create_alerts, evaluate_usage
from bench.support.stack import PostgreSQL
from evaluator.events import UsageEvent
from generated.tidemark.v1 import (
    account_service_pb2,
    alert_service_pb2,
    alert_service_pb2_grpc,
    endpoint_pb2,
    webhook_service_pb2,
    webhook_service_pb2_grpc,
)
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from store.alerts import counts
from store.identity import organizations
from store.postgres.database import Database
from store.tables.quotas import alert_count

SIZES = (10, 1_000, 100_000)  # alerts of the organization
ROUNDS = 3
CALLS = 50  # of a kind in a round
COUNTS = 20
EVENTS = DENSE.events // 2  # of a round
_HIGH = 10**9
# Far above what the benchmark does: what is measured is the check, not the refusal.
_QUOTAS = {
    f"TIDEMARK_QUOTA_{kind}": str(_HIGH)
    for kind in ("ALERTS", "ENDPOINTS", "STREAMS", "WATCHERS", "EVENTS_PER_SECOND", "BYTES_PER_SECOND")
}
_KINDS = {
    "alert": "CreateAlert",
    "endpoint": "CreateEndpoint",
    "stream": "open a usage stream, first answer",
    "shown": "GetQuotas",
}


@dataclass
class Side:
    """The organization with quotas, or the one without. took: seconds of each call, by
    kind. rates: events a second.
    """

    server: str
    url: str
    took: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in _KINDS})
    rates: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Size:
    """What was measured with so many alerts. counted: seconds of the first count of all alerts, in the database."""

    alerts: int
    without: Side
    limited: Side
    counted: Sequence[float]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        found: dict[str, Any] = {"alerts": self.alerts, "first_count_p50_ms": milliseconds(self.counted, 0.5)}
        for name, side in (("without", self.without), ("with", self.limited)):
            for kind in _KINDS:
                for share in (0.5, 0.99):
                    found[f"{kind}_{name}_p{round(100 * share)}_ms"] = milliseconds(side.took[kind], share)
            found[f"events_per_second_{name}"] = [round(rate) for rate in side.rates]
        found["events_ratio"] = round(self.events_ratio(), 3)
        return found

    def events_ratio(self) -> float:
        """The median, over the rounds, of the rate with quotas ÷ that without."""
        pairs = zip(self.limited.rates, self.without.rates, strict=True)
        return statistics.median(limited / without for limited, without in pairs)


@dataclass(frozen=True)
class Report:
    """All sizes."""

    sizes: Sequence[Size]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {"sizes": [one.figures() for one in self.sizes], "rounds": ROUNDS, "calls_of_a_round": CALLS}

    def table(self) -> Table:
        """The figures for people."""
        table = Table(title="quotas: p50 / p99 without → with")
        table.add_column("figure")
        for one in self.sizes:
            table.add_column(f"{one.alerts:,} alerts", justify="right", no_wrap=True)
        for kind, name in _KINDS.items():
            table.add_row(name, *(f"{_shown(one.without, kind)} → {_shown(one.limited, kind)}" for one in self.sizes))
        table.add_row("events a second, with ÷ without", *(f"{one.events_ratio():.2f}" for one in self.sizes))
        name = "the first count of all alerts, in the database"
        table.add_row(name, *(f"{milliseconds(one.counted, 0.5)} ms" for one in self.sizes))
        return table


def _shown(side: Side, kind: str) -> str:
    took = side.took[kind]
    return f"{milliseconds(took, 0.5)} / {milliseconds(took, 0.99)} ms"


async def measure(postgresql: PostgreSQL, report: Callable[[str], None]) -> Report:
    """Measures each size on two servers, with databases of their own."""
    sizes = []
    with Client() as client:
        for alerts in SIZES:
            sizes.append(await _size(postgresql, client, alerts))
            report(f"{alerts:,} alerts: {sizes[-1].figures()}")
    return Report(sizes)


async def _size(postgresql: PostgreSQL, client: Client, alerts: int) -> Size:
    async with (
        _side(postgresql, f"bench_quotas_{alerts}", alerts, {}) as without,
        _side(postgresql, f"bench_quotas_{alerts}_with", alerts, _QUOTAS) as limited,
    ):
        counted = await _counts(limited.url)
        for number in range(ROUNDS + 1):
            if number == 1:  # the round before was a warm-up
                for side in (without, limited):
                    side.took, side.rates = {kind: [] for kind in _KINDS}, []
            for side in (without, limited) if number % 2 else (limited, without):
                await _calls(side, number)
                usage = Load(f"round-{number}", DENSE.gauges, EVENTS, load.now())
                sent = await (await client.prepare(Send(Access(side.server), usage, usage.gauges)))()
                side.rates.append(sent.accepted / sent.seconds)
    return Size(alerts, without, limited, counted)


@asynccontextmanager
async def _side(postgresql: PostgreSQL, name: str, alerts: int, settings: dict[str, str]) -> AsyncIterator[Side]:
    """A server with those settings, whose organization has so many alerts of single customers, and one of all."""
    url = postgresql.create_database(name)
    async with contextlib.AsyncExitStack() as exits:
        program = await postgresql.server(exits, url, settings)
        async with channel(program.address.server) as over:
            await _open_stream(over, "first")
        await create_alerts(program.address.server, [requests.for_all(), requests.for_customer(0)])
        await program.stop()
        with psycopg.connect(url) as connection:
            copy_alert(connection, alerts - 1)
            copy_customer(connection, 2, alerts)
            connection.execute("DELETE FROM alert_count")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")
        await program.start()
        yield Side(program.address.server, url)


async def _counts(url: str) -> list[float]:
    """The durations of the first count of the alerts, each forgotten again."""
    database, took = Database(url, pool_size=1), list[float]()
    try:
        for _ in range(COUNTS):
            async with database.transaction() as connection:
                organization_id = await organizations.find(connection, organizations.DEFAULT_ORGANIZATION)
                assert organization_id is not None
                started = time.perf_counter()
                await counts.current(connection, organization_id)
                took.append(time.perf_counter() - started)
                await connection.execute(delete(alert_count))  # so that the next one counts again
    finally:
        await database.close()
    return took


async def _calls(side: Side, number: int) -> None:
    """One call of each kind after the other, CALLS times."""
    async with channel(side.server) as over:
        alerts = alert_service_pb2_grpc.AlertServiceStub(over)
        webhooks = webhook_service_pb2_grpc.WebhookServiceStub(over)
        accounts = AccountServiceStub(over)
        for index in range(CALLS):
            customer = _HIGH + number * CALLS + index  # one without another alert
            alert = alert_service_pb2.CreateAlertRequest(alert=requests.for_customer(customer))
            await _timed(side, "alert", alerts.CreateAlert(alert, timeout=TIMEOUT))
            endpoint = endpoint_pb2.Endpoint(url=f"https://hooks.example.com/{index}")
            created = await _timed(
                side,
                "endpoint",
                webhooks.CreateEndpoint(
                    webhook_service_pb2.CreateEndpointRequest(endpoint=endpoint), timeout=TIMEOUT
                ),
            )
            gone = webhook_service_pb2.DeleteEndpointRequest(endpoint_id=created.endpoint.endpoint_id)
            await webhooks.DeleteEndpoint(gone, timeout=TIMEOUT)
            await _timed(side, "stream", _open_stream(over, f"{number}-{index}"))
            request = account_service_pb2.GetQuotasRequest()
            await _timed(side, "shown", accounts.GetQuotas(request, timeout=TIMEOUT))


async def _timed(side: Side, kind: str, call: Awaitable[Any]) -> Any:
    started = time.perf_counter()
    answer = await call
    side.took[kind].append(time.perf_counter() - started)
    return answer


async def _open_stream(over: grpc.aio.Channel, event_id: str) -> None:
    """Opens a stream, gets the answer to one event, and ends the stream."""
    time_of_event = load.now() - timedelta(seconds=1)
    event = UsageEvent(event_id, load.customer(0), time_of_event, load.METRIC, Decimal(1), None, None, None, {})
    call = evaluate_usage(over)
    await call.write(load.messages([event], 1)[0])
    answer = await call.read()
    assert isinstance(answer, alert_service_pb2.EvaluateUsageResponse)
    check(answer)
    await call.done_writing()
    await call.read()

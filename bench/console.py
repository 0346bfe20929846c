"""console: how long the pages of the console take, by the number of customers and alerts of the organization.

Each customer has usage, an alert of its own, and is in alarm of an alert of all, which has notified about it to an
endpoint that is away.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import aiohttp
import grpc
import psycopg
from rich.table import Table

from bench.rules import requests
from bench.rules.servers import copy_alert, copy_customer
from bench.support import load
from bench.support.figures import milliseconds
from bench.support.sending import TIMEOUT, channel, check, create_alerts, evaluate_usage
from bench.support.stack import PostgreSQL
from console.pages import overview
from console.process import Listening, Server, running
from evaluator.events import UsageEvent
from generated.tidemark.v1.account_service_pb2 import PutCustomerRequest
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageResponse, ListAlertsRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.customer_pb2 import Customer
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.webhook_service_pb2 import CreateEndpointRequest
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import SystemClock

SIZES = (10, 1_000, 100_000)  # customers, each with an alert of its own, beside one alert of all
WARM, MEASURED = 3, 25  # requests of each page
EVENTS = 1_000_000  # of one customer, where the organization is largest; otherwise a hundredth
WEBHOOKS = {"TIDEMARK_WEBHOOK_ALLOW_HTTP": "1", "TIDEMARK_WEBHOOK_ALLOW_CIDRS": "127.0.0.0/8"}
VIEWERS, VIEWS = 50, 4  # of the overview at the same time; requests of each

_ALONE = "overview of one viewer"
_PAGES = {
    _ALONE: "/",
    "overview, shared": "/",
    "customers": "/customers",
    "customers, by prefix": "/customers?q={customer}",
    "one customer": "/customer?id={customer}",
    "alerts": "/alerts",
    "alerts of one customer": "/alerts?customer={customer}",
    "alerts by name": "/alerts?q=of+one",
    "alert of all, in alarm": "/alerts/{alarming}",
    "alert of all, out of reach": "/alerts/{alert}",
    "explain": "/explain?alert={alarming}&customer={customer}",
    "notifications": "/notifications",
    "notifications of one customer": "/notifications?customer={customer}",
    "one notification": "/notifications/{notification}",
    "endpoints": "/endpoints",
    "one endpoint": "/endpoints/{endpoint}",
}
BATCH = 1_000  # events of a message

_LIFETIMES = overview.LIVE, overview.SLOW

# One customer's events of the last days, as a replay would have stored them.
_FILL = """
INSERT INTO event (organization_id, customer_id, event_id, event_time, ingest_time, metric_id, quantity)
SELECT o.organization_id, %(customer)s, 'bench-' || n, now() - (n %% 40000) * interval '1 second', now(),
    %(metric)s, 1
FROM organization o, generate_series(1, %(events)s) AS n
WHERE o.name = 'default'
"""


@dataclass(frozen=True)
class Size:
    """What was measured with so many customers. took: seconds of each request, by page. views: a second, shared."""

    customers: int
    events: int
    took: dict[str, list[float]]
    views: float

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        pages = {
            name: {"p50_ms": milliseconds(took, 0.5), "p95_ms": milliseconds(took, 0.95)}
            for name, took in self.took.items()
        }
        return {
            "customers": self.customers,
            "events_of_one": self.events,
            "pages": pages,
            "live_views_per_second": round(self.views),
        }


@dataclass(frozen=True)
class Report:
    """All sizes."""

    sizes: Sequence[Size]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {"sizes": [one.figures() for one in self.sizes], "requests_of_a_page": MEASURED, "viewers": VIEWERS}

    def table(self) -> Table:
        """The figures for people."""
        table = Table(title="console: p50 / p95 of a page")
        table.add_column("page")
        for one in self.sizes:
            table.add_column(f"{one.customers:,} customers and alerts", justify="right")
        for name in _PAGES:
            shown = [
                f"{milliseconds(one.took[name], 0.5)} / {milliseconds(one.took[name], 0.95)} ms" for one in self.sizes
            ]
            table.add_row(name, *shown)
        table.add_row(f"live parts a second, {VIEWERS} viewers", *(f"{one.views:,.0f}" for one in self.sizes))
        return table


async def measure(postgresql: PostgreSQL, report: Callable[[str], None]) -> Report:
    """Measures each size on a server and a database of its own."""
    sizes = []
    for customers in SIZES:
        events = EVENTS if customers == max(SIZES) else EVENTS // 100
        async with _console(postgresql, customers, events) as (base, names):
            sizes.append(await _size(base, customers, events, names))
        report(f"{customers:,} customers: {sizes[-1].figures()}")
    return Report(sizes)


async def _size(base: str, customers: int, events: int, names: dict[str, str]) -> Size:
    took: dict[str, list[float]] = {}
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        for name, path in _PAGES.items():
            url = base + path.format(customer=load.customer(0), **names)
            took[name] = []
            overview.LIVE, overview.SLOW = (0.0, 0.0) if name == _ALONE else _LIFETIMES
            for number in range(WARM + MEASURED):
                started = time.perf_counter()
                async with session.get(url) as answer:
                    text = await answer.text()
                if answer.status != 200:
                    raise RuntimeError(f"{url} answered {answer.status}: {text[-800:]}")
                if number >= WARM:
                    took[name].append(time.perf_counter() - started)
        started = time.perf_counter()
        await asyncio.gather(*(_view(session, base) for _ in range(VIEWERS)))
        views = VIEWERS * VIEWS / (time.perf_counter() - started)
    return Size(customers, events, took, views)


async def _view(session: aiohttp.ClientSession, base: str) -> None:
    for _ in range(VIEWS):
        async with session.get(f"{base}/overview/live") as answer:
            await answer.read()


@asynccontextmanager
async def _console(postgresql: PostgreSQL, customers: int, events: int) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """A console of such a server: its address, and the ids in the addresses of its pages."""
    url = postgresql.create_database(f"bench_console_{customers}")
    async with contextlib.AsyncExitStack() as exits:
        program = await postgresql.server(exits, url, WEBHOOKS)
        async with channel(program.address.server) as over:
            customer = Customer(customer_id=load.customer(0))
            await AccountServiceStub(over).PutCustomer(PutCustomerRequest(customer=customer), timeout=TIMEOUT)
            endpoint = CreateEndpointRequest(endpoint=Endpoint(url="http://127.0.0.1:1025/away"))
            created = await WebhookServiceStub(over).CreateEndpoint(endpoint, timeout=TIMEOUT)
        definitions = [requests.for_all(), load.crossing_alert(), requests.for_customer(0)]
        await create_alerts(program.address.server, definitions)
        await program.stop()
        with psycopg.connect(url) as connection:
            copy_customer(connection, 1, customers)
            copy_alert(connection, customers - 1)
        await program.start()
        async with channel(program.address.server) as over:
            await _send(over, customers)
            alarming, quiet = await _id(over, "every unit"), await _id(over, "of all")
        with psycopg.connect(url) as connection:
            parameters = {"customer": load.customer(0), "metric": load.METRIC, "events": events}
            connection.execute(_FILL, parameters)
            notified = connection.execute("SELECT min(notification_id), count(*) FROM notification").fetchone()
        assert notified is not None
        assert notified[1] == customers, "each customer is in alarm"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")
        server = Server(program.address.server)
        port = await exits.enter_async_context(running(server, Listening("127.0.0.1", 0), SystemClock()))
        yield (
            f"http://127.0.0.1:{port}",
            {
                "alert": quiet,
                "alarming": alarming,
                "notification": notified[0],
                "endpoint": created.endpoint.endpoint_id,
            },
        )


async def _id(over: grpc.aio.Channel, name: str) -> str:
    """The id of an alert."""
    request = ListAlertsRequest(display_name_prefix=name, page_size=1)
    answer = await AlertServiceStub(over).ListAlerts(request, timeout=TIMEOUT)
    return answer.alerts[0].alert_id


async def _send(over: grpc.aio.Channel, customers: int) -> None:
    """An event of each customer for the gauge of its own alert, and one that crosses."""
    now = load.now()
    events = [
        UsageEvent(f"{metric}-{number}", load.customer(number), now, metric, Decimal(1), None, None, None, {})
        for number in range(customers)
        for metric in (load.METRIC, load.CROSSING_METRIC)
    ]
    call = evaluate_usage(over)
    for message in load.messages(events, BATCH):
        await call.write(message)
        answer = await call.read()
        assert isinstance(answer, EvaluateUsageResponse)
        check(answer)
    await call.done_writing()

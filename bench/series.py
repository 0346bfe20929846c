"""series: how long the curves of gauges and balances take, by the number of events and entries behind them."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
from rich.table import Table

from bench.rules import requests
from bench.support import load
from bench.support.figures import milliseconds
from bench.support.sending import TIMEOUT, channel, create_alerts
from bench.support.stack import PostgreSQL
from generated.tidemark.v1 import account_service_pb2 as accounts
from generated.tidemark.v1 import alert_pb2, balance_pb2, customer_pb2
from generated.tidemark.v1 import alert_service_pb2 as alerts
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.billing_period_pb2 import CADENCE_MONTH, CADENCE_YEAR
from generated.tidemark.v1.limit_service_pb2 import ReserveUsageRequest
from generated.tidemark.v1.limit_service_pb2_grpc import LimitServiceStub
from generated.tidemark.v1.requested_usage_pb2 import RequestedUsage
from store.postgres import partitions
from store.postgres.database import Database

SIZES = (10, 1_000, 100_000, 1_000_000)  # events of a customer in its period, or entries of a balance
YEARS = 10  # the longest period, with a partition for each of its months
RESERVATIONS = 1_000  # open ones of each customer, for alerts that count what is held
WARM, MEASURED = 1, 9  # requests of each row
MOST_POINTS = 500

_EVENTS = """
INSERT INTO event (organization_id, customer_id, event_id, event_time, ingest_time, metric_id, quantity)
SELECT o.organization_id, %(customer)s, 'bench-' || n,
    now() - (1 + (n * 7919::bigint) %% %(seconds)s) * interval '1 second', now(), %(metric)s, 1
FROM organization o, generate_series(1, %(events)s) AS n
WHERE o.name = 'default'
"""

_ENTRIES = """
INSERT INTO balance_entry (
    organization_id, customer_id, balance_id, segment_number, entry_type, amount, remaining, create_time
)
SELECT b.organization_id, b.customer_id, b.balance_id, 0, 'DRAW', -1, 0, now() + n * interval '1 microsecond'
FROM balance b, generate_series(1, %(entries)s) AS n
WHERE b.customer_id = %(customer)s
"""


@dataclass(frozen=True)
class Row:
    """One row. took: seconds of each request. read: events that were read. size: bytes of an answer."""

    name: str
    count: int
    took: Sequence[float]
    read: int
    size: int

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        times = {"p50_ms": milliseconds(self.took, 0.5), "p95_ms": milliseconds(self.took, 0.95)}
        return {"row": self.name, "count": self.count, **times, "read": self.read, "answer_bytes": self.size}


@dataclass(frozen=True)
class Report:
    """All rows."""

    rows: Sequence[Row]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {"rows": [one.figures() for one in self.rows], "points": MOST_POINTS, "requests_of_a_row": MEASURED}

    def table(self) -> Table:
        """The figures for people."""
        table = Table(title=f"series: p50 / p95 of an answer with at most {MOST_POINTS} points")
        for name in ("course of", "events or entries", "p50 / p95", "read", "KB"):
            table.add_column(name, justify="left" if name == "course of" else "right")
        for one in self.rows:
            took = f"{milliseconds(one.took, 0.5)} / {milliseconds(one.took, 0.95)} ms"
            read = f"{one.read:,}" if one.read else ""
            table.add_row(one.name, f"{one.count:,}", took, read, f"{one.size / 1000:.0f}")
        return table


async def measure(postgresql: PostgreSQL, report: Callable[[str], None]) -> Report:
    """Measures all rows on one server."""
    url = postgresql.create_database("bench_series")
    async with contextlib.AsyncExitStack() as exits:
        program = await postgresql.server(exits, url, {})
        server = program.address.server
        await create_alerts(server, [requests.for_all(), _counting_held()])
        over = await exits.enter_async_context(channel(server))
        await _fill(url, over, report)
        with psycopg.connect(url) as connection:
            found = connection.execute("SELECT alert_id FROM alert ORDER BY create_time, alert_id").fetchall()
        plain, counting = (row[0] for row in found)
        rows = []
        alert_stub, account_stub = AlertServiceStub(over), AccountServiceStub(over)
        for name, alert_id, prefix in (
            ("usage of a month", plain, "month"),
            (f"the same with {RESERVATIONS:,} reservations held", counting, "month"),
            (f"usage of {YEARS} years", plain, "years"),
        ):
            for events in SIZES:
                wanted = alerts.GetCustomerAlertSeriesRequest(
                    alert_id=alert_id, customer_id=f"{prefix}-{events}", point_count=MOST_POINTS
                )
                rows.append(await _row(name, events, partial(alert_stub.GetCustomerAlertSeries, wanted)))
                report(str(rows[-1].figures()))
        for entries in SIZES:
            asked = accounts.GetBalanceSeriesRequest(
                customer_id=f"month-{entries}", balance_id=f"balance-{entries}", point_count=MOST_POINTS
            )
            rows.append(await _row("a balance", entries, partial(account_stub.GetBalanceSeries, asked)))
            report(str(rows[-1].figures()))
    return Report(rows)


async def _row(name: str, count: int, call: Callable[[], Awaitable[Any]]) -> Row:
    took = []
    for number in range(WARM + MEASURED):
        started = time.perf_counter()
        answer = await call()
        if number >= WARM:
            took.append(time.perf_counter() - started)
    return Row(name, count, took, getattr(answer, "event_count", 0), answer.ByteSize())


def _counting_held() -> alert_pb2.Alert:
    alert = requests.for_all()
    alert.display_name, alert.counts_held = "of all, with what is held", True
    return alert


async def _fill(url: str, over: Any, report: Callable[[str], None]) -> None:
    """Customers with their events, reservations and balances; each gauge exists before."""
    now = datetime.now(UTC)
    oldest = now - timedelta(days=366 * YEARS)
    database = Database(url)
    try:
        async with database.transaction() as connection:
            await partitions.maintain(connection, oldest, now, oldest)
    finally:
        await database.close()
    for events in SIZES:
        for prefix, days in (("month", 28), ("years", 365 * YEARS - 30)):
            await _customer(over, f"{prefix}-{events}", now - timedelta(days=days), is_long=prefix == "years")
        await _balance(over, f"month-{events}", f"balance-{events}", now)
        await _reservations(over, f"month-{events}")
        with psycopg.connect(url) as written:
            for prefix, days in (("month", 28), ("years", 365 * YEARS - 30)):
                seconds = days * 86_400 - 3_600
                values = {"customer": f"{prefix}-{events}", "metric": load.METRIC, "events": events}
                written.execute(_EVENTS, {**values, "seconds": seconds})
            written.execute(_ENTRIES, {"customer": f"month-{events}", "entries": events})
        report(f"{events:,} events and entries are stored")
    with psycopg.connect(url, autocommit=True) as written:
        written.execute("VACUUM ANALYZE")
        written.execute("CHECKPOINT")


async def _customer(over: Any, customer_id: str, anchor: datetime, *, is_long: bool) -> None:
    customer = customer_pb2.Customer(customer_id=customer_id)
    customer.billing_cycle.anchor_time.FromDatetime(anchor)
    customer.billing_cycle.cadence = CADENCE_YEAR if is_long else CADENCE_MONTH
    customer.billing_cycle.interval_count = YEARS if is_long else 1
    await AccountServiceStub(over).PutCustomer(accounts.PutCustomerRequest(customer=customer), timeout=TIMEOUT)
    request = alerts.EvaluateUsageBatchRequest()
    event = request.batch.events.add(event_id="first", customer_id=customer_id, metric_id=load.METRIC, quantity="1")
    event.event_time.GetCurrentTime()
    await AlertServiceStub(over).EvaluateUsageBatch(request, timeout=TIMEOUT)


async def _balance(over: Any, customer_id: str, balance_id: str, now: datetime) -> None:
    balance = balance_pb2.Balance(
        balance_id=balance_id, customer_id=customer_id, kind=balance_pb2.BALANCE_KIND_CREDIT_GRANT
    )
    balance.spend.currency = "USD"
    segment = balance.segments.add(amount="10000000")
    segment.start_time.FromDatetime(now - timedelta(days=1))
    await AccountServiceStub(over).PutBalance(accounts.PutBalanceRequest(balance=balance), timeout=TIMEOUT)


async def _reservations(over: Any, customer_id: str) -> None:
    stub = LimitServiceStub(over)
    for first in range(0, RESERVATIONS, 50):
        wanted = []
        for number in range(first, first + 50):
            usage = RequestedUsage(customer_id=customer_id, metric_id=load.METRIC, quantity="1")
            request = ReserveUsageRequest(reservation_id=f"{customer_id}-{number}", usage=usage)
            request.ttl.FromTimedelta(timedelta(hours=1))
            wanted.append(stub.ReserveUsage(request, timeout=TIMEOUT))
        await asyncio.gather(*wanted)

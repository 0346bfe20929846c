"""The row `below`: a reservation of one customer whose limit stands above many others, when its meter is new."""

import statistics
import time

import grpc
import psycopg

from bench.support import load
from bench.support.access import Access
from bench.support.goals import Figure, Goal
from bench.support.sending import TIMEOUT
from bench.support.stack import PostgreSQL
from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    customer_pb2,
    limit_pb2,
    limit_service_pb2,
    requested_usage_pb2,
    scope_pb2,
)
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.limit_service_pb2_grpc import LimitServiceStub

NUMBERS = (10, 1_000, 100_000)
TOP, OTHER = "top", "other"
ROUNDS = 3
ROW = "below"

# Customers below the top, each with an event of this month.
_CUSTOMERS = """
INSERT INTO customer (
    organization_id, customer_id, parent_customer_id, anchor_time, cadence, interval_count, time_zone, create_time,
    update_time, changed_epoch
)
SELECT organization_id, 'below-' || n, customer_id, anchor_time, cadence, interval_count, time_zone, create_time,
    update_time, changed_epoch
FROM customer, generate_series(1, %(number)s) AS n WHERE customer_id = 'top'
"""
_EVENTS = """
INSERT INTO event (organization_id, customer_id, event_id, event_time, ingest_time, metric_id, quantity)
SELECT organization_id, 'below-' || n, 'e', now(), now(), %(metric)s, 1
FROM customer, generate_series(1, %(number)s) AS n WHERE customer_id = 'top'
"""
# As if the limit and its customer had stood for 40 days, and the month had just begun.
_NEW_WINDOW = (
    "DELETE FROM reservation",
    "DELETE FROM meter",
    "UPDATE usage_limit SET enforced_time = now() - interval '40 days'",
    "UPDATE customer SET update_time = now() - interval '40 days' WHERE customer_id = 'top'",
)


async def measure(postgresql: PostgreSQL) -> list[Figure]:
    """Milliseconds of the first reservation after each change, by the number of customers below."""
    figures = []
    for number in NUMBERS:
        async with (
            postgresql.stack(f"bench_enforcement_below_{number}") as stack,
            Access(stack.server).channel() as over,
        ):
            top = _Top(over, stack.url)
            await top.begin(number)
            took = {
                "a put of the amount": [await top.after_amount() for _ in range(ROUNDS)],
                "the start of a window": [await top.after_start() for _ in range(ROUNDS)],
                "the move of one of them": [await top.after_move(to) for to in (OTHER, TOP, OTHER)],
            }
        for change, times in took.items():
            goal = None if "move" in change else Goal(50, at_most=True)
            name = f"first reservation after {change}, {number:,} customers below"
            figures.append(Figure(ROW, name, statistics.median(times), "ms", goal, {"rounds": times}))
    return figures


class _Top:
    """A customer with a limit, above others."""

    def __init__(self, over: grpc.aio.Channel, url: str) -> None:
        self._accounts = AccountServiceStub(over)
        self._limits = LimitServiceStub(over)
        self._url = url
        self._requests = 0

    async def begin(self, number: int) -> None:
        """Makes all of it, and counts its meter for the first time."""
        await self._put_customer(TOP, "")
        await self._put_customer(OTHER, "")
        await self._put_limit()
        values = {"number": number, "metric": load.METRIC}
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(_CUSTOMERS, values)
            connection.execute(_EVENTS, values)
            connection.execute("VACUUM ANALYZE customer, event")
        await self._reserve()

    async def after_amount(self) -> float:
        """Milliseconds after the limit has got another amount."""
        await self._put_limit()
        return await self._reserve()

    async def after_start(self) -> float:
        """Milliseconds in a window without a meter."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            for statement in _NEW_WINDOW:
                connection.execute(statement.encode())
        await self._put_limit()  # so that servers read what has changed
        return await self._reserve()

    async def after_move(self, parent: str) -> float:
        """Milliseconds after a customer has got another parent."""
        await self._put_customer("below-2", parent)
        return await self._reserve()

    async def _reserve(self) -> float:
        self._requests += 1
        usage = requested_usage_pb2.RequestedUsage(customer_id="below-1", metric_id=load.METRIC, quantity="1")
        request = limit_service_pb2.ReserveUsageRequest(reservation_id=f"r{self._requests}", usage=usage)
        began = time.perf_counter()
        await self._limits.ReserveUsage(request, timeout=TIMEOUT)
        return round(1e3 * (time.perf_counter() - began), 2)

    async def _put_limit(self) -> None:
        limit = limit_pb2.Limit(
            limit_id="of-top",
            customer=scope_pb2.CustomerScope(customer_id=TOP),
            quantity=access_pb2.QuantityAccess(metric_id=load.METRIC),
            amount=str(10**9 + self._requests),
            enforcement=limit_pb2.LIMIT_ENFORCEMENT_HARD,
        )
        await self._accounts.PutLimit(account_service_pb2.PutLimitRequest(limit=limit), timeout=TIMEOUT)

    async def _put_customer(self, customer_id: str, parent: str) -> None:
        customer = customer_pb2.Customer(customer_id=customer_id, parent_customer_id=parent)
        await self._accounts.PutCustomer(account_service_pb2.PutCustomerRequest(customer=customer), timeout=TIMEOUT)

"""The limits and the requests of the part, as messages of the contract."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import grpc

from bench.support import load
from bench.support.access import Access
from bench.support.sending import TIMEOUT
from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    customer_pb2,
    limit_pb2,
    plan_pb2,
    requested_usage_pb2,
    scope_pb2,
)
from generated.tidemark.v1 import limit_service_pb2 as messages
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub

SERVICE = "/tidemark.v1.LimitService/"
CUSTOMERS = 1_000
OUT_OF_REACH = 10**15
RESERVED, SETTLED = "10", "7"  # of each pair
CALLERS = 32  # of unary calls
PLAN = "limited"


async def put_limits(access: Access, customers: int = CUSTOMERS, *, rolling: timedelta | None = None) -> None:
    """Gives customers a plan with a hard limit that nothing reaches. rolling: the length of a window that rolls."""
    over = access.channel()
    accounts = AccountServiceStub(over)
    await accounts.PutPlan(account_service_pb2.PutPlanRequest(plan=plan_pb2.Plan(plan_id=PLAN)), timeout=TIMEOUT)
    limit = limit_pb2.Limit(
        limit_id="units",
        plan=scope_pb2.PlanScope(plan_id=PLAN),
        quantity=access_pb2.QuantityAccess(metric_id=load.METRIC),
        amount=str(OUT_OF_REACH),
        enforcement=limit_pb2.LIMIT_ENFORCEMENT_HARD,
    )
    if rolling is not None:
        limit.window.rolling.duration.FromTimedelta(rolling)
    await accounts.PutLimit(account_service_pb2.PutLimitRequest(limit=limit), timeout=TIMEOUT)
    numbers = iter(range(customers))

    async def put() -> None:
        for number in numbers:
            customer = customer_pb2.Customer(customer_id=load.customer(number), plan_id=PLAN)
            await accounts.PutCustomer(account_service_pb2.PutCustomerRequest(customer=customer), timeout=TIMEOUT)

    await asyncio.gather(*(put() for _ in range(CALLERS)))
    await over.close()


def usage(number: int, quantity: str = RESERVED) -> requested_usage_pb2.RequestedUsage:
    """Usage of a customer."""
    return requested_usage_pb2.RequestedUsage(
        customer_id=load.customer(number), metric_id=load.METRIC, quantity=quantity
    )


def reserve(number: int, reservation_id: str) -> messages.ReserveUsageRequest:
    """A reservation of a customer."""
    return messages.ReserveUsageRequest(reservation_id=reservation_id, usage=usage(number))


def settle(number: int, reservation_id: str) -> messages.SettleReservationRequest:
    """Its settlement, with less than was reserved."""
    return messages.SettleReservationRequest(
        customer_id=load.customer(number), reservation_id=reservation_id, quantity=SETTLED
    )


def batch_check(first: int, customers: int) -> messages.BatchCheckUsageRequest:
    """The check of one usage of so many customers."""
    return messages.BatchCheckUsageRequest(
        customer_ids=[load.customer((first + number) % CUSTOMERS) for number in range(customers)],
        usages=[requested_usage_pb2.CheckedUsage(metric_id=load.METRIC, quantity="1")],
    )


def pair(name: str, customers: Sequence[int]) -> tuple[bytes, bytes]:
    """A message that reserves for each customer, and the one that settles all of it."""
    ids = [f"{name}-{number:03d}" for number in range(len(customers))]
    reserves = [messages.EnforcementRequest(reserve=reserve(*one)) for one in zip(customers, ids, strict=True)]
    settles = [messages.EnforcementRequest(settle=settle(*one)) for one in zip(customers, ids, strict=True)]
    return (
        messages.EnforceUsageRequest(batch_id=f"{name}-r", requests=reserves).SerializeToString(),
        messages.EnforceUsageRequest(batch_id=f"{name}-s", requests=settles).SerializeToString(),
    )


def customers_of(message: int, size: int, customers: int) -> list[int]:
    """The customers of a message, each once if there are enough."""
    return [(message * size + number) % customers for number in range(size)]


def unary(over: grpc.aio.Channel, method: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    """A method for encoded requests and answers, so that the measurement does not include what callers do."""
    found: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = over.unary_unary(method, None, None)
    return found

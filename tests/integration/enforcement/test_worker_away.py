"""What goes on while a worker of the named cluster is away: all that concerns customers of other workers alone.

A worker is ended for all databases on it: only one test run at a time can use the cluster.
"""

from collections.abc import AsyncIterator, Awaitable, Collection
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import grpc
import pytest

from engine.enforcement.expiry import Expiry
from engine.puts.customer_evaluations import CustomerEvaluations
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from evaluator.enforcement.reservations import GRACE
from generated.tidemark.v1 import account_service_pb2, condition_pb2, customer_pb2
from runtime.clock import ManualClock
from runtime.fair_semaphore import FairSemaphore
from store.accounts.customer_evaluations import OWN_TIME
from store.citus.nodes import Node
from store.postgres.database import Database, DatabaseUnavailable
from tests.support.balances.holder import Holder, alert
from tests.support.balances.timing import timers_of
from tests.support.databases import Template
from tests.support.enforcement.gateway import Gateway, meters, put_limit
from tests.support.postgres.nodes import workers
from tests.support.postgres.worker_node import WorkerNode, customers_by_node
from tests.support.usage.caller import DEADLINE, Caller, ShortTransition, until
from tests.support.usage.service import GRACE as GRACE_OF_PERIODS

pytestmark = [
    pytest.mark.skipif(
        not workers(), reason="no cluster is named: set TIDEMARK_TEST_DATABASE_URL and TIDEMARK_TEST_CITUS_WORKERS"
    ),
    pytest.mark.time_limit(120),
]

COMMITS = condition_pb2.LowRemainingCommitBalanceReachedCondition()
CUSTOMERS = [f"customer-{number}" for number in range(8)]
HOUR = timedelta(hours=1)


@asynccontextmanager
async def away(template: Template, node: Node) -> AsyncIterator[None]:
    """The node has crashed in the block, and runs after it."""
    worker = WorkerNode(node, template.nodes.url_on(node))
    await worker.crash()
    try:
        yield
    finally:
        await worker.start()
        template.nodes.connect_again()


async def count(caller: Caller, query: str, customers: Collection[str]) -> int:
    """The number that a query finds of these customers; it goes to their nodes only."""
    which = "organization_id = %(organization_id)s AND customer_id = ANY(%(customers)s)"
    [[number]] = await caller.rows(f"SELECT count(*) FROM {query} AND {which}", customers=sorted(customers))
    return int(number)


async def refused(call: Awaitable[object]) -> str:
    """The words with which a call is refused at once, as UNAVAILABLE."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    return str(raised.value.details())


async def test_timers_and_expiry_go_on_for_customers_of_other_workers(
    caller: Caller, gateway: Gateway, clock: ManualClock, own_pool: Database, template: Template
) -> None:
    """By tasks that knew the rules before, those of the server, and by others, as of a process that begins then."""
    lost, _ = workers()
    by_node = customers_by_node(caller.database_url, CUSTOMERS)
    there, gone = by_node[workers()[1]], by_node[lost]
    now = clock.now()
    await caller.put_customer(customer_pb2.Customer(customer_id=there[0], parent_customer_id=gone[0]))
    for customer in CUSTOMERS:
        await Holder(caller, customer).put("c", spans=[("50", now, now + HOUR)])
        await put_limit(caller, "100", f"limit-{customer}", customer=customer)
        await gateway.reserve(f"r-{customer}", "10", customer=customer, seconds=10)
    await caller.create(alert("20", low_remaining_commit_balance_reached=COMMITS))
    transactions = Transactions(own_pool, clock, GRACE_OF_PERIODS, RulesRegistry())
    expiry = Expiry(own_pool, clock, transactions)
    timers = timers_of(own_pool, clock)
    expired = "reservation WHERE state = 'EXPIRED'"

    async def swept() -> None:
        for task in (expiry, timers):
            with suppress(DatabaseUnavailable):  # each session notices the loss by an error
                await task.sweep()

    async with away(template, lost):
        clock.set(now + HOUR)

        async def done_there() -> bool:
            await swept()
            return (
                await count(caller, "notification WHERE true", there) == len(there)
                # What one of them holds is that of a customer of the lost worker, too.
                and await count(caller, expired, there) == len(there) - 1
            )

        await until(done_there)

    async def done() -> bool:
        clock.advance(GRACE)  # what could not be done was put off
        await swept()
        notified = await count(caller, "notification WHERE true", CUSTOMERS)
        return notified == await count(caller, expired, CUSTOMERS) == len(CUSTOMERS)

    await until(done)
    for customer in CUSTOMERS:
        assert await Holder(caller, customer).notified() == [[ShortTransition("REACHED", "20", "50", "0", "")]]
    assert {held for _, held in (await meters(caller)).values()} == {"0"}


async def test_a_change_that_no_call_evaluated_is_evaluated_for_customers_of_other_workers(
    caller: Caller, clock: ManualClock, own_pool: Database, template: Template
) -> None:
    """As after a server that was killed between a change and its evaluation."""
    lost, other = workers()
    by_node = customers_by_node(caller.database_url, CUSTOMERS)
    for customer in CUSTOMERS:
        await caller.put_customer(customer_pb2.Customer(customer_id=customer))
    [[epoch]] = await caller.rows("SELECT epoch FROM organization WHERE organization_id = %(organization_id)s")
    for customer in CUSTOMERS:
        await caller.rows(
            "INSERT INTO customer_evaluation (organization_id, customer_id, facts, usage, subscriptions, limit_units,"
            " epoch, change_time, due_time) VALUES (%(organization_id)s, %(customer)s, true, false, false, '{}',"
            " %(epoch)s, %(now)s, %(due)s) RETURNING 1",
            customer=customer,
            epoch=epoch,
            now=clock.now(),
            due=clock.now() + OWN_TIME,
        )
    transactions = Transactions(own_pool, clock, GRACE_OF_PERIODS, RulesRegistry())
    evaluations = CustomerEvaluations(own_pool, clock, transactions, FairSemaphore(4))

    async def left(customers: Collection[str]) -> int:
        with suppress(DatabaseUnavailable):
            await evaluations.run_once()
        return await count(caller, "customer_evaluation WHERE true", customers)

    async with away(template, lost):
        clock.advance(OWN_TIME)

        async def done_there() -> bool:
            return await left(by_node[other]) == 0

        await until(done_there)

    async def done() -> bool:
        return await left(CUSTOMERS) == 0

    await until(done)


async def test_calls_that_need_all_workers_are_refused_at_once_with_the_node(
    caller: Caller, template: Template
) -> None:
    lost, other = workers()
    by_node = customers_by_node(caller.database_url, CUSTOMERS)
    there = by_node[other][0]
    for customer in CUSTOMERS:
        await caller.put_customer(customer_pb2.Customer(customer_id=customer))

    async def known() -> bool:
        """Whether the server commits the usage of this customer at its worker."""
        return (await caller.send(caller.event("known", customer=there))).accepted == 1

    await until(known)
    put = account_service_pb2.PutCustomerRequest(customer=customer_pb2.Customer(customer_id=there, plan_id="pro"))
    listed = account_service_pb2.ListCustomersRequest()
    read = account_service_pb2.GetCustomerRequest(customer_id=there)
    async with away(template, lost):
        for call in (
            caller.accounts.PutCustomer(put, metadata=caller.metadata, timeout=DEADLINE),
            caller.accounts.ListCustomers(listed, metadata=caller.metadata, timeout=DEADLINE),
        ):
            words = await refused(call)
            assert words.startswith("a node of the database cluster does not answer")
        await caller.accounts.GetCustomer(read, metadata=caller.metadata, timeout=DEADLINE)
        assert (await caller.send(caller.event("e", customer=there))).accepted == 1
    await until_made(caller, put)
    assert (await caller.accounts.GetCustomer(read, metadata=caller.metadata)).customer.plan_id == "pro"


async def until_made(caller: Caller, put: account_service_pb2.PutCustomerRequest) -> None:
    """Repeats a change, as a caller does, until each session has noticed that the worker is back."""

    async def made() -> bool:
        with suppress(grpc.aio.AioRpcError):
            await caller.accounts.PutCustomer(put, metadata=caller.metadata)
            return True
        return False

    await until(made)

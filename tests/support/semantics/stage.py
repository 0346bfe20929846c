"""Where a row of the table is tested: a server, a notifier and a receiver, in this process or as real programs."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from engine.timers import Timers
from generated.tidemark.v1 import (
    account_service_pb2,
    billing_period_pb2,
    customer_pb2,
    endpoint_pb2,
    subscription_pb2,
    webhook_service_pb2,
    webhook_service_pb2_grpc,
)
from runtime.clock import Clock, ManualClock, SystemClock
from server.calls.lifecycle import Shutdown
from server.calls.validation import to_timestamp
from store.identity import keys
from store.postgres.database import Database
from tests.support.balances.holder import Holder
from tests.support.balances.timing import timers_of, work_off
from tests.support.notifier.house import House, configuration, running_notifier
from tests.support.notifier.receiver import Receiver, running_receiver
from tests.support.processes.programs import Program
from tests.support.schemas import check_body
from tests.support.server.running import Running, running
from tests.support.usage.caller import Caller, until
from webhooks.deliveries import DeliveryStatus

START = datetime(2026, 3, 15, 12, 0, tzinfo=UTC)
CUSTOMER = "acme"
SUBSCRIPTION = "main"

_numbers = itertools.count(1)


@dataclass
class Stage:
    """One organization with one customer, and a receiver of its webhooks.

    clock: the server's, if a test can move it. timers: of a second replica on
    database; they run when the test says so. ends: of what is counted in days. invoice_prefix: of the ids of the
    current month's invoices.
    """

    caller: Caller
    holder: Holder
    receiver: Receiver
    secret: str
    house: House
    clock: ManualClock | None
    timers: Timers
    database: Database
    ends: datetime
    invoice_prefix: str = "march"
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def now(self) -> datetime:
        """The time of the server."""
        return self.caller.clock.now()

    async def advance_to(self, time: datetime) -> None:
        """Moves the clock, and runs the timers of a second replica that are due."""
        assert self.clock is not None
        self.clock.set(time)
        await work_off(self.timers, self.database, self.clock)

    async def period_end(self) -> datetime:
        """When the customer's current billing period ends."""
        request = account_service_pb2.GetCustomerRequest(customer_id=CUSTOMER)
        answer = await self.caller.accounts.GetCustomer(request, metadata=self.caller.metadata)
        return answer.customer.current_billing_period.end_time.ToDatetime(UTC)

    async def received(self, number: int) -> list[dict[str, Any]]:
        """The `number` bodies that arrived, each verified with the public library and valid for its schema.

        Waits for all deliveries.
        """
        await self.receiver.arrived(number)
        await self.house.outbox_emptied()

        async def delivered() -> bool:
            return all(one.status is DeliveryStatus.DELIVERED for one in await self.house.deliveries())

        await until(delivered)
        bodies = [arrival.verify(self.secret) for arrival in self.receiver.arrivals]
        shown = [body for body in bodies if isinstance(body, dict)]
        for body in shown:
            check_body(body)
        return shown


@asynccontextmanager
async def in_this_process(database_url: str) -> AsyncIterator[Stage]:
    """A server on a clock that stands still, and a notifier."""
    clock = ManualClock(START)
    database = Database(database_url)
    settings = configuration(LISTEN="127.0.0.1:0", PROPAGATION_DELAY_SECONDS="0")
    try:
        async with (
            running(database, clock, configuration=settings) as server,
            _set(server, database, clock, clock) as stage,
            # Signatures are good for five minutes of real time, so the notifier uses real time.
            running_notifier(stage.house),
        ):
            yield stage
    finally:
        await database.close()


@asynccontextmanager
async def beside_programs(url: str, server: Program) -> AsyncIterator[Stage]:
    """A real server, and a real notifier beside it, in real time. `url`: of their database."""
    database = Database(url, pool_size=4)
    try:
        async with server.address.channel() as channel:
            # A program is stopped from outside: it has no shutdown switch and no task here.
            there = Running(0, channel, Shutdown(), asyncio.create_task(asyncio.sleep(0)))
            try:
                async with _set(there, database, SystemClock(), None) as stage:
                    yield stage
            finally:
                await there.observer.close()
    finally:
        await database.close()


@asynccontextmanager
async def _set(server: Running, database: Database, clock: Clock, manual: ManualClock | None) -> AsyncIterator[Stage]:
    name = f"organization-{next(_numbers)}"
    async with database.transaction() as connection:
        created = await keys.create_key(connection, name, clock.now())
    house = await House.build(database, SystemClock(), name)
    caller = Caller(server, clock, database.url, name, created.key)
    async with running_receiver() as receiver:
        webhooks = webhook_service_pb2_grpc.WebhookServiceStub(server.channel)
        request = webhook_service_pb2.CreateEndpointRequest(endpoint=endpoint_pb2.Endpoint(url=receiver.url))
        endpoint = await webhooks.CreateEndpoint(request, metadata=caller.metadata)
        # The customer's own billing cycle: its period does not end while real programs run.
        cycle = billing_period_pb2.BillingCycle(
            anchor_time=to_timestamp(clock.now() - timedelta(days=1)), cadence=billing_period_pb2.CADENCE_MONTH
        )
        await caller.put_customer(customer_pb2.Customer(customer_id=CUSTOMER, billing_cycle=cycle))
        await caller.put_subscription(
            subscription_pb2.Subscription(customer_id=CUSTOMER, subscription_id=SUBSCRIPTION, billing_cycle=cycle)
        )
        holder = Holder(caller, CUSTOMER)
        ends = clock.now() + timedelta(days=10)
        timers = timers_of(database, clock)
        yield Stage(caller, holder, receiver, endpoint.secret, house, manual, timers, database, ends)

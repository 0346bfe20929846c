"""Callers that reserve usage during a fault run, and the tally of what they were answered against the database."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import grpc

from cli.client.connection import Address
from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    account_service_pb2_grpc,
    customer_pb2,
    limit_pb2,
    limit_service_pb2_grpc,
    reservation_pb2,
    scope_pb2,
)
from generated.tidemark.v1 import limit_service_pb2 as messages
from generated.tidemark.v1.decision_pb2 import DECISION_OUTCOME_DENIED
from generated.tidemark.v1.requested_usage_pb2 import RequestedUsage
from generated.tidemark.v1.usage_pb2 import UsageEvent
from tests.support.processes.programs import DEADLINE, session

METRIC = "tokens"
PARENT = "reserving"
AMOUNT = 400  # of the hard limit of all usage
BATCH = "batch"  # a property
OF_BATCH = 60  # of the hard limit of each batch, which refuses again and again
ROUNDS_OF_BATCH = 30  # of a caller
CUSTOMERS = tuple(f"{PARENT}-{number}" for number in range(3))
PAUSE = 0.05  # seconds between two reservations of a caller
TRY = 3.0  # seconds of one try of a call
AGAIN = 0.2  # seconds between two tries
TTL = 8  # seconds of a reservation that nothing ends
_REPEATED = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
}


async def put_limit(address: Address, *, of_batches: bool = False) -> None:
    """A hard limit of a customer above all that reserve: of all usage, or a tighter one of each batch of rounds."""
    async with address.channel() as channel:
        accounts = account_service_pb2_grpc.AccountServiceStub(channel)
        for customer in CUSTOMERS:
            put = customer_pb2.Customer(customer_id=customer, parent_customer_id=PARENT)
            await accounts.PutCustomer(account_service_pb2.PutCustomerRequest(customer=put), timeout=DEADLINE)
        limit = limit_pb2.Limit(
            limit_id=METRIC,
            amount=str(OF_BATCH if of_batches else AMOUNT),
            customer=scope_pb2.CustomerScope(customer_id=PARENT),
            quantity=access_pb2.QuantityAccess(metric_id=METRIC),
            enforcement=limit_pb2.LIMIT_ENFORCEMENT_HARD,
        )
        if of_batches:
            limit.groups.add(key=BATCH)
        await accounts.PutLimit(account_service_pb2.PutLimitRequest(limit=limit), timeout=DEADLINE)


class Reserver:
    """Reserves, and settles, releases or forgets what it got. Each call is repeated until it is answered.

    granted: by reservation. settled: the events of answered settlements. released: reservations. late: the part of
    `settled` that came after the reservation had expired, by the batch. rounds: reservations that were
    answered, and ended or not. replayed: answers to a repeated call that had been carried out before.
    """

    def __init__(self, name: str, address: Address, time: datetime) -> None:
        self.name = name
        self.granted: dict[str, tuple[str, Decimal]] = {}
        self.settled: list[UsageEvent] = []
        self.released: set[str] = set()
        self.late = Counter[str]()
        self.rounds = self.denied = self.replayed = 0
        self.enough = False
        self._address = address
        self._time = time
        self._randomness = random.Random(name)

    async def run(self) -> None:
        """Until `enough` is set."""
        async with self._address.channel() as channel:
            limits: Any = limit_service_pb2_grpc.LimitServiceStub(channel)
            while not self.enough:
                await self._round(limits, f"{self.name}/{self.rounds}")
                self.rounds += 1
                await asyncio.sleep(PAUSE)

    async def _round(self, limits: Any, reservation_id: str) -> None:
        customer, quantity = self._randomness.choice(CUSTOMERS), self._randomness.randint(1, 20)
        usage = RequestedUsage(customer_id=customer, metric_id=METRIC, quantity=str(quantity))
        usage.event_time.FromDatetime(self._time)
        batch = usage.properties[BATCH] = str(self.rounds // ROUNDS_OF_BATCH)
        request = messages.ReserveUsageRequest(reservation_id=reservation_id, usage=usage)
        request.ttl.seconds = TTL
        answer = await self._answered(limits.ReserveUsage, request)
        if answer.decision.outcome == DECISION_OUTCOME_DENIED:
            self.denied += 1
            return
        assert answer.decision.granted_quantity == str(quantity)
        self.granted[reservation_id] = customer, Decimal(quantity)
        named = {"customer_id": customer, "reservation_id": reservation_id}
        kind = self._randomness.random()
        if kind < 0.5:
            used = str(self._randomness.randint(0, quantity))
            settle = messages.SettleReservationRequest(quantity=used, **named)
            answer = await self._answered(limits.SettleReservation, settle)
            event = UsageEvent(event_id=reservation_id, customer_id=customer, metric_id=METRIC, quantity=used)
            event.event_time.FromDatetime(self._time)
            event.properties[BATCH] = batch
            self.settled.append(event)
            if answer.reservation.late:
                self.late[batch] += int(used)
        elif kind < 0.9:
            answer = await self._answered(limits.ReleaseReservation, messages.ReleaseReservationRequest(**named))
            assert answer.reservation.state != reservation_pb2.RESERVATION_STATE_OPEN
            self.released.add(reservation_id)

    async def _answered(self, method: Any, request: Any) -> Any:
        while True:
            try:
                answer = await method(request, timeout=TRY, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _REPEATED:
                    raise
                await asyncio.sleep(AGAIN)
            else:
                self.replayed += answer.replayed
                return answer


@asynccontextmanager
async def reserving(reservers: Sequence[Reserver]) -> AsyncIterator[None]:
    """They reserve for as long as the block lasts, and have all answers at its end."""
    async with asyncio.TaskGroup() as group:
        for one in reservers:
            group.create_task(one.run())
        yield
        for one in reservers:
            one.enough = True


async def _open(url: str) -> int:
    """How many reservations are open."""
    async with session(url) as connection:
        cursor = await connection.execute("SELECT 1 FROM reservation WHERE state = 'OPEN'")
        return len(await cursor.fetchall())


@dataclass(frozen=True)
class ReservationTally:
    """What the run did to reservations. The last three must be 0.

    lost: acknowledged reservations or settlements that are not stored as they were answered. twice: usage that is
    counted more than once, or that the limit admitted beyond its amount. leaked: what is held after all have ended.
    """

    reserved: int
    denied: int
    replayed: int
    lost: int
    twice: Decimal
    leaked: Decimal

    def line(self) -> str:
        """The tally as text."""
        return (
            f"{self.reserved:,} reservations ({self.denied:,} denied, {self.replayed:,} answers replayed):"
            f" {self.lost} lost, {self.twice} counted twice or beyond the limit, {self.leaked} held by none"
        )


async def tally_reservations(url: str, reservers: Sequence[Reserver]) -> ReservationTally:
    """Counts, when all callers have ended; waits until what they forgot has expired."""

    async with asyncio.timeout(DEADLINE + 60):
        while await _open(url):  # noqa: ASYNC110 (a server ends them)
            await asyncio.sleep(AGAIN)
    async with session(url) as connection:
        stored = {
            name: (customer, granted, state, settled)
            for name, customer, granted, state, settled in await (
                await connection.execute(
                    "SELECT reservation_id, customer_id, granted_quantity, state, settled_quantity FROM reservation"
                )
            ).fetchall()
        }
        events, batches = dict[tuple[str, str], Decimal](), Counter[str]()
        query = "SELECT customer_id, event_id, quantity, properties ->> 'batch' FROM event WHERE metric_id = 'tokens'"
        for customer, name, quantity, batch in await (await connection.execute(query)).fetchall():
            events[str(customer), str(name)] = Decimal(str(quantity))
            batches[str(batch)] += int(str(quantity))
        cursor = await connection.execute("SELECT coalesce(sum(counted), 0), coalesce(sum(held), 0) FROM meter")
        [sums] = await cursor.fetchall()
        counted, held = (Decimal(str(one)) for one in sums)
    lost = 0
    for one in reservers:
        for name, granted in one.granted.items():
            lost += name not in stored or stored[name][:2] != granted
        for event in one.settled:
            key, used = (event.customer_id, event.event_id), Decimal(event.quantity)
            lost += events.get(key) != used or stored[event.event_id][3] != used
        lost += sum(stored[name][2] not in ("RELEASED", "EXPIRED") for name in one.released)
    total = sum(events.values(), Decimal(0))
    late = sum([one.late for one in reservers], Counter[str]())
    beyond = sum([max(0, used - late[batch] - OF_BATCH) for batch, used in batches.items()])
    settled = sum((Decimal(event.quantity) for one in reservers for event in one.settled), Decimal(0))
    found = ReservationTally(
        reserved=sum(len(one.granted) for one in reservers),
        denied=sum(one.denied for one in reservers),
        replayed=sum(one.replayed for one in reservers),
        lost=lost,
        twice=abs(total - settled) + abs(total - counted) + beyond,
        leaked=held,
    )
    assert [found.lost, found.twice, found.leaked] == [0, Decimal(0), Decimal(0)], found
    return found

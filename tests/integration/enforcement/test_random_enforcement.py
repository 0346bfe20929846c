"""Random work of two servers at once: no limit is passed, no transaction deadlocks, and counters equal the ledger."""

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from engine.enforcement.expiry import Expiry
from engine.enforcement.requests import Decided, EnforcementRefused, Extend, Release, Request, Settle
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from evaluator.enforcement.decisions import OveragePolicy
from evaluator.events import SettlingEvent
from generated.tidemark.v1 import customer_pb2
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.enforcement.gateway import Gateway, Sender, meters, put_limit, reserve, settle, usage_event
from tests.support.usage.caller import Caller, until
from tests.support.usage.service import GRACE
from tests.support.usage.voiding import void

ROUNDS = int(os.environ.get("TIDEMARK_TEST_EXAMPLES", "12"))  # thousands find rare interleavings
ORG, TEAMS, USERS = "org", ("red", "blue"), ("ann", "bob", "cid", "dan")
EVERYONE = (ORG, *TEAMS, *USERS)
HOURLY = {"calendar": {"unit": "CALENDAR_UNIT_HOUR"}}
ROLLING = {"rolling": {"duration": {"seconds": 3600}}}


@pytest.fixture
async def family(caller: Caller) -> None:
    """An organization, teams and users, most of which have limits."""
    await caller.put_customer(customer_pb2.Customer(customer_id=ORG))
    for team in TEAMS:
        await caller.put_customer(customer_pb2.Customer(customer_id=team, parent_customer_id=ORG))
    for number, user in enumerate(USERS):
        parent = TEAMS[number % len(TEAMS)]
        await caller.put_customer(customer_pb2.Customer(customer_id=user, parent_customer_id=parent))
    await put_limit(caller, "120", "of-org", customer=ORG)
    await put_limit(caller, "90", "of-org-money", customer=ORG, currency="USD")
    await put_limit(caller, "80", "of-red", customer="red", window=ROLLING)
    await put_limit(caller, "30", "of-ann", customer="ann", window=HOURLY)
    await put_limit(caller, "40", "of-bob", customer="bob")


class Worker:
    """Does random things as one caller of one server."""

    def __init__(self, number: int, gateway: Gateway, sender: Sender, caller: Caller) -> None:
        self._random = random.Random(number)
        self._number = number
        self._gateway = gateway
        self._sender = sender
        self._caller = caller
        self._open: list[tuple[str, str]] = []
        self._events: list[tuple[str, str]] = []
        self._names = 0

    async def work(self) -> None:
        """Several steps, one after the other."""
        for _ in range(ROUNDS):
            step = self._random.choices((self._ask, self._send, self._void, self._put), weights=(12, 4, 2, 1))[0]
            await step()

    def _name(self) -> str:
        self._names += 1
        return f"w{self._number}-{self._names}"

    async def _ask(self) -> None:
        requests = [self._request() for _ in range(self._random.randint(1, 8))]
        answers = await self._gateway.pipeline.submit(self._gateway.organization, requests)
        again = await self._gateway.pipeline.submit(self._gateway.organization, requests[:1])
        first = answers[0]
        for answer in answers:
            assert isinstance(answer, Decided | EnforcementRefused)
            if isinstance(answer, Decided) and (one := answer.reservation) is not None and one.end_time is None:
                self._open.append((one.customer_id, one.reservation_id))
        if isinstance(first, Decided) and first.decision is not None:
            if isinstance(requests[0], Settle) and first.decision.is_denied:
                return  # the reservation stays open, and the next try is another one
            assert isinstance(again[0], Decided)
            assert again[0].decision == first.decision

    def _request(self) -> Request:
        chance = self._random
        policy = chance.choice(list(OveragePolicy))
        if not self._open or chance.random() < 0.5:
            cost = chance.choice((None, "0.5", "2"))
            return reserve(
                self._name(),
                str(chance.randint(1, 9)),
                customer=chance.choice(EVERYONE),
                cost=cost,
                policy=policy,
                seconds=chance.choice((1, 60)),
            )
        customer, name = self._open.pop(chance.randrange(len(self._open)))
        kind = chance.random()
        if kind < 0.7:
            return settle(name, chance.choice((None, "0", "1", "12")), customer=customer)
        return Release(customer, name) if kind < 0.9 else Extend(customer, name, ttl=timedelta(seconds=5))

    async def _send(self) -> None:
        events = []
        for _ in range(self._random.randint(1, 5)):
            customer, name = self._random.choice(EVERYONE), self._name()
            event = usage_event(
                name,
                str(self._random.randint(-1, 6)),
                customer=customer,
                cost=self._random.choice((None, "1")),
                at=self._caller.clock.now(),
            )
            if self._open and self._random.random() < 0.3:
                customer, reservation_id = self._open.pop()
                event = SettlingEvent.of(event._replace(customer_id=customer), reservation_id)
            self._events.append((customer, name))
            events.append(event)
        outcome = await self._sender.send(*events)
        assert outcome.accepted == len(events)

    async def _void(self) -> None:
        if self._events:
            customer, name = self._events.pop(self._random.randrange(len(self._events)))
            await void(self._caller, name, customer=customer)

    async def _put(self) -> None:
        amount = str(self._random.randint(70, 150))
        await put_limit(self._caller, amount, "of-org", customer=ORG)


async def test_counters_equal_the_ledger_after_random_work_of_two_servers(
    caller: Caller,
    gateway: Gateway,
    other: Gateway,
    sender: Sender,
    family: None,
    clock: ManualClock,
    own_pool: Database,
) -> None:
    seed = random.randrange(10**6)
    expiry = Expiry(own_pool, clock, Transactions(own_pool, clock, GRACE, RulesRegistry()))
    workers = [Worker(seed + number, (gateway, other)[number % 2], sender, caller) for number in range(6)]
    works = asyncio.gather(*[worker.work() for worker in workers])
    await until_done(works, lambda: advance(clock, expiry))
    await assert_consistent(caller)
    clock.advance(timedelta(minutes=5))

    async def none_is_open() -> bool:
        await expiry.sweep()
        return not await caller.rows(
            "SELECT 1 FROM reservation WHERE organization_id = %(organization_id)s AND state = 'OPEN'"
        )

    await until(none_is_open)
    await assert_consistent(caller)
    assert {held for _, held in (await meters(caller)).values()} == {"0"}


async def until_done(work: "asyncio.Future[list[None]]", meanwhile: Callable[[], Awaitable[None]]) -> None:
    """Does something again and again until the work has ended."""
    while not work.done():
        await meanwhile()
        await asyncio.wait([work], timeout=0.02)
    await work


async def advance(clock: ManualClock, expiry: Expiry) -> None:
    """Time passes, and reservations expire."""
    clock.advance(timedelta(milliseconds=400))
    await expiry.sweep()


async def assert_consistent(caller: Caller) -> None:
    """Compares each meter with the events and the open reservations."""
    parents: dict[str, str | None] = dict(
        await caller.rows(
            "SELECT customer_id, parent_customer_id FROM customer WHERE organization_id = %(organization_id)s"
        )
    )
    held: defaultdict[tuple[str, UUID], Decimal] = defaultdict(Decimal)
    for (charges,) in await caller.rows(
        "SELECT charges FROM reservation WHERE organization_id = %(organization_id)s AND state = 'OPEN'"
    ):
        for customer, meter, amount in charges or ():
            held[customer, UUID(meter)] += Decimal(amount)
    found = await caller.rows(
        """
        SELECT m.customer_id, m.meter_id, m.unit, m.window_kind, m.counted, m.held,
            m.window_start, m.window_end, (
                SELECT coalesce(sum(n.counted), 0) FROM meter_minute n
                WHERE (n.organization_id, n.customer_id, n.meter_id) = (m.organization_id, m.customer_id, m.meter_id)
            )
        FROM meter m WHERE m.organization_id = %(organization_id)s
        """
    )
    events = await caller.rows(
        "SELECT customer_id, event_time, quantity, cost FROM event WHERE organization_id = %(organization_id)s"
    )
    assert found
    for customer, meter, unit, kind, counted, meter_held, start, end, minutes in found:
        amounts: list[Decimal | None] = [
            cost if unit.startswith("cost/") else quantity
            for one, time, quantity, cost in events
            if customer in path(one, parents) and (start is None or start <= time < end)
        ]
        of_events = sum([amount for amount in amounts if amount is not None])
        assert (customer, unit, counted, meter_held) == (customer, unit, of_events, held[customer, meter])
        if kind == "ROLLING":
            assert (customer, counted) == (customer, minutes)


def path(customer: str | None, parents: Mapping[str, str | None]) -> Iterator[str]:
    """The customer and the customers above it."""
    while customer is not None:
        yield customer
        customer = parents.get(customer)

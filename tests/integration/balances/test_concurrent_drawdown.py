"""Concurrent draws, facts and timers of one customer through two servers: no draw is lost and none deadlocks."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generated.tidemark.v1 import condition_pb2, usage_pb2
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.balances.holder import Holder, alert
from tests.support.balances.timing import timers_of, work_off
from tests.support.usage.caller import DEADLINE, Caller, beside, ingest_held, spend_alert, waiting_for_locks
from tests.support.usage.organizations import organization

EXAMPLES = int(os.environ.get("TIDEMARK_TEST_EXAMPLES", "15"))  # interleavings; hundreds take minutes

COMMITS = condition_pb2.LowRemainingCommitBalanceReachedCondition()
LEVELS = ("90", "50", "0")


@pytest.fixture
async def other(caller: Caller) -> AsyncIterator[Caller]:
    """A caller of a second server on the same database."""
    async with beside(caller) as other:
        yield other


@dataclass(frozen=True)
class Sending:
    """Batches of customers and costs, each after a pause in milliseconds; again: each batch is sent twice."""

    pauses: Sequence[int]
    batches: Sequence[Sequence[tuple[str, int]]]
    again: bool


@dataclass(frozen=True)
class Adjusting:
    """Adjustments of one customer's balance, each after a pause."""

    customer: str
    pauses: Sequence[int]
    amounts: Sequence[int]


CUSTOMERS = ("ann", "bob", "cid")
pauses = st.integers(0, 12)


@st.composite
def sendings(draw: st.DrawFn) -> Sending:
    costs = st.sampled_from([1, 2, 3, 5, 8, -1, -4])
    batches = st.lists(st.tuples(st.sampled_from(CUSTOMERS), costs), min_size=1, max_size=8)
    sent = draw(st.lists(batches, min_size=2, max_size=6))
    return Sending(draw(st.lists(pauses, min_size=len(sent), max_size=len(sent))), sent, draw(st.booleans()))


@st.composite
def adjustings(draw: st.DrawFn) -> Adjusting:
    amounts = draw(st.lists(st.sampled_from([5, 7, -2, -6]), min_size=1, max_size=5))
    waits = draw(st.lists(pauses, min_size=len(amounts), max_size=len(amounts)))
    return Adjusting(draw(st.sampled_from(CUSTOMERS)), waits, amounts)


async def send(caller: Caller, other: Caller, name: str, sending: Sending) -> None:
    """Sends the batches; the retry goes through the other server."""
    for number, (pause, batch) in enumerate(zip(sending.pauses, sending.batches, strict=True)):
        await asyncio.sleep(pause / 1000)
        events = [
            caller.event(f"{name}-{number}-{place}", "1", customer, cost=str(cost))
            for place, (customer, cost) in enumerate(batch)
        ]
        answer = await caller.send(*events)
        assert answer.accepted == len(batch)
        if sending.again:
            assert (await other.send(*events)).duplicates == len(batch)


async def adjust(caller: Caller, name: str, adjusting: Adjusting) -> None:
    """Makes the adjustments."""
    holder = Holder(caller, adjusting.customer)
    for number, (pause, amount) in enumerate(zip(adjusting.pauses, adjusting.amounts, strict=True)):
        await asyncio.sleep(pause / 1000)
        await holder.adjust("deep", str(amount), f"{name}-{number}")


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    sent=st.lists(sendings(), min_size=2, max_size=4),
    adjusted=st.lists(adjustings(), max_size=2),
    moves=st.lists(pauses, max_size=2),
)
async def test_concurrent_draws_adjustments_and_timers_of_two_servers_add_up(
    caller: Caller,
    clock: ManualClock,
    other: Caller,
    database: Database,
    sent: list[Sending],
    adjusted: list[Adjusting],
    moves: list[int],
) -> None:
    """The balances always suffice, so that every order of the steps draws the same amount in total."""
    name, key = await organization(caller.database_url, clock)
    own = [Caller(one.server, clock, caller.database_url, name, key) for one in (caller, other)]
    now, timers = clock.now(), timers_of(database, clock)
    await own[0].create(alert(*LEVELS, low_remaining_commit_balance_reached=COMMITS))
    for customer in CUSTOMERS:
        first = Holder(own[0], customer)
        await first.put("first", spans=[("40", now - timedelta(days=1), now + timedelta(hours=1))], priority=-1)
        await first.put("next", spans=[("30", now + timedelta(hours=1), None)], priority=-1)
        await first.put("deep", "60", allow_overage=True)

    async def move() -> None:
        for pause in moves:
            await asyncio.sleep(pause / 1000)
            clock.set(clock.now() + timedelta(minutes=40))
            await timers.sweep()

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as together:
        for number, sending in enumerate(sent):
            together.create_task(send(own[number % 2], own[1 - number % 2], str(number), sending))
        for number, adjusting in enumerate(adjusted):
            together.create_task(adjust(own[number % 2], str(number), adjusting))
        together.create_task(move())
    await work_off(timers, database, clock)
    for customer in CUSTOMERS:
        holder = Holder(own[1], customer)
        cost = sum(amount for one in sent for batch in one.batches for who, amount in batch if who == customer)
        granted = sum(sum(one.amounts) for one in adjusted if one.customer == customer)
        segments = await holder.segments()
        overage = (await holder.overage()).get("USD", Decimal(0))
        assert sum(Decimal(one.drawn) for one in segments.values()) + overage == cost
        assert sum(Decimal(one.granted) for one in segments.values()) == 130 + granted
        added = dict.fromkeys(segments, Decimal(0))
        for entry in await holder.entries():
            added[entry.balance_id, entry.segment_number] += Decimal(entry.amount)
        assert added == {where: Decimal(one.remaining) for where, one in segments.items()}
        # The gauge that single draws have moved equals the remaining amount.
        remaining = sum((await holder.remaining()).values())
        [[stored]] = await own[0].rows(
            "SELECT value FROM gauge WHERE organization_id = %(organization_id)s AND customer_id = %(customer)s",
            customer=customer,
        )
        assert stored == remaining
        # By sequence: a transaction that waited for the wallet while the clock moved has an earlier time.
        notifications = sorted(
            (one for one in await own[1].notifications() if one.customer_id == customer), key=lambda one: one.sequence
        )
        notified = [(one.level, one.kind) for notification in notifications for one in notification.transitions]
        for level in LEVELS:
            kinds = [kind for of_level, kind in notified if of_level == level]
            assert kinds == [("REACHED", "RESOLVED")[number % 2] for number in range(len(kinds))]
            assert len(kinds) % 2 == (remaining <= int(level))


async def test_timer_and_draw_at_the_same_time_record_a_transition_once(
    caller: Caller, clock: ManualClock, other: Caller, database: Database
) -> None:
    """The first transaction that locks the wallet evaluates its due timer before its own change."""
    acme, now = Holder(caller), clock.now()
    await caller.create(alert("35", "20", low_remaining_commit_balance_reached=COMMITS))
    await acme.put("old", spans=[("100", now, now + timedelta(hours=1))])
    await acme.put("new", spans=[("30", now, None)])
    assert await acme.spend("e0", "1") == []
    async with ingest_held(caller):
        clock.set(now + timedelta(hours=1))
        working = [
            asyncio.create_task(acme.spend("e1", "5")),
            asyncio.create_task(Holder(other).spend("e2", "5")),
            asyncio.create_task(timers_of(database, clock).sweep()),
            asyncio.create_task(timers_of(database, clock).sweep()),
            asyncio.create_task(Holder(other).adjust("new", "-1", "a1")),
        ]
        await waiting_for_locks(caller, 4)
    await asyncio.gather(*working)
    assert await acme.remaining() == {"old": 0, "new": 19}
    notified = [one for crossed in await acme.notified() for one in crossed]
    assert [(one.kind, one.level, one.previous_value, one.value) for one in notified[:1]] == [
        ("REACHED", "35", "129", "30")
    ]
    assert [(one.kind, one.level) for one in notified[1:]] == [("REACHED", "20")]


async def test_transactions_on_the_same_customers_in_different_orders_do_not_deadlock(
    caller: Caller, other: Caller
) -> None:
    """Batches and adjustments of the same customers lock wallets in one order, before any gauge."""
    customers = [f"c{number:02d}" for number in range(20)]
    await caller.create(alert("50", low_remaining_commit_balance_reached=COMMITS))
    await caller.create(spend_alert("10"))
    for customer in customers:
        await Holder(caller, customer).put("c", "100")

    def batch(name: str, order: Sequence[str]) -> list[usage_pb2.UsageEvent]:
        return [caller.event(f"{name}-{customer}", "1", customer, cost="20") for customer in order]

    async with ingest_held(caller):
        working = [
            asyncio.create_task(one.send(*batch(name, order)))
            for one, name, order in (
                (caller, "a", customers),
                (other, "b", customers[::-1]),
                (other, "c", customers[7:] + customers[:7]),
            )
        ]
        changing = [
            asyncio.create_task(Holder(one, customer).adjust("c", "1", f"a-{customer}"))
            for one, customer in zip([caller, other] * 10, customers[::-1], strict=True)
        ]
        await waiting_for_locks(caller, 3)
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*working)
        await asyncio.gather(*changing)
    for customer in customers:
        holder = Holder(other, customer)
        assert await holder.remaining() == {"c": 41}
        assert [one.kind for crossed in await holder.notified() for one in crossed if one.level == "50"] == [
            "REACHED"
        ]


async def test_batch_that_is_rolled_back_and_repeated_draws_once(caller: Caller, other: Caller) -> None:
    """The other server has stored one of its events meanwhile, and the transaction starts again."""
    acme = Holder(caller)
    await caller.create(alert("95", low_remaining_commit_balance_reached=COMMITS))
    await acme.put("c", "100")
    async with ingest_held(caller):
        sending = [
            asyncio.create_task(one.send(caller.event("e1", cost="3"), caller.event(name, cost="4")))
            for one, name in ((caller, "e2"), (other, "e3"))
        ]
        await waiting_for_locks(caller, 2)
    answers = await asyncio.gather(*sending)
    assert sorted((answer.accepted, answer.duplicates) for answer in answers) == [(1, 1), (2, 0)]
    assert await acme.remaining() == {"c": 89}
    assert [one.level for crossed in await acme.notified() for one in crossed] == ["95"]
    [entry, *draws] = await acme.entries()
    assert [draw.amount for draw in draws] == ["-7", "-4"]
    assert entry.amount == "100"

"""A few events of known customers are stored and counted in one round trip, or else in the ordinary way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from engine.ingest import small_commit
from engine.ingest.batches import Batch
from engine.ingest.commit import Committer
from engine.rules.registry import RulesRegistry
from evaluator.events import UsageEvent
from generated.tidemark.v1 import metric_pb2
from runtime.clock import ManualClock
from store.commits import small
from store.identity.organizations import Organization
from store.postgres.database import Database
from store.usage import events as stored_events
from tests.support.balances.holder import Holder
from tests.support.usage.caller import Caller, ShortTransition, ingest_held, usage_alert, waiting_for_locks
from tests.support.usage.service import GRACE

Step = Callable[..., Awaitable[Any]]

EARLIER = 2
POOL_SIZE = 2


@dataclass
class Ways:
    """How often each way was taken since the test began. before: awaited before the statements of a small commit."""

    small: int = 0
    copies: int = 0
    before: Callable[[], Awaitable[Any]] | None = None


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    """Counts the ways of the commits of this process."""
    counted = Ways()
    execute: Step = small.store_and_move
    copy: Step = stored_events.copy

    async def executing(*arguments: Any) -> Any:
        counted.small += 1
        if counted.before is not None:
            await counted.before()
        return await execute(*arguments)

    async def copying(*arguments: Any) -> Any:
        counted.copies += 1
        return await copy(*arguments)

    monkeypatch.setattr(small, "store_and_move", executing)
    monkeypatch.setattr(stored_events, "copy", copying)
    return counted


@pytest.fixture
async def database(caller: Caller) -> AsyncIterator[Database]:
    """The database of the caller's server."""
    made = Database(caller.database_url, pool_size=POOL_SIZE)
    yield made
    await made.close()


@pytest.fixture
async def committer(caller: Caller, database: Database, clock: ManualClock) -> Committer:
    """A committer with a registry of rules of its own, for the caller's organization."""
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    organization = Organization(organization_id, caller.organization)
    return Committer(database, clock, GRACE, RulesRegistry(), organization)


def batch(clock: ManualClock, *events: tuple[str, str], gauges: bool = True, customer: str = "acme") -> Batch:
    """A batch of events of one customer, each with its id and quantity."""
    return Batch(
        [
            UsageEvent(event_id, customer, clock.now(), "calls", Decimal(quantity), None, None, None, {})
            for event_id, quantity in events
        ],
        include_gauges=gauges,
    )


async def make_known(committer: Committer, clock: ManualClock, ways: Ways) -> None:
    """Commits EARLIER events of no quantity, after which the customer and the metric are known."""
    # The first one registers both. A metric is read once more after that, since all customers share it.
    for number in range(EARLIER):
        await committer.commit([batch(clock, (f"earlier {number}", "0"))])
    assert (ways.small, ways.copies) == (0, EARLIER)
    ways.copies = 0


async def test_small_commit_is_taken_when_the_customer_is_known(
    caller: Caller, clock: ManualClock, committer: Committer, ways: Ways
) -> None:
    await caller.create(usage_alert("10"))
    await make_known(committer, clock, ways)
    await committer.commit([batch(clock, ("e1", "4"))])
    [outcome] = await committer.commit([batch(clock, ("e2", "4"), ("e3", "3"))])
    assert (ways.small, ways.copies) == (2, 0)
    assert (outcome.accepted, list(map(int, (value for _, value in outcome.gauges)))) == (2, [11])
    assert [one.transition.level for one in outcome.transitions] == [10]
    assert [one.transitions for one in await caller.notifications()] == [
        [ShortTransition("REACHED", "10", "8", "11", "e3")]
    ]


async def test_large_commit_takes_the_ordinary_way(
    clock: ManualClock, committer: Committer, caller: Caller, ways: Ways
) -> None:
    await make_known(committer, clock, ways)
    many = small_commit.MOST_EVENTS + 1
    [outcome] = await committer.commit([batch(clock, *((f"e{number}", "1") for number in range(many)))])
    assert (outcome.accepted, ways.small, ways.copies) == (many, 0, 1)
    assert await caller.event_count() == EARLIER + many


async def test_duplicate_in_a_small_commit_counts_nothing_beside_a_new_event_that_does(
    caller: Caller, clock: ManualClock, committer: Committer, ways: Ways
) -> None:
    await caller.create(usage_alert("1000"))
    await make_known(committer, clock, ways)
    await committer.commit([batch(clock, ("e1", "4"))])
    [outcome] = await committer.commit([batch(clock, ("e2", "5"), ("e1", "4"))])
    assert (outcome.accepted, outcome.duplicates, list(map(int, (value for _, value in outcome.gauges)))) == (
        1,
        [1],
        [9],
    )
    [outcome] = await committer.commit([batch(clock, ("e3", "1"), ("e2", "6"))])
    assert (outcome.accepted, outcome.conflicting, list(map(int, (value for _, value in outcome.gauges)))) == (
        1,
        [1],
        [10],
    )
    assert (ways.small, ways.copies) == (3, 0)  # the two with a duplicate were rolled back
    assert await caller.event_count() == EARLIER + 3


async def test_alert_that_is_created_after_the_plan_of_a_small_commit_is_evaluated_by_it(
    caller: Caller, clock: ManualClock, committer: Committer, ways: Ways
) -> None:
    await make_known(committer, clock, ways)
    await committer.commit([batch(clock, ("e1", "4"))])

    async def create() -> None:
        ways.before = None
        await caller.create_only(usage_alert("5"), evaluate=False)

    ways.before = create
    [outcome] = await committer.commit([batch(clock, ("e2", "4"))])
    assert (ways.small, ways.copies) == (2, 1)  # rolled back, and done in the ordinary way
    assert [value for _, value in outcome.gauges] == [8]
    assert await caller.event_count() == EARLIER + 2
    [outcome] = await committer.commit([batch(clock, ("e3", "1"))])
    assert [value for _, value in outcome.gauges] == [9]


async def test_events_that_another_server_stores_after_the_plan_are_duplicates(
    caller: Caller, clock: ManualClock, committer: Committer, ways: Ways
) -> None:
    await caller.create(usage_alert("1000"))
    await make_known(committer, clock, ways)
    await committer.commit([batch(clock, ("e1", "4"))])

    async def send() -> None:
        ways.before = None
        assert (await caller.send(caller.event("e2", "5"))).accepted == 1

    ways.before = send
    [outcome] = await committer.commit([batch(clock, ("e2", "5"), ("e3", "1"))])
    assert (outcome.accepted, outcome.duplicates, list(map(int, (value for _, value in outcome.gauges)))) == (
        1,
        [0],
        [10],
    )
    assert await caller.event_count() == EARLIER + 3


@pytest.mark.parametrize("aggregation", ["MAX", "LATEST", "COUNT"])
async def test_small_commit_evaluates_gauges_of_every_aggregation(
    caller: Caller, clock: ManualClock, committer: Committer, ways: Ways, aggregation: str
) -> None:
    await caller.put_metric("calls", metric_pb2.Aggregation.Value(f"AGGREGATION_{aggregation}"))
    await caller.create(usage_alert("4"))
    await committer.commit([batch(clock, ("e1", "1"))])
    assert (ways.small, ways.copies) == (0, 1)
    [outcome] = await committer.commit([batch(clock, ("e2", "7"))])
    assert [value for _, value in outcome.gauges] == [2 if aggregation == "COUNT" else 7]
    assert len(outcome.transitions) == (aggregation != "COUNT")
    assert (ways.small, ways.copies) == (1, 1)


async def test_small_commits_draw_on_balances_once(
    caller: Caller, clock: ManualClock, committer: Committer, ways: Ways
) -> None:
    holder = Holder(caller)
    await make_known(committer, clock, ways)
    await holder.put("b", "100")
    [first] = await committer.commit([spending(clock, "e1", "30")])
    # The first small commit finds the balance, and is done again in the ordinary way; the next ones expect it.
    assert (first.accepted, ways.small, ways.copies) == (1, 1, 1)
    assert await holder.remaining() == {"b": Decimal(70)}
    [second] = await committer.commit([spending(clock, "e2", "5")])
    assert (second.accepted, ways.small, ways.copies) == (1, 2, 1)
    assert await holder.remaining() == {"b": Decimal(65)}
    [again] = await committer.commit([spending(clock, "e2", "5")])
    assert (again.accepted, again.duplicates) == (0, [0])
    assert await holder.remaining() == {"b": Decimal(65)}


def spending(clock: ManualClock, event_id: str, cost: str) -> Batch:
    """A batch of one event with a cost, in the currency of its customer."""
    return Batch([UsageEvent(event_id, "acme", clock.now(), "calls", Decimal(1), None, Decimal(cost), None, {})])


async def test_failed_small_commit_stores_nothing_and_is_contained(
    caller: Caller, clock: ManualClock, committer: Committer, monkeypatch: pytest.MonkeyPatch, ways: Ways
) -> None:
    await caller.create(usage_alert("10"))
    await make_known(committer, clock, ways)
    await committer.commit([batch(clock, ("e1", "4"))])
    calls: list[int] = []

    async def failing(*_: Any) -> None:
        calls.append(1)
        raise ValueError("a bug")

    monkeypatch.setattr("engine.ingest.commit_transactions.count_moved", failing)
    [outcome] = await committer.commit([batch(clock, ("e2", "4"))])
    # Containment takes the ordinary way, which works.
    assert (calls, outcome.accepted, list(map(int, (value for _, value in outcome.gauges)))) == ([1], 1, [8])
    assert await caller.event_count() == EARLIER + 2


async def test_small_commits_of_two_servers_wait_for_each_other_and_do_not_deadlock(
    caller: Caller, clock: ManualClock, committer: Committer, database: Database, ways: Ways
) -> None:
    await caller.create(usage_alert("100000"))
    names = [f"c{number}" for number in range(6)]

    def mixed(event_id: str, order: int) -> Batch:
        customers = names if order else names[::-1]
        return Batch([one for name in customers for one in batch(clock, (event_id, "1"), customer=name).events])

    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    other = Committer(database, clock, GRACE, RulesRegistry(), Organization(organization_id, caller.organization))
    for one, event_id in ((committer, "known"), (other, "known too")):
        await one.commit([mixed(event_id, 0)])

    async def send(one: Committer, name: str, order: int) -> None:
        for number in range(30):
            # Every second batch is sent by both, in another order.
            event_id = f"{number}" if number % 2 else f"{name}-{number}"
            await one.commit([mixed(event_id, order)])

    await asyncio.gather(send(committer, "a", 0), send(other, "b", 1))
    assert ways.small >= 50
    assert await caller.event_count() == 6 * (2 + 15 + 30)
    [outcome] = await committer.commit([Batch(mixed("last", 0).events, include_gauges=True)])
    assert {value for _, value in outcome.gauges} == {2 + 15 + 30 + 1}
    async with await psycopg.AsyncConnection.connect(caller.database_url) as connection:
        cursor = await connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert await cursor.fetchall() == [(0,)]


async def test_small_commits_use_the_connections_of_the_pool_again(
    clock: ManualClock, committer: Committer, database: Database, ways: Ways
) -> None:
    await make_known(committer, clock, ways)
    backends = set()
    for number in range(5):
        await committer.commit([batch(clock, (f"e{number}", "1"))])
        async with database.raw_transaction() as connection:
            backends.add(connection.info.backend_pid)
    assert (ways.small, len(backends)) == (5, 1)


async def test_cancelled_small_commit_leaves_a_connection_that_begins_transactions(
    caller: Caller, clock: ManualClock, committer: Committer, database: Database, ways: Ways
) -> None:
    """A small commit begins its transaction itself; the driver must do that again for what comes after it."""
    await make_known(committer, clock, ways)
    async with ingest_held(caller):
        waiting = asyncio.create_task(committer.commit([batch(clock, ("e1", "4"))]))
        await waiting_for_locks(caller)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    for _ in range(POOL_SIZE + 1):
        with contextlib.suppress(ZeroDivisionError):
            async with database.raw_transaction() as connection:
                assert not connection.autocommit
                await connection.execute("DELETE FROM event")
                raise ZeroDivisionError
    assert await caller.event_count() == EARLIER
    [outcome] = await committer.commit([batch(clock, ("e1", "4"))])
    assert (outcome.accepted, ways.small) == (1, 2)
    async with database.raw_transaction() as connection:
        assert not connection.autocommit
    assert await caller.event_count() == EARLIER + 1

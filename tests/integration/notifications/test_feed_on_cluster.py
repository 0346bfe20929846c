"""The feed and the outbox on a cluster: order and completeness, however the nodes are written, moved and lost.

A worker is ended for all databases on it: only one test run at a time can use the cluster.
"""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from store.deliveries import cluster_outbox
from store.notifications.placing import assign_positions
from store.postgres.database import Database, DatabaseUnavailable
from tests.support.databases import Template
from tests.support.notifications.watching import committer, notify
from tests.support.postgres.nodes import workers
from tests.support.postgres.worker_node import WorkerNode, customers_by_node, move_away
from tests.support.usage.caller import Caller
from tests.support.waiting import within

pytestmark = pytest.mark.skipif(
    not workers(), reason="no cluster is named: set TIDEMARK_TEST_DATABASE_URL and TIDEMARK_TEST_CITUS_WORKERS"
)

CUSTOMERS = [f"customer-{number}" for number in range(6)]
POOL = 6  # connections
ROUNDS = 12  # notifications of each customer
MOVED_AFTER = ROUNDS // 2


@pytest.fixture
async def pool(caller: Caller) -> AsyncIterator[Database]:
    """Connections of the test's own to the coordinator."""
    opened = Database(caller.database_url, pool_size=POOL)
    yield opened
    await opened.close()


@pytest.fixture
async def organization_id(caller: Caller) -> int:
    [[found]] = await caller.rows("SELECT %(organization_id)s::bigint")
    return int(found)


def urls(caller: Caller, template: Template) -> list[str]:
    """The caller's database on each node, the coordinator first."""
    return template.nodes.urls_of(str(conninfo_to_dict(caller.database_url)["dbname"]))


async def sequences(caller: Caller) -> dict[str, list[int]]:
    """The sequences of each customer in the order of the feed."""
    found = defaultdict[str, list[int]](list)
    for customer_id, sequence in await caller.rows(
        "SELECT customer_id, sequence FROM feed_entry"
        " JOIN notification USING (organization_id, customer_id, notification_id)"
        " WHERE organization_id = %(organization_id)s ORDER BY place"
    ):
        found[customer_id].append(sequence)
    return found


async def in_feed(caller: Caller) -> set[str]:
    """The customers that have entries in the feed."""
    rows = await caller.rows("SELECT customer_id FROM feed_entry WHERE organization_id = %(organization_id)s")
    return {str(customer_id) for (customer_id,) in rows}


async def place(pool: Database, organization_id: int, limit: int = 1_000) -> int:
    """Gives positions in one transaction; returns how many."""
    async with pool.transaction() as connection:
        return (await assign_positions(connection, organization_id, limit)).number


async def places_all(pool: Database, organization_id: int) -> None:
    """Gives positions to all, and deletes what has one."""
    while await unplaced(pool, organization_id):
        await place(pool, organization_id)


async def unplaced(pool: Database, organization_id: int) -> int:
    """The rows of feed_pending."""
    async with pool.raw_transaction() as connection:
        cursor = await connection.execute(
            "SELECT count(*) FROM feed_pending WHERE organization_id = %s", (organization_id,)
        )
        [[number]] = await cursor.fetchall()
    return int(number)


@pytest.mark.parametrize("limit", [2, 1_000])
async def test_a_gauge_keeps_its_order_whichever_node_its_notifications_come_through(
    caller: Caller, pool: Database, organization_id: int, template: Template, limit: int
) -> None:
    """Each customer's are written at either worker and at the coordinator in turn, and its shard moves meanwhile."""
    nodes, chance, done = urls(caller, template), random.Random(17), asyncio.Event()

    async def written(url: str, customer_id: str, sequence: int) -> bool:
        """Whether it was; not while its shard moves for longer than a statement waits for it."""
        with suppress(psycopg.errors.LockNotAvailable):
            async with committer(caller, url) as writer:
                await writer.notifies((customer_id, sequence))
                await writer.commits()
            return True
        return False

    async def writes(customer_id: str) -> None:
        for sequence in range(1, ROUNDS + 1):
            while not await written(chance.choice(nodes), customer_id, sequence):
                pass
            if sequence == MOVED_AFTER and customer_id == CUSTOMERS[0]:
                await asyncio.to_thread(move_away, caller.database_url, customer_id)

    async def places() -> None:
        while not done.is_set():
            with suppress(DatabaseUnavailable):  # as above
                await place(pool, organization_id, limit)

    async with within("the end of all writers"), asyncio.TaskGroup() as group:
        readers = [group.create_task(places()) for _ in range(2)]
        await asyncio.gather(*map(writes, CUSTOMERS))
        done.set()
        await asyncio.gather(*readers)
    await places_all(pool, organization_id)
    assert await sequences(caller) == {one: list(range(1, ROUNDS + 1)) for one in CUSTOMERS}


async def test_positions_that_were_committed_are_not_given_again(
    caller: Caller, pool: Database, organization_id: int
) -> None:
    """As after a crash between the positions and the deletion, any number of times."""
    await notify(caller, ("ann", 1), ("bob", 1))
    for number, waits in ((2, 2), (0, 0)):
        assert await place(pool, organization_id) == number
        assert await unplaced(pool, organization_id) == waits
    await notify(caller, ("ann", 2), ("ann", 3))
    for number in (2, 0):
        assert await place(pool, organization_id, 2) == number
    assert await sequences(caller) == {"ann": [1, 2, 3], "bob": [1]}


async def take(pool: Database, taken: Counter[str], limit: int, *, fails: Callable[[], bool] = lambda: False) -> int:
    """Takes rows of the outbox in a transaction, which rolls back if it fails; returns how many."""
    async with pool.transaction() as connection:
        rows = await cluster_outbox.take(connection, limit)
        if fails():
            raise RuntimeError
    taken.update(row.notification_id for row in rows)
    return len(rows)


async def test_each_row_of_the_outbox_is_taken_once_by_several_notifiers(caller: Caller, pool: Database) -> None:
    await caller.rows("DELETE FROM outbox RETURNING 1")
    chance, taken = random.Random(17), Counter[str]()
    for customer_id in CUSTOMERS:
        await notify(caller, *((customer_id, sequence) for sequence in range(1, ROUNDS + 1)))

    async def notifier() -> None:
        while sum(taken.values()) < len(CUSTOMERS) * ROUNDS:
            with suppress(RuntimeError):
                await take(pool, taken, 5, fails=lambda: chance.random() < 0.3)

    async with within("the end of the outbox"), asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(notifier())
    assert set(taken.values()) == {1}
    assert len(taken) == len(CUSTOMERS) * ROUNDS
    assert await take(pool, taken, 5) == 0


async def until_all_sessions_know(step: Callable[[], Awaitable[int]]) -> int:
    """Repeats a step whose sessions notice the loss of a worker, or its return, by an error each."""
    for _ in range(2 * POOL):
        with suppress(DatabaseUnavailable):
            return await step()
    return await step()


@pytest.mark.time_limit(120)
async def test_a_lost_worker_keeps_back_its_own_customers_only_and_loses_nothing(
    caller: Caller, pool: Database, organization_id: int, template: Template
) -> None:
    await caller.rows("DELETE FROM outbox RETURNING 1")
    lost, _ = workers()
    by_node = customers_by_node(caller.database_url, CUSTOMERS)
    there = {customer for node, customers in by_node.items() if node != lost for customer in customers}
    assert 0 < len(there) < len(CUSTOMERS)
    taken = Counter[str]()
    await notify(caller, *((customer_id, 1) for customer_id in CUSTOMERS))
    worker = WorkerNode(lost, template.nodes.url_on(lost))
    await worker.crash()
    try:
        assert await until_all_sessions_know(lambda: place(pool, organization_id)) == len(there)
        assert await in_feed(caller) == there
        assert await until_all_sessions_know(lambda: take(pool, taken, 100)) == len(there)
    finally:
        await worker.start()
        template.nodes.connect_again()
    assert await until_all_sessions_know(lambda: take(pool, taken, 100)) == len(CUSTOMERS) - len(there)
    assert set(taken.values()) == {1}
    assert await until_all_sessions_know(lambda: place(pool, organization_id)) == len(CUSTOMERS) - len(there)
    assert await in_feed(caller) == set(CUSTOMERS)

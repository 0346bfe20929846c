"""The feed and the outbox on a cluster: order and completeness, however the nodes are written, moved and lost.

A worker is ended for all databases on it: only one test run at a time can use the cluster.
"""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from store.citus.nodes import Node
from store.deliveries import cluster_outbox
from store.notifications.placing import assign_positions
from store.postgres.database import Database, DatabaseUnavailable
from tests.support.databases import Template
from tests.support.notifications.watching import committer, notify
from tests.support.postgres.nodes import workers
from tests.support.postgres.worker_node import WorkerNode, customers_by_node, move_shard
from tests.support.usage.caller import Caller
from tests.support.waiting import within

pytestmark = pytest.mark.skipif(
    not workers(), reason="no cluster is named: set TIDEMARK_TEST_DATABASE_URL and TIDEMARK_TEST_CITUS_WORKERS"
)

CUSTOMERS = [f"customer-{number}" for number in range(6)]
ROUNDS = 12  # notifications of each customer
MOVED_AFTER = ROUNDS // 2


@pytest.fixture
async def pool(caller: Caller) -> AsyncIterator[Database]:
    """Connections of the test's own to the coordinator."""
    opened = Database(caller.database_url, pool_size=6)
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


async def places_all(pool: Database, organization_id: int) -> None:
    """Gives positions to all, and deletes what has one."""
    placed = 1
    while placed:
        async with pool.transaction() as connection:
            found = await assign_positions(connection, organization_id)
        placed = found.number + found.more


async def unplaced(caller: Caller) -> int:
    [[number]] = await caller.rows("SELECT count(*) FROM feed_pending WHERE organization_id = %(organization_id)s")
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
                [here] = customers_by_node(caller.database_url, [customer_id])
                [there] = [one for one in workers() if one != here]
                await asyncio.to_thread(move_shard, caller.database_url, customer_id, there)

    async def places() -> None:
        while not done.is_set():
            with suppress(DatabaseUnavailable):  # as above
                async with pool.transaction() as connection:
                    await assign_positions(connection, organization_id, limit)

    async with within("the end of all writers"), asyncio.TaskGroup() as group:
        readers = [group.create_task(places()) for _ in range(2)]
        await asyncio.gather(*map(writes, CUSTOMERS))
        done.set()
        await asyncio.gather(*readers)
    await places_all(pool, organization_id)
    assert await sequences(caller) == {one: list(range(1, ROUNDS + 1)) for one in CUSTOMERS}
    assert await unplaced(caller) == 0


async def test_positions_that_were_committed_are_not_given_again(
    caller: Caller, pool: Database, organization_id: int
) -> None:
    """As after a crash between the positions and the deletion, any number of times."""
    await notify(caller, ("ann", 1), ("bob", 1))
    for number, waits in ((2, 2), (0, 0)):
        async with pool.transaction() as connection:
            assert (await assign_positions(connection, organization_id)).number == number
        assert await unplaced(caller) == waits
    await notify(caller, ("ann", 2), ("ann", 3))
    for number in (2, 0):
        async with pool.transaction() as connection:
            assert (await assign_positions(connection, organization_id, 2)).number == number
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


@pytest.mark.time_limit(120)
async def test_a_lost_worker_keeps_back_its_own_customers_only_and_loses_nothing(
    caller: Caller, pool: Database, organization_id: int, template: Template
) -> None:
    await caller.rows("DELETE FROM outbox RETURNING 1")
    lost, _ = workers()
    by_node: dict[Node, list[str]] = customers_by_node(caller.database_url, CUSTOMERS)
    [there] = [customers for node, customers in by_node.items() if node != lost]
    taken = Counter[str]()
    await notify(caller, *((customer_id, 1) for customer_id in CUSTOMERS))
    worker = WorkerNode(lost, template.nodes.url_on(lost))
    await worker.crash()
    try:
        failures = 0
        while len(await in_feed(caller)) < len(there):
            try:
                async with pool.transaction() as connection:
                    await assign_positions(connection, organization_id)
            except DatabaseUnavailable:
                failures += 1
                assert failures < 5
        assert await in_feed(caller) == set(there)
        failures = 0
        while sum(taken.values()) < len(there):
            try:
                await take(pool, taken, 100)
            except DatabaseUnavailable:
                failures += 1
                assert failures < 5
        assert len(taken) == len(there)
    finally:
        await worker.start()
        template.nodes.connect_again()
    # Only now can a statement ask all shards again.
    while sum(taken.values()) < len(CUSTOMERS):
        with suppress(DatabaseUnavailable):
            await take(pool, taken, 100)
    assert set(taken.values()) == {1}
    await places_all(pool, organization_id)
    assert await sequences(caller) == {one: [1] for one in CUSTOMERS}

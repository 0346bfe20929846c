"""The order of locks: whatever locks rows of several customers takes them by the id of the customer.

On a cluster, wallets and reservations are locked shard by shard. A transaction that waits for the second of three
rows then holds the first one, and not the third.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from evaluator.balances import Unit
from store.balances import wallets
from store.enforcement import reservation_locks, reservations
from store.erasures.customers_above import note_change_below
from store.postgres.database import Connection, Database, driver
from store.postgres.distributed import on_cluster
from tests.support.databases import NOON
from tests.support.postgres.lock_waits import until_it_waits_for_a_lock

CUSTOMERS = ("a", "b", "c")
UNSORTED = ("c", "a", "b")

Lock = Callable[[Connection, int], Awaitable[object]]


async def _wallets(connection: Connection, org: int) -> object:
    return await wallets.lock(connection, org, UNSORTED)


async def _many(connection: Connection, org: int) -> object:
    return await wallets.locked(await wallets.send_lock(await driver(connection), org, UNSORTED))


async def _drawing(connection: Connection, org: int) -> object:
    return await wallets.lock_with_drawdown(connection, org, UNSORTED)


async def _with_others(connection: Connection, org: int) -> object:
    return await wallets.lock_with_others(await driver(connection), org, ["c"], ["b", "a", "z"])


async def _reservations(connection: Connection, org: int) -> object:
    raw = await driver(connection)
    keys = [(one, f"r-{one}") for one in UNSORTED]
    return await reservations.records(await reservation_locks.send_lock(raw, org, keys))


async def _customers(connection: Connection, org: int) -> None:
    await note_change_below(await driver(connection), org, ["c", "b", "a"], 7, NOON)


async def _order(connection: Connection, table: str) -> list[str]:
    """The customers in the order in which their rows are locked."""
    raw = await driver(connection)
    if table == "customer" or not on_cluster(raw):
        return list(CUSTOMERS)
    cursor = await raw.execute(
        "SELECT id FROM unnest(%s::text[]) AS i (id)"
        " ORDER BY get_shard_id_for_distribution_column('organization_epoch', id), id COLLATE \"C\"",
        (list(CUSTOMERS),),
    )
    return [row[0] for row in await cursor.fetchall()]


async def _make(connection: Connection, org: int) -> None:
    await wallets.lock(connection, org, CUSTOMERS)
    raw = await driver(connection)
    for one in CUSTOMERS:
        await wallets.add_drawdown_unit(connection, org, one, Unit("USD"), None)
        await raw.execute(
            "INSERT INTO reservation (organization_id, customer_id, reservation_id, state, digest, metric_id,"
            " quantity, overage_policy, outcome, granted_quantity, event_time, create_time, expire_time)"
            " VALUES (%s, %s, %s, 'OPEN', '00000000-0000-0000-0000-000000000001', 'm', 1, "
            "'CAP', 'ALLOWED', 1, %s, %s,"
            " %s)",
            (org, one, f"r-{one}", NOON, NOON, NOON),
        )
        await raw.execute(
            "INSERT INTO customer (organization_id, customer_id, anchor_time, cadence, interval_count, time_zone,"
            " create_time, update_time, changed_epoch) VALUES (%s, %s, %s, 'MONTHLY', 1, 'UTC', %s, %s, 1)",
            (org, one, NOON, NOON, NOON),
        )


@pytest.mark.parametrize(
    ("table", "lock"),
    [
        pytest.param("wallet", _wallets, id="wallets"),
        pytest.param("wallet", _many, id="many wallets"),
        pytest.param("wallet", _drawing, id="wallets with drawdown"),
        pytest.param("wallet", _with_others, id="wallets with others"),
        pytest.param("reservation", _reservations, id="reservations"),
        pytest.param("customer", _customers, id="customers"),
    ],
)
async def test_rows_of_customers_are_locked_in_one_order(shared: Database, org: int, table: str, lock: Lock) -> None:
    async with shared.transaction() as connection:
        await _make(connection, org)
        first, second, third = await _order(connection, table)

    async def free(connection: Connection, customer: str) -> bool:
        found = await (await driver(connection)).execute(
            f"SELECT 1 FROM {table} WHERE organization_id = %s AND customer_id = %s FOR UPDATE SKIP LOCKED".encode(),
            (org, customer),
        )
        return await found.fetchone() is not None

    async def lock_all() -> None:
        async with shared.transaction() as connection:
            await lock(connection, org)

    async with shared.transaction() as holder:
        assert await free(holder, second)  # and holds it from now on
        waiting = asyncio.create_task(lock_all())
        await until_it_waits_for_a_lock(shared, waiting)
        async with shared.transaction() as observer:
            assert [await free(observer, one) for one in (first, second, third)] == [False, False, True]
    await waiting


async def test_transactions_that_lock_in_different_ways_do_not_deadlock(shared: Database, org: int) -> None:
    async with shared.transaction() as connection:
        await _make(connection, org)
    inside = 0

    async def repeat(lock: Lock) -> None:
        nonlocal inside
        for _ in range(10):
            async with shared.transaction() as connection:
                await lock(connection, org)
                assert not inside
                inside += 1
                await asyncio.sleep(0)
                inside -= 1

    await asyncio.gather(*(repeat(lock) for lock in (_wallets, _many, _drawing, _with_others) * 2))

"""Changes that come while a group waits for its lock."""

import asyncio
import functools
from collections.abc import Sequence

import pytest

from engine.changes.groups import ChangeGroups
from engine.changes.open_change import OpenChange
from store.postgres.database import Connection, Database
from tests.support.change_groups import Refused, plan, plans, store_plan
from tests.support.postgres.lock_waits import WAITING_SESSIONS
from tests.support.usage.caller import until
from tests.support.waiting import within


class Prepared:
    """Plans, for each of which something is done before the lock."""

    goes_last = False

    def needs_preparing(self, item: str) -> bool:
        return True

    async def prepare(self, connection: Connection, organization_id: int, items: Sequence[str]) -> Sequence[None]:
        return [None] * len(items)

    async def apply(self, change: OpenChange, items: Sequence[str]) -> Sequence[str]:
        for name in items:
            await store_plan(change, name)
        return items


@pytest.mark.parametrize("needs_preparing", [False, True])
async def test_changes_that_come_while_a_group_waits_for_its_lock_join_it_unless_they_are_prepared(
    database: Database, organization_id: int, groups: ChangeGroups, needs_preparing: bool
) -> None:
    kind = Prepared()
    async with database.raw_transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (0x7469, organization_id))
        first = asyncio.create_task(groups.run(organization_id, plan("a")))
        await until(functools.partial(is_waiting, database))
        late = asyncio.create_task(groups.run(organization_id, plan("b")))
        await asyncio.sleep(0)
        if needs_preparing:
            later = asyncio.create_task(groups.run_together(organization_id, kind, "c"))
        else:
            later = asyncio.create_task(groups.run(organization_id, plan("c")))
        await asyncio.sleep(0)
    async with within("the changes"):
        assert [*await asyncio.gather(first, late, later)] == ["a", "b", "c"]
    epochs = await plans(database, organization_id)
    assert epochs["b"] == epochs["a"]
    assert epochs["c"] == epochs["a"] + needs_preparing


async def test_a_late_change_that_fails_leaves_the_others_of_its_group(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    async with database.raw_transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (0x7469, organization_id))
        first = asyncio.create_task(groups.run(organization_id, plan("a")))
        await until(functools.partial(is_waiting, database))
        late = [
            asyncio.create_task(groups.run(organization_id, plan("b", refuse=Refused()))),
            asyncio.create_task(groups.run(organization_id, plan("c"))),
            asyncio.create_task(groups.run(organization_id, plan("d"))),
        ]
        await asyncio.sleep(0)
        late[2].cancel()
    async with within("the changes"):
        done = await asyncio.gather(first, *late, return_exceptions=True)
    assert [one if isinstance(one, str) else type(one) for one in done] == [
        "a",
        Refused,
        "c",
        asyncio.CancelledError,
    ]
    assert set(await plans(database, organization_id)) == {"a", "c"}


async def is_waiting(database: Database) -> bool:
    """Whether a session waits for a lock."""
    async with database.raw_transaction() as connection:
        cursor = await connection.execute(WAITING_SESSIONS.encode())
        row = await cursor.fetchone()
    return row is not None and row[0] > 0

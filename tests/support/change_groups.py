"""Groups of changes for tests: changes that put plans, held back or refused, and what is stored of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest

from engine.changes.groups import ChangeGroups
from engine.changes.open_change import OpenChange
from engine.limits import ChangeLimits
from runtime.clock import ManualClock
from runtime.fair_semaphore import FairSemaphore
from store.identity import organizations
from store.postgres.database import Database
from tests.support.databases import NOON
from tests.support.waiting import within

Write = Callable[[OpenChange], Awaitable[str]]


class Refused(Exception):
    """A change that refuses itself."""


@pytest.fixture
async def organization_id(database: Database) -> int:
    async with database.transaction() as connection:
        return await organizations.get_or_create(connection, "ours", NOON)


@pytest.fixture
async def groups(database: Database, clock: ManualClock) -> AsyncIterator[ChangeGroups]:
    # On a busy machine, a few changes take longer than the limit of a group.
    limits = ChangeLimits(seconds=60.0)
    groups = ChangeGroups(database, clock, FairSemaphore(4), lambda _: False, limits)
    yield groups
    await groups.drain()


def plan(name: str, *, refuse: Exception | None = None, after: Awaitable[object] | None = None) -> Write:
    """A change that stores a plan. Then it waits for `after`, and refuses itself if it has to."""

    async def write(change: OpenChange) -> str:
        await store_plan(change, name)
        if after is not None:
            await after
        if refuse is not None:
            raise refuse
        return name

    return write


async def store_plan(change: OpenChange, name: str) -> None:
    await change.driver.execute(
        "INSERT INTO plan (organization_id, plan_id, display_name, custom_fields, as_of_time, create_time,"
        " update_time, changed_epoch) VALUES (%s, %s, '', '{}', %s, %s, %s, %s)",
        (change.organization_id, name, change.now, change.now, change.now, change.epoch),
    )


async def plans(database: Database, organization_id: int) -> dict[str, int]:
    """The epoch of each stored plan, by its id."""
    async with database.raw_transaction() as connection:
        cursor = await connection.execute(
            "SELECT plan_id, changed_epoch FROM plan WHERE organization_id = %s", (organization_id,)
        )
        return dict(await cursor.fetchall())


async def epoch_of(database: Database, organization_id: int) -> int:
    async with database.transaction() as connection:
        return await organizations.current_epoch(connection, organization_id)


@dataclass
class Held:
    """The first change of an organization, which keeps the others waiting until it is released."""

    groups: ChangeGroups
    organization_id: int
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def _wait(self, change: OpenChange) -> str:
        self.begun.set()
        await self.released.wait()
        return "first"

    async def start(self) -> asyncio.Task[str]:
        """Starts it; returns when the lock is held."""
        first = asyncio.create_task(self.groups.run(self.organization_id, self._wait))
        async with within("the first change"):
            await self.begun.wait()
        return first


async def together(
    groups: ChangeGroups, organization_id: int, writes: Sequence[Write], **how: bool
) -> list[str | BaseException]:
    """What became of changes that waited for the same group."""
    held = Held(groups, organization_id)
    first = await held.start()
    waiting = [asyncio.create_task(groups.run(organization_id, write, **how)) for write in writes]
    await asyncio.sleep(0)
    held.released.set()
    async with within("the changes"):
        done = await asyncio.gather(*waiting, return_exceptions=True)
        await first
    return done

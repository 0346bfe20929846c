"""Changes that wait together share a transaction; each has its own outcome."""

import asyncio
import random
from collections.abc import Sequence
from contextvars import ContextVar

import psycopg

from engine.changes.groups import ChangeGroups
from engine.changes.open_change import OpenChange
from engine.limits import ChangeLimits
from runtime.clock import ManualClock
from runtime.fair_semaphore import FairSemaphore
from store.identity import organizations
from store.postgres.database import Connection, Database, DatabaseUnavailable
from tests.support.change_groups import (
    Held,
    Refused,
    Write,
    epoch_of,
    plan,
    plans,
    store_plan,
    together,
)
from tests.support.databases import NOON
from tests.support.waiting import within

ROUNDS = 40  # of the random test


async def test_changes_that_wait_together_share_one_epoch(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    before = await epoch_of(database, organization_id)
    names = [f"p{number}" for number in range(20)]
    assert await together(groups, organization_id, [plan(name) for name in names]) == names
    # One epoch for the change that kept them waiting, and one for all of them.
    assert await plans(database, organization_id) == dict.fromkeys(names, before + 2)
    assert await epoch_of(database, organization_id) == before + 2


async def test_a_refused_change_leaves_its_neighbours(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    refused = Refused()
    done = await together(groups, organization_id, [plan("a"), plan("b", refuse=refused), plan("c")])
    assert done == ["a", refused, "c"]
    assert set(await plans(database, organization_id)) == {"a", "c"}


async def test_a_change_whose_statement_fails_leaves_its_neighbours(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    done = await together(groups, organization_id, [plan("a"), plan("a"), plan("b")])
    assert done[0] == "a"
    assert done[2] == "b"
    assert isinstance(done[1], psycopg.errors.UniqueViolation)
    assert set(await plans(database, organization_id)) == {"a", "b"}


async def test_a_change_that_conflicts_with_the_epoch_of_its_neighbours_is_made_alone(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    async def named_after_the_epoch(change: OpenChange) -> str:
        await store_plan(change, f"of epoch {change.epoch}")
        return str(change.epoch)

    before = await epoch_of(database, organization_id)
    done = await together(groups, organization_id, [named_after_the_epoch, named_after_the_epoch])
    assert done == [str(before + 2), str(before + 3)]
    assert len(await plans(database, organization_id)) == 2


async def test_changes_that_only_validate_are_rolled_back_and_raise_no_epoch(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    before = await epoch_of(database, organization_id)
    assert await groups.run(organization_id, plan("a"), keep=False) == "a"
    done = await asyncio.gather(*(groups.run(organization_id, plan("a"), keep=False) for _ in range(5)))
    assert done == ["a"] * 5
    assert await epoch_of(database, organization_id) == before
    kept, validated = await asyncio.gather(
        groups.run(organization_id, plan("b")), groups.run(organization_id, plan("c"), keep=False)
    )
    assert (kept, validated) == ("b", "c")
    assert set(await plans(database, organization_id)) == {"b"}


async def test_changes_that_are_all_refused_raise_no_epoch(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    before = await epoch_of(database, organization_id)
    done = await together(groups, organization_id, [plan("a", refuse=Refused()), plan("b", refuse=Refused())])
    assert [type(one) for one in done] == [Refused, Refused]
    # The change that kept them waiting raised it.
    assert await epoch_of(database, organization_id) == before + 1


async def test_a_group_is_bounded_by_rows_and_by_time(
    database: Database, organization_id: int, clock: ManualClock
) -> None:
    names = [f"p{number}" for number in range(10)]
    for limits, most in ((ChangeLimits(rows=9, seconds=60.0), 2), (ChangeLimits(seconds=0.0), 1)):
        groups = ChangeGroups(database, clock, FairSemaphore(4), lambda _: False, limits)
        writes = [plan(f"{limits.rows} {name}") for name in names]
        await together(groups, organization_id, writes)
        stored = await plans(database, organization_id)
        epochs = [epoch for name, epoch in stored.items() if name.startswith(f"{limits.rows} ")]
        assert len(epochs) == 10
        assert max(epochs.count(epoch) for epoch in epochs) <= most


async def test_a_cancelled_caller_takes_its_waiting_change_back(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    held = Held(groups, organization_id)
    first = await held.start()
    gone = asyncio.create_task(groups.run(organization_id, plan("gone")))
    stays = asyncio.create_task(groups.run(organization_id, plan("stays")))
    await asyncio.sleep(0)
    gone.cancel()
    held.released.set()
    async with within("the changes"):
        assert await first == "first"
        assert await stays == "stays"
    assert gone.cancelled()
    assert set(await plans(database, organization_id)) == {"stays"}


async def test_a_change_in_progress_is_made_though_its_caller_is_cancelled(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    held = Held(groups, organization_id)
    begun, released = asyncio.Event(), asyncio.Event()

    async def slow(change: OpenChange) -> str:
        await store_plan(change, "slow")
        begun.set()
        await released.wait()
        return "slow"

    first = await held.start()
    gone = asyncio.create_task(groups.run(organization_id, slow))
    stays = asyncio.create_task(groups.run(organization_id, plan("stays")))
    held.released.set()
    async with within("the changes"):
        await begun.wait()
        gone.cancel()
        released.set()
        assert await stays == "stays"
        await first
    assert gone.cancelled()
    assert set(await plans(database, organization_id)) == {"slow", "stays"}


async def test_a_lost_connection_fails_the_whole_group_and_stores_nothing_of_it(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    async def end_the_session(change: OpenChange) -> str:
        await change.driver.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return "never"

    done = await together(groups, organization_id, [plan("a"), end_the_session, plan("b")])
    assert [type(one) for one in done] == [DatabaseUnavailable] * 3
    assert len({id(one) for one in done}) == 3  # each caller counts its own tries
    assert not await plans(database, organization_id)
    assert await groups.run(organization_id, plan("c")) == "c"


async def test_a_lock_that_is_held_for_too_long_fails_its_own_change_only(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    async def wait_for_the_lock(change: OpenChange) -> str:
        await change.driver.execute("SET LOCAL lock_timeout = '10ms'")
        await change.driver.execute("SELECT FROM organization WHERE name = 'other' FOR UPDATE")
        return "never"

    async with database.transaction() as connection:
        await organizations.get_or_create(connection, "other", NOON)
    async with database.raw_transaction() as holder:
        await holder.execute("SELECT FROM organization WHERE name = 'other' FOR UPDATE")
        done = await together(groups, organization_id, [plan("a"), wait_for_the_lock, plan("b")])
    assert [done[0], done[2]] == ["a", "b"]
    assert isinstance(done[1], DatabaseUnavailable)
    assert done[1].failure.kind == "lock_timeout"
    assert set(await plans(database, organization_id)) == {"a", "b"}


async def test_a_group_whose_frame_fails_is_repeated_one_by_one(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    broken = RuntimeError("cannot prepare")

    class Broken:
        goes_last = False

        def needs_preparing(self, item: str) -> bool:
            return True

        async def prepare(
            self, connection: Connection, organization_id: int, items: Sequence[str]
        ) -> Sequence[str | Exception | None]:
            raise broken

        async def apply(self, change: OpenChange, items: Sequence[str]) -> Sequence[str | Exception]:
            raise AssertionError("it was not prepared")

    held = Held(groups, organization_id)
    first = await held.start()
    waiting = [
        asyncio.create_task(groups.run(organization_id, plan("a"))),
        asyncio.create_task(groups.run_together(organization_id, Broken(), "x")),
        asyncio.create_task(groups.run(organization_id, plan("b"))),
    ]
    await asyncio.sleep(0)
    held.released.set()
    async with within("the changes"):
        assert await asyncio.gather(first, *waiting, return_exceptions=True) == ["first", "a", broken, "b"]
    assert set(await plans(database, organization_id)) == {"a", "b"}


async def test_an_organization_does_not_wait_for_another(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    async with database.transaction() as connection:
        other = await organizations.get_or_create(connection, "other", NOON)
    held = Held(groups, organization_id)
    first = await held.start()
    async with within("the change of the other organization"):
        assert await groups.run(other, plan("theirs")) == "theirs"
    held.released.set()
    await first
    assert not await plans(database, organization_id)
    assert set(await plans(database, other)) == {"theirs"}


async def test_each_change_runs_in_the_context_of_its_call(organization_id: int, groups: ChangeGroups) -> None:
    caller = ContextVar[str]("caller", default="none")

    async def who(change: OpenChange) -> str:
        return caller.get()

    async def call(name: str) -> str:
        caller.set(name)
        return await groups.run(organization_id, who)

    names = [f"caller {number}" for number in range(10)]
    assert await asyncio.gather(*(asyncio.create_task(call(name)) for name in names)) == names


async def test_groups_keep_a_distance_only_while_usage_comes_in(
    database: Database, organization_id: int, clock: ManualClock
) -> None:
    limits = ChangeLimits(share=0.000_001, longest_pause=60.0)
    busy = ChangeGroups(database, clock, FairSemaphore(4), lambda asked: asked == organization_id, limits)
    async with within("the first change"):
        await busy.run(organization_id, plan("a"))
    second = asyncio.create_task(busy.run(organization_id, plan("b")))
    done, _ = await asyncio.wait([second], timeout=0.2)
    assert not done
    # A drain ends the pause.
    async with within("the drain"):
        await busy.drain()
    assert await second == "b"


async def test_any_order_of_starts_refusals_and_cancellations_makes_each_change_once_or_not_at_all(
    database: Database, organization_id: int, clock: ManualClock
) -> None:
    chance = random.Random()
    groups = ChangeGroups(database, clock, FairSemaphore(4), lambda _: False, ChangeLimits(rows=20, seconds=0.01))

    async def call(name: str, write: Write) -> str:
        await asyncio.sleep(chance.random() / 50)
        return await groups.run(organization_id, write, keep=chance.random() < 0.8)

    for round_number in range(ROUNDS):
        names = [f"{round_number} {number}" for number in range(chance.randrange(1, 30))]
        refused = {name for name in names if chance.random() < 0.2}
        calls = {
            name: asyncio.create_task(call(name, plan(name, refuse=Refused() if name in refused else None)))
            for name in names
        }
        for name in names:
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() / 100)
                calls[name].cancel()
        async with within("the changes of a round"):
            done = await asyncio.gather(*calls.values(), return_exceptions=True)
        stored = await plans(database, organization_id)
        for name, one in zip(names, done, strict=True):
            assert one == name or isinstance(one, Refused | asyncio.CancelledError)
            assert not (name in refused and name in stored)
            assert isinstance(one, Refused) <= (name in refused)
    await groups.drain()
    async with within("the last change"):
        assert await groups.run(organization_id, plan("last")) == "last"

"""Changes of one kind in a group are made by one call."""

import asyncio
from collections.abc import Sequence

from engine.changes.groups import ChangeGroups
from engine.changes.open_change import OpenChange
from engine.limits import ChangeLimits
from runtime.clock import ManualClock
from runtime.fair_semaphore import FairSemaphore
from store.postgres.database import Connection, Database
from tests.support.change_groups import Held, Refused, Write, epoch_of, plan, plans, store_plan
from tests.support.waiting import within


class Plans:
    """Plans that one statement stores; it refuses names that begin with `no`, and fails on `bad`."""

    goes_last = False

    def needs_preparing(self, item: str) -> bool:
        return True

    def __init__(self) -> None:
        self.prepared: list[list[str]] = []
        self.applied: list[list[str]] = []

    async def prepare(
        self, connection: Connection, organization_id: int, items: Sequence[str]
    ) -> Sequence[str | Exception | None]:
        self.prepared.append(list(items))
        return ["known" if name == "known" else None for name in items]

    async def apply(self, change: OpenChange, items: Sequence[str]) -> Sequence[str | Exception]:
        self.applied.append(list(items))
        if "bad" in items:
            raise Refused
        done: list[str | Exception] = []
        for name in items:
            if name.startswith("no"):
                done.append(Refused())
            else:
                await store_plan(change, name)
                done.append(name)
        return done


async def all_of(groups: ChangeGroups, organization_id: int, kind: Plans, items: Sequence[str]) -> list[str | None]:
    """The results of items that wait together; None for those that are refused."""
    held = Held(groups, organization_id)
    first = await held.start()
    waiting = [asyncio.create_task(groups.run_together(organization_id, kind, item)) for item in items]
    await asyncio.sleep(0)
    held.released.set()
    async with within("the items"):
        done = await asyncio.gather(*waiting, return_exceptions=True)
        await first
    return [None if isinstance(one, Refused) else str(one) for one in done]


async def test_items_of_one_kind_are_made_by_one_call(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    kind = Plans()
    items = ["a", "no", "known", "b"]
    assert await all_of(groups, organization_id, kind, items) == ["a", None, "known", "b"]
    assert kind.prepared == [items]
    assert kind.applied == [["a", "no", "b"]]
    assert set(await plans(database, organization_id)) == {"a", "b"}


async def test_an_item_that_fails_its_kind_leaves_the_others(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    kind = Plans()
    assert await all_of(groups, organization_id, kind, ["a", "bad", "b"]) == ["a", None, "b"]
    assert kind.applied == [["a", "bad", "b"], ["a"], ["bad"], ["b"]]
    assert set(await plans(database, organization_id)) == {"a", "b"}


async def test_an_item_that_fails_the_only_kind_of_a_group_leaves_the_others(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    kind, other = Plans(), Plans()
    held = Held(groups, organization_id)
    first = await held.start()
    items = ["a", "bad", "no", "b"]
    waiting = [asyncio.create_task(groups.run_together(organization_id, kind, item)) for item in items]
    waiting.append(asyncio.create_task(groups.run_together(organization_id, other, "c")))
    await asyncio.sleep(0)
    held.released.set()
    async with within("the items"):
        done = await asyncio.gather(*waiting, return_exceptions=True)
        await first
    assert [one if isinstance(one, str) else type(one) for one in done] == ["a", Refused, Refused, "b", "c"]
    assert set(await plans(database, organization_id)) == {"a", "b", "c"}


class LastPlans(Plans):
    """Plans that are stored after all other changes of their group."""

    goes_last = True

    def __init__(self, order: list[str]) -> None:
        super().__init__()
        self.order = order

    async def apply(self, change: OpenChange, items: Sequence[str]) -> Sequence[str | Exception]:
        self.order.append(f"{','.join(items)} last" if change.is_last else ",".join(items))
        return await super().apply(change, items)


async def test_a_kind_that_goes_last_is_made_after_other_changes(organization_id: int, groups: ChangeGroups) -> None:
    order = list[str]()

    def noted(name: str) -> Write:
        async def write(change: OpenChange) -> str:
            order.append(f"{name} last" if change.is_last else name)
            return await plan(name)(change)

        return write

    kind = LastPlans(order)
    assert await groups.run_together(organization_id, kind, "alone") == "alone"
    held = Held(groups, organization_id)
    first = await held.start()
    waiting = [
        asyncio.create_task(groups.run_together(organization_id, kind, "a")),
        asyncio.create_task(groups.run(organization_id, noted("b"))),
        asyncio.create_task(groups.run_together(organization_id, kind, "bad")),
        asyncio.create_task(groups.run(organization_id, noted("c"))),
    ]
    await asyncio.sleep(0)
    held.released.set()
    async with within("the changes"):
        done = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [one if isinstance(one, str) else type(one) for one in done] == ["first", "a", "b", Refused, "c"]
    # `bad` fails the common statement, so each of the two is made alone, and only one of them can be the last.
    assert order == ["alone last", "b", "c", "a,bad last", "a", "bad last"]


async def test_a_kind_that_goes_last_is_made_although_other_changes_keep_coming(
    database: Database, clock: ManualClock, organization_id: int
) -> None:
    order, kind = list[str](), LastPlans([])
    # Each group has time for one change only.
    groups = ChangeGroups(database, clock, FairSemaphore(4), lambda _: False, ChangeLimits(seconds=0.0))
    others = list[asyncio.Task[None]]()

    async def other(change: OpenChange) -> None:
        order.append("other")
        if len(order) < 10:
            others.append(asyncio.create_task(groups.run(organization_id, other)))
            await asyncio.sleep(0)

    async def last() -> None:
        await groups.run_together(organization_id, kind, "last")
        order.append("last")

    held = Held(groups, organization_id)
    first = await held.start()
    waiting = [asyncio.create_task(last()), asyncio.create_task(groups.run(organization_id, other))]
    await asyncio.sleep(0)
    held.released.set()
    async with within("the changes"):
        await asyncio.gather(first, *waiting)
    await groups.drain()
    assert order.index("last") < 5
    await asyncio.gather(*others)


async def test_items_that_need_no_lock_raise_no_epoch(
    database: Database, organization_id: int, groups: ChangeGroups
) -> None:
    before = await epoch_of(database, organization_id)
    kind = Plans()
    assert await groups.run_together(organization_id, kind, "known") == "known"
    assert not kind.applied
    assert await epoch_of(database, organization_id) == before

"""Work together: items that wait become one piece, and a failure concerns only the item that causes it."""

import asyncio
from collections.abc import Sequence

import pytest

from engine.puts.together import Together
from store.identity.organizations import Organization
from store.postgres.database import DatabaseUnavailable
from store.postgres.failures import CONNECTION_LOST, unavailable

OURS, THEIRS = Organization(1, "ours"), Organization(2, "theirs")


class Recorded:
    """Work that records its pieces, and waits for a permission before each."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, list[str]]] = []
        self.permission = asyncio.Event()

    async def __call__(self, organization: Organization, items: Sequence[str]) -> Sequence[str]:
        self.pieces.append((organization.organization_id, list(items)))
        await self.permission.wait()
        if "bad" in items:
            raise ValueError("bad")
        return [item.upper() for item in items]


async def asked(
    together: Together[str, str], *items: str, organization: Organization = OURS
) -> list["asyncio.Task[str]"]:
    """Tasks that ask for the items, and wait for them already."""
    tasks = [asyncio.create_task(together.ask(organization, item)) for item in items]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_items_that_come_during_a_piece_are_the_next_one() -> None:
    work = Recorded()
    together = Together(work, lambda item: item, 3)
    first = await asked(together, "a")
    rest = await asked(together, "b", "c", "d", "e")
    work.permission.set()
    assert await asyncio.gather(*first, *rest) == ["A", "B", "C", "D", "E"]
    assert work.pieces == [(1, ["a"]), (1, ["b", "c", "d"]), (1, ["e"])]


async def test_items_of_one_key_are_in_different_pieces_in_their_order() -> None:
    work = Recorded()
    together = Together(work, lambda item: item[0], 10)
    tasks = await asked(together, "a") + await asked(together, "b1", "b2", "c", "b3")
    work.permission.set()
    assert await asyncio.gather(*tasks) == ["A", "B1", "B2", "C", "B3"]
    assert [items for _, items in work.pieces] == [["a"], ["b1", "c"], ["b2"], ["b3"]]


async def test_callers_that_ask_for_one_item_share_its_work_when_it_is_done_once() -> None:
    work = Recorded()
    together = Together(work, lambda item: item, 3, once=True)
    tasks = await asked(together, "a") + await asked(together, "b", "b", "a", "b", "c")
    gone = tasks.pop(1)
    gone.cancel()
    work.permission.set()
    assert await asyncio.gather(*tasks) == ["A", "B", "A", "B", "C"]
    assert gone.cancelled()
    assert [items for _, items in work.pieces] == [["a"], ["b", "a", "c"]]


async def test_failure_of_the_database_is_an_error_of_its_own_for_each_caller() -> None:
    async def fails(organization: Organization, items: Sequence[str]) -> Sequence[str]:
        raise unavailable(CONNECTION_LOST)

    together = Together(fails, lambda item: item, 2, once=True)
    errors = await asyncio.gather(*await asked(together, "a", "a", "b"), return_exceptions=True)
    assert all(isinstance(one, DatabaseUnavailable) and one.failure is CONNECTION_LOST for one in errors)
    assert len(set(map(id, errors))) == 3


async def test_organizations_do_not_wait_for_each_other() -> None:
    work = Recorded()
    together = Together(work, lambda item: item, 10)
    tasks = await asked(together, "a") + await asked(together, "b", organization=THEIRS)
    assert work.pieces == [(1, ["a"]), (2, ["b"])]
    work.permission.set()
    await asyncio.gather(*tasks)


async def test_item_that_fails_does_not_fail_its_neighbours() -> None:
    work = Recorded()
    together = Together(work, lambda item: item, 10)
    tasks = await asked(together, "a") + await asked(together, "b", "bad", "c")
    work.permission.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(one) for one in results] == ["A", "B", "bad", "C"]


async def test_item_of_a_caller_that_has_gone_is_left_out_and_the_others_are_done() -> None:
    work = Recorded()
    together = Together(work, lambda item: item, 10)
    first = await asked(together, "a")
    gone, stays = await asked(together, "b", "c")
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    work.permission.set()
    assert await asyncio.gather(*first, stays) == ["A", "C"]
    assert [items for _, items in work.pieces] == [["a"], ["c"]]


async def test_drain_waits_for_the_work_of_a_caller_that_has_gone() -> None:
    work = Recorded()
    together = Together(work, lambda item: item, 10)
    [task] = await asked(together, "a")
    task.cancel()
    drained = asyncio.create_task(together.drain())
    await asyncio.sleep(0)
    assert not drained.done()
    work.permission.set()
    await drained

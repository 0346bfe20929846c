"""Few at once: calls of a heavy organization wait only beside a light one, and in their order."""

import asyncio

import pytest

from runtime.turns import of_loop
from server.calls.few_at_once import FewAtOnce

# A loop for each test: an organization that is heavy in one test would be so in the next.
pytestmark = pytest.mark.asyncio(loop_scope="function")

HEAVY, LIGHT = 1, 2


class Calls:
    """Calls of one organization that run until they are ended, and the order in which they began."""

    def __init__(self, few: FewAtOnce, organization_id: int) -> None:
        self.began = list[int]()
        self._few = few
        self._organization_id = organization_id
        self._ends = list[asyncio.Event]()
        self.tasks = list[asyncio.Task[None]]()

    async def begin(self, number: int) -> None:
        """Begins so many more calls."""
        for _ in range(number):
            self._ends.append(asyncio.Event())
            self.tasks.append(asyncio.create_task(self._call(len(self.tasks))))
        await passes()

    async def end(self, call: int) -> None:
        """Ends a call that runs."""
        self._ends[call].set()
        await passes()

    async def _call(self, number: int) -> None:
        async with self._few.turn(self._organization_id):
            self.began.append(number)
            await self._ends[number].wait()


async def passes() -> None:
    """Some passes of the event loop."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_calls_of_a_heavy_organization_wait_beside_a_light_one_in_their_order() -> None:
    heavy, light = Calls(few := FewAtOnce(2), HEAVY), Calls(few, LIGHT)
    of_loop().used_up(HEAVY)
    of_loop().begin_call(LIGHT)
    await heavy.begin(5)
    await light.begin(5)
    assert (heavy.began, light.began) == ([0, 1], [0, 1, 2, 3, 4])
    await heavy.end(1)
    await heavy.end(0)
    assert heavy.began == [0, 1, 2, 3]
    of_loop().end_call(LIGHT)
    of_loop().used_up(LIGHT)  # it does not count as a light neighbour any more
    await heavy.begin(1)
    assert heavy.began == [0, 1, 2, 3], "it keeps its place behind those that wait"
    await heavy.end(2)
    assert heavy.began == [0, 1, 2, 3, 4, 5], "without a light neighbour all run"
    for number in (3, 4, 5):
        await heavy.end(number)
    await asyncio.gather(*heavy.tasks)
    for number in range(5):
        await light.end(number)


async def test_cancelled_calls_leave_their_places() -> None:
    heavy = Calls(few := FewAtOnce(1), HEAVY)
    of_loop().used_up(HEAVY)
    of_loop().begin_call(LIGHT)
    await heavy.begin(4)
    heavy.tasks[1].cancel()  # while it waits
    await passes()
    await heavy.end(0)
    assert heavy.began == [0, 2]
    heavy.tasks[2].cancel()  # while it runs
    await passes()
    assert heavy.began == [0, 2, 3]
    await heavy.end(3)
    async with few.turn(HEAVY):
        pass
    of_loop().end_call(LIGHT)


async def test_call_that_is_cancelled_as_its_turn_comes_passes_it_on() -> None:
    heavy = Calls(FewAtOnce(1), HEAVY)
    of_loop().used_up(HEAVY)
    of_loop().begin_call(LIGHT)
    await heavy.begin(3)
    heavy._ends[0].set()
    while not heavy.tasks[0].done():  # noqa: ASYNC110 (until the next one has its turn, and has not run yet)
        await asyncio.sleep(0)
    heavy.tasks[1].cancel()
    await passes()
    assert heavy.began[-1] == 2
    await heavy.end(2)
    of_loop().end_call(LIGHT)

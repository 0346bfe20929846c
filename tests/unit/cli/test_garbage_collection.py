"""The collector searches few objects at a time, and survivors seldom, while a light organization uses the loop.

`tests/conftest.py` has set it up as a server does.
"""

import asyncio
import gc

from cli.serving.garbage_collection import BESIDE_LIGHT, PACE
from runtime.turns import of_loop


def allocate(searches: int) -> list[list[object]]:
    """Makes so many new objects that the collector searches that often among new objects."""
    before = gc.get_stats()[0]["collections"]
    kept: list[list[object]] = []
    while gc.get_stats()[0]["collections"] < before + searches:
        kept += [[] for _ in range(100)]
    return kept


async def survivors_are_searched(searches: int) -> bool:
    """Whether the survivors of so many searches are searched in the next pass of the loop."""
    gc.collect(1)
    before = gc.get_stats()[1]["collections"]
    kept = allocate(searches)
    assert gc.get_stats()[1]["collections"] == before, "not while other work is done"
    await asyncio.sleep(0)
    del kept
    return bool(gc.get_stats()[1]["collections"] > before)


async def test_survivors_are_searched_in_a_pass_of_the_loop() -> None:
    assert not await survivors_are_searched(PACE.survivors - 1)
    assert await survivors_are_searched(PACE.survivors)
    assert gc.get_threshold()[0] == PACE.young


async def test_searches_are_small_and_survivors_wait_while_a_light_organization_has_a_call_in_progress() -> None:
    of_loop().begin_call("light")
    assert not await survivors_are_searched(PACE.survivors)
    assert gc.get_threshold()[0] == BESIDE_LIGHT.young
    of_loop().used_up("light")
    of_loop().end_call("light")
    assert await survivors_are_searched(PACE.survivors)
    assert gc.get_threshold()[0] == PACE.young


def test_survivors_of_a_thread_without_a_loop_are_left() -> None:
    gc.collect(1)
    assert allocate(PACE.survivors)

"""Places: who gives way, and that a burst of quick calls never does."""

import asyncio

import pytest

from server.calls.errors import ResourceExhausted
from server.calls.places import Places

PATIENCE = 0.001  # seconds


async def wait(places: Places, holder: str, done: asyncio.Event) -> str:
    try:
        with places.waiting(holder):
            await done.wait()
    except ResourceExhausted:
        return "gave way"
    return "served"


async def test_the_largest_holder_loses_its_oldest() -> None:
    places, done = Places(3, "a test", patience=PATIENCE), asyncio.Event()
    few = asyncio.create_task(wait(places, "few", done))
    many = [asyncio.create_task(wait(places, "many", done)) for _ in range(5)]
    while places.count != 3:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    done.set()
    assert await asyncio.gather(*many) == ["gave way"] * 3 + ["served"] * 2
    assert await few == "served"
    assert places.count == 0


async def test_at_the_limit_nothing_gives_way() -> None:
    places, done = Places(3, "a test", patience=PATIENCE), asyncio.Event()
    tasks = [asyncio.create_task(wait(places, "one", done)) for _ in range(3)]
    for _ in range(10):
        await asyncio.sleep(0.002)
    assert places.count == 3
    done.set()
    assert await asyncio.gather(*tasks) == ["served"] * 3


async def test_a_burst_that_is_served_at_once_loses_nothing_even_when_the_loop_stood_still() -> None:
    places, done = Places(1, "a test", patience=PATIENCE), asyncio.Event()
    tasks = [asyncio.create_task(wait(places, "one", done)) for _ in range(100)]
    await asyncio.sleep(0)
    assert places.count == 100
    loop = asyncio.get_running_loop()
    end = loop.time() + 0.05
    while loop.time() < end:
        pass  # the moment of the first look, and of a second one, is over when the loop goes on
    loop.call_soon(done.set)
    assert await asyncio.gather(*tasks) == ["served"] * 100


async def test_a_cancellation_by_others_passes() -> None:
    places = Places(1, "a test", patience=PATIENCE)
    task = asyncio.create_task(wait(places, "one", asyncio.Event()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert places.count == 0


async def test_a_cancellation_beside_giving_way_passes() -> None:
    places = Places(0, "a test", patience=PATIENCE)
    task = asyncio.create_task(wait(places, "one", asyncio.Event()))
    while not task.cancelling():  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

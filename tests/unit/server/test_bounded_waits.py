"""BoundedWaits: which waits are evicted, and that a burst of quick calls is not."""

import asyncio

import pytest

from server.calls.bounded_waits import BoundedWaits
from server.calls.errors import ResourceExhausted

CHECK_INTERVAL = 0.001  # seconds


async def wait(waits: BoundedWaits, holder: str, done: asyncio.Event) -> str:
    try:
        with waits.waiting(holder):
            await done.wait()
    except ResourceExhausted:
        return "evicted"
    return "served"


async def test_the_holder_with_the_most_waits_loses_its_oldest() -> None:
    waits, done = BoundedWaits(3, "a test", check_interval=CHECK_INTERVAL), asyncio.Event()
    few = asyncio.create_task(wait(waits, "few", done))
    many = [asyncio.create_task(wait(waits, "many", done)) for _ in range(5)]
    while waits.count != 3:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    done.set()
    assert await asyncio.gather(*many) == ["evicted"] * 3 + ["served"] * 2
    assert await few == "served"
    assert waits.count == 0


async def test_at_the_limit_no_wait_is_evicted() -> None:
    waits, done = BoundedWaits(3, "a test", check_interval=CHECK_INTERVAL), asyncio.Event()
    tasks = [asyncio.create_task(wait(waits, "one", done)) for _ in range(3)]
    for _ in range(10):
        await asyncio.sleep(0.002)
    assert waits.count == 3
    done.set()
    assert await asyncio.gather(*tasks) == ["served"] * 3


async def test_a_burst_that_is_served_immediately_is_not_evicted_after_the_loop_was_blocked() -> None:
    waits, done = BoundedWaits(1, "a test", check_interval=CHECK_INTERVAL), asyncio.Event()
    tasks = [asyncio.create_task(wait(waits, "one", done)) for _ in range(100)]
    await asyncio.sleep(0)
    assert waits.count == 100
    loop = asyncio.get_running_loop()
    end = loop.time() + 0.05
    while loop.time() < end:
        pass  # the times of the first and the second check have passed when the loop continues
    loop.call_soon(done.set)
    assert await asyncio.gather(*tasks) == ["served"] * 100


async def test_a_cancellation_without_an_eviction_is_raised() -> None:
    waits = BoundedWaits(1, "a test", check_interval=CHECK_INTERVAL)
    task = asyncio.create_task(wait(waits, "one", asyncio.Event()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert waits.count == 0


async def test_a_cancellation_together_with_an_eviction_is_raised() -> None:
    waits = BoundedWaits(0, "a test", check_interval=CHECK_INTERVAL)
    task = asyncio.create_task(wait(waits, "one", asyncio.Event()))
    while not task.cancelling():  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

"""Turns: one slice of long work in each pass of the loop, keys in rotation."""

import asyncio
import contextlib

from runtime.turns import Slices, Turns


async def test_one_turn_is_given_in_each_pass_of_the_loop() -> None:
    shared, passes, number = Turns(), list[int](), 0

    async def work() -> None:
        await shared.take("one")
        passes.append(number)

    tasks = [asyncio.create_task(work()) for _ in range(5)]
    for number in range(1, 50):  # noqa: B007
        await asyncio.sleep(0)
    assert all(task.done() for task in tasks)
    assert len(set(passes)) == 5


async def test_keys_get_turns_in_rotation_and_each_keeps_its_own_order() -> None:
    shared, order = Turns(), list[str]()

    async def work(name: str) -> None:
        await shared.take(name[0])
        order.append(name)

    await asyncio.gather(*map(work, ("a1", "a2", "a3", "a4", "b1", "b2", "c1")))
    assert order == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


async def test_cancelled_wait_takes_no_turn() -> None:
    shared, order = Turns(), list[str]()

    async def work(name: str) -> None:
        await shared.take(name)
        order.append(name)

    tasks = [asyncio.create_task(work(name)) for name in "abc"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await tasks[1]
    async with asyncio.timeout(30):
        await tasks[2]
        await shared.take("d")
    assert order == ["a", "c"]


async def test_other_tasks_run_between_the_slices_of_long_work() -> None:
    between = 0

    async def other() -> None:
        nonlocal between
        while True:
            between += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    slices, seen = Slices(1, -1.0), list[int]()  # every slice is over at once
    for _ in range(10):
        await slices.pause()
        seen.append(between)
    beside.cancel()
    assert seen == sorted(set(seen)), "the other task ran in each pause but the first at the least"


async def test_slice_is_not_interrupted_before_its_duration_ends() -> None:
    slices, other = Slices(1, 1_000.0), asyncio.create_task(asyncio.sleep(0))
    for _ in range(10):
        await slices.pause()
    assert not other.done()
    await other

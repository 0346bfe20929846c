"""Turns: one slice of long work in each pass of the loop, keys in rotation."""

import asyncio
import contextlib
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.turns import (
    LIGHT_AFTER,
    MANY_CALLS,
    NEIGHBOUR_STAYS,
    PASSES,
    PIECE,
    SHORT_SLICE,
    SLICE,
    Pieces,
    Slices,
    Turns,
    of_loop,
)


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


async def test_passes_without_a_turn_follow_that_of_a_heavy_key_while_a_light_one_has_calls() -> None:
    shared, passes, number = Turns(), list[int](), 0

    async def work() -> None:
        await shared.take("heavy")
        passes.append(number)

    async def in_passes(tasks: list[asyncio.Task[None]]) -> None:
        nonlocal number
        while not all(task.done() for task in tasks):
            number += 1
            await asyncio.sleep(0)

    shared.begin_call("light")
    async with asyncio.timeout(30):
        await in_passes([asyncio.create_task(work()) for _ in range(5)])
    assert [later - earlier for earlier, later in itertools.pairwise(passes)] == [PASSES] * 4
    del passes[:]
    shared.end_call("light")
    async with asyncio.timeout(30):
        await in_passes([asyncio.create_task(work()) for _ in range(5)])
    assert [later - earlier for earlier, later in itertools.pairwise(passes)][1:] == [1] * 3


async def test_light_key_gets_its_turn_at_once_in_a_pass_that_is_kept_free() -> None:
    shared = Turns()
    shared.begin_call("light")
    await shared.take("heavy")
    for _ in range(PASSES - 2):
        await asyncio.sleep(0)
        took = asyncio.create_task(shared.take("light"))
        await asyncio.sleep(0)
        assert took.done()


async def test_slice_that_begins_at_once_waits_for_no_turn() -> None:
    slices, other = Slices(1, 1_000.0), asyncio.create_task(asyncio.sleep(0))
    await of_loop().take(2)  # the turn of this pass
    slices.begin_at_once()
    await slices.pause()
    assert not other.done()
    await other


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


class Time:
    """A clock that stands still until the test moves it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_slices_are_short_while_another_key_that_used_up_none_has_a_call_in_progress() -> None:
    time = Time()
    shared = Turns(time)
    shared.begin_call("noisy")
    shared.used_up("noisy")
    assert shared.slice_of("noisy") == SLICE
    for _ in range(2):
        shared.begin_call("quiet")
    assert (shared.slice_of("noisy"), shared.slice_of("quiet")) == (SHORT_SLICE, SLICE)
    shared.end_call("quiet")
    assert shared.slice_of("noisy") == SHORT_SLICE
    shared.end_call("quiet")
    assert shared.slice_of("noisy") == SHORT_SLICE, "its next call may come"
    time.seconds += NEIGHBOUR_STAYS
    assert shared.slice_of("noisy") == SLICE


def test_a_key_that_used_up_a_slice_is_light_again_after_some_time() -> None:
    time = Time()
    shared = Turns(time)
    shared.begin_call("quiet")
    shared.used_up("quiet")
    assert shared.is_heavy("quiet")
    assert not shared.has_light_neighbour("noisy")
    shared.begin_call("quiet")
    assert not shared.has_light_neighbour("noisy"), "a key is heavy, however many calls it begins"
    time.seconds += LIGHT_AFTER
    assert not shared.is_heavy("quiet")
    shared.begin_call("quiet")
    assert shared.has_light_neighbour("noisy")


def test_light_neighbour_counts_for_some_time_after_its_call() -> None:
    time = Time()
    shared = Turns(time)
    for key in ("first", "second", "third"):
        shared.begin_call(key)
        shared.end_call(key)
    assert shared.has_or_had_light_neighbour("noisy")
    assert not shared.has_light_neighbour("noisy")
    assert shared.has_or_had_light_neighbour("third")
    shared.used_up("third")
    assert not shared.has_or_had_light_neighbour("second"), "the others have become heavy"
    time.seconds += NEIGHBOUR_STAYS
    assert not shared.has_or_had_light_neighbour("noisy")
    shared.begin_call("first")
    assert shared.has_or_had_light_neighbour("noisy")
    assert not shared.has_or_had_light_neighbour("first")


async def test_light_key_gets_every_second_turn_and_no_more() -> None:
    shared, order = Turns(), list[str]()

    async def work(name: str) -> None:
        await shared.take(name[0])
        order.append(name)

    shared.begin_call("q")
    heavy = [asyncio.create_task(work(f"{key}{number}")) for number in range(3) for key in "abc"]
    await asyncio.sleep(0)
    light = [asyncio.create_task(work(f"q{number}")) for number in range(4)]
    async with asyncio.timeout(30):
        await asyncio.gather(*heavy, *light)
    first = order.index("q0")
    assert first <= 2
    assert order[first : first + 7 : 2] == ["q0", "q1", "q2", "q3"], "the heavy keys have the turns between them"
    assert [name for name in order if name[0] == "a"] == ["a0", "a1", "a2"]


@given(st.lists(st.tuples(st.sampled_from("abcq"), st.booleans(), st.integers(0, 3)), max_size=40))
@settings(max_examples=50, deadline=None)
def test_every_wait_for_a_turn_ends_whatever_the_order_of_calls_and_cancellations(
    steps: list[tuple[str, bool, int]],
) -> None:
    async def run() -> None:
        shared, done = Turns(), list[int]()
        shared.begin_call("q")
        tasks = []

        async def work(number: int, key: str) -> None:
            await shared.take(key)
            done.append(number)

        for number, (key, is_cancelled, passes) in enumerate(steps):
            task = asyncio.create_task(work(number, key))
            for _ in range(passes):
                await asyncio.sleep(0)
            if is_cancelled:
                task.cancel()
            if key == "b":
                shared.used_up(key)
            tasks.append(task)
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert {number for number, task in enumerate(tasks) if not task.cancelled()} == set(done)
        for key in "abc":  # each key keeps its order
            mine = [number for number in done if steps[number][0] == key]
            assert mine == sorted(mine)

    asyncio.run(run())


async def test_pieces_of_many_tasks_share_turns_and_let_other_tasks_run_between() -> None:
    pieces, done, between = Pieces("noisy"), list[int](), 0

    async def piece(number: int) -> None:
        await pieces.turn()
        done.append(number)

    of_loop().begin_call("quiet")
    tasks = [asyncio.create_task(piece(number)) for number in range(60)]
    cancelled = tasks[3]
    at_once = []
    async with asyncio.timeout(60):
        while not all(task.done() for task in tasks):
            before = len(done)
            await asyncio.sleep(0)
            between += 1
            if between == 1:
                cancelled.cancel()
            at_once.append(len(done) - before)
    of_loop().end_call("quiet")
    assert done == [number for number in range(60) if number != 3]
    assert 0 < max(at_once) <= SHORT_SLICE / PIECE


def test_key_with_many_calls_in_progress_is_heavy() -> None:
    now = 0.0
    shared = Turns(lambda: now)
    shared.begin_call("light")
    for _ in range(MANY_CALLS):
        shared.begin_call("busy")
    assert shared.has_light_neighbour("light")
    shared.begin_call("busy")
    assert shared.is_heavy("busy")
    assert not shared.has_light_neighbour("light")
    assert shared.has_light_neighbour("busy")
    for _ in range(MANY_CALLS + 1):
        shared.end_call("busy")
    now = LIGHT_AFTER + 0.1
    assert not shared.is_heavy("busy")

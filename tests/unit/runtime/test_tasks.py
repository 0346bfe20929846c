"""Background tasks: started, stopped and woken in any order, with steps that fail, hang and are slow to cancel."""

import asyncio
import contextlib
import gc
import logging
import random
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from runtime.backoff import Backoff
from runtime.tasks import UNTIL_WOKEN, BackgroundTask, FailureLog, Step
from tests.support.waiting import within

NAME = "of this test"
NEVER = 1e6  # seconds

logger = logging.getLogger(__name__)


class Away(Exception):
    """A failure that is expected."""


FAILURES = FailureLog(logger, "it failed", "it.failed", expected=(Away,))


def task_of(step: Step, **options: Any) -> BackgroundTask:
    options = {"failures": FAILURES, "backoff": Backoff(0.0, 0.0), "cancel_again": 0.001, **options}
    return BackgroundTask(step, name=NAME, **options)


def tasks_left() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == NAME]


async def until(condition: Callable[[], bool], missing: str) -> None:
    async with within(missing):
        while not condition():  # noqa: ASYNC110 (any change is waited for)
            await asyncio.sleep(0)


async def passes(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
async def no_failure_of_a_task_goes_unnoticed(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Fails a test that leaves a task behind, or a task's exception that is never retrieved."""
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    caplog.set_level(logging.CRITICAL, logger=__name__)  # thousands of failures are logged
    yield
    assert tasks_left() == []
    gc.collect()
    assert unhandled == []


class Steps:
    """Steps of random behaviour; counts how many have begun, and sees that they do not overlap."""

    def __init__(self, randomness: random.Random) -> None:
        self._randomness = randomness
        self._is_in_step = False
        self.begun = 0
        self.overlaps = 0
        self.kinds = [
            self._returns,
            self._pauses,
            self._raises,
            self._is_cancelled_inside,
            self._hangs,
            self._is_slow_to_cancel,
            self._ignores_one_cancellation,
            self._goes_on_after_one_cancellation,
        ]

    async def step(self) -> float | None:
        self.overlaps += self._is_in_step
        self._is_in_step = True
        self.begun += 1
        try:
            return await self._randomness.choice(self.kinds)()
        finally:
            self._is_in_step = False

    async def _returns(self) -> float | None:
        await passes(self._randomness.randrange(3))
        return None

    async def _pauses(self) -> float:
        await passes(self._randomness.randrange(3))
        return self._randomness.choice((0.0, NEVER))

    async def _raises(self) -> float | None:
        await passes(self._randomness.randrange(3))
        raise self._randomness.choice((Away, ZeroDivisionError))

    async def _is_cancelled_inside(self) -> float | None:
        other = asyncio.get_running_loop().create_future()
        other.cancel()
        await other
        return None

    async def _hangs(self) -> float | None:
        await asyncio.Event().wait()
        return None

    async def _is_slow_to_cancel(self) -> float | None:
        try:
            return await self._hangs()
        finally:
            await passes(20)

    async def _ignores_one_cancellation(self) -> float | None:
        with contextlib.suppress(asyncio.CancelledError):
            await self._hangs()
        return await self._hangs()

    async def _goes_on_after_one_cancellation(self) -> float | None:
        with contextlib.suppress(asyncio.CancelledError):
            await self._hangs()
        return 0.0


@pytest.mark.parametrize("seed", range(8))
async def test_a_task_that_starts_and_stops_in_any_order_leaves_nothing_running(seed: int) -> None:
    randomness = random.Random(seed)
    steps = Steps(randomness)
    task = task_of(steps.step, interval=randomness.choice((0.0, NEVER, UNTIL_WOKEN)))
    stops = list[asyncio.Task[None]]()
    operations: list[Callable[[], object]] = [
        task.start,
        task.start,
        task.wake,
        task.end,
        lambda: stops.append(asyncio.create_task(task.stop())),
        lambda: stops.append(asyncio.create_task(task.stop())),
    ]
    async with within("the end of all stops"):
        for _ in range(1_000):
            outcome = randomness.choice([*operations, task.stop])()
            if isinstance(outcome, Awaitable):
                await outcome
                assert not task.is_running
            await passes(randomness.randrange(6))
        await task.stop()
        await asyncio.gather(*stops)
    assert not task.is_running
    assert steps.begun
    assert steps.overlaps == 0
    # It still works.
    steps.kinds = [steps._returns]
    begun = steps.begun
    task.start()
    await until(lambda: steps.begun > begun, "a step after the last start")
    await task.stop()


@pytest.mark.parametrize("seed", range(4))
async def test_a_task_that_is_woken_at_any_time_begins_a_step_afterwards(seed: int) -> None:
    randomness = random.Random(seed)
    steps = Steps(randomness)
    steps.kinds = [steps._returns, steps._raises, steps._is_cancelled_inside]
    task = task_of(steps.step, first_pause=UNTIL_WOKEN, interval=UNTIL_WOKEN)
    if randomness.random() < 0.5:
        task.wake()  # before the start: not lost either
    task.start()
    for _ in range(500):
        await passes(randomness.randrange(8))
        task.wake()
        begun = steps.begun
        await until(lambda: steps.begun > begun, "a step after the wake-up")  # noqa: B023
    await task.stop()


async def test_a_task_pauses_as_long_as_its_step_says_or_else_for_its_interval() -> None:
    pauses = iter([None, 7.0, 0.0, None])

    async def step() -> float | None:
        return next(pauses)

    task, seen = task_of(step, first_pause=3.0, interval=NEVER), list[float | None]()
    task.start()
    for _ in range(4):
        await until(lambda: task.pause is not None, "a pause")
        seen.append(task.pause)
        task.wake()
        await until(lambda: task.pause is None, "the end of the pause")
    assert seen == [3.0, NEVER, 7.0, NEVER]  # and none after a step that wants none
    await task.stop()
    assert task.pause is None


async def test_a_task_backs_off_longer_with_each_failure_and_anew_after_a_success() -> None:
    outcomes = iter([Away(), ZeroDivisionError(), Away(), None, Away(), None])
    seen = list[float]()

    class Seen(Backoff):
        def next(self) -> float:
            seen.append(super().next())
            return 0.0

    async def step() -> float | None:
        if (outcome := next(outcomes)) is not None:
            raise outcome
        return 0.0 if len(seen) < 4 else UNTIL_WOKEN

    task = task_of(step, backoff=Seen(1.0, 3.0, random_part=0.0))
    task.start()
    await until(lambda: task.pause == UNTIL_WOKEN, "the last pause")
    assert seen == [1.0, 2.0, 3.0, 1.0]
    await task.stop()


async def test_a_wake_up_does_not_end_a_back_off_and_is_not_lost() -> None:
    async def step() -> float | None:
        raise Away

    task = task_of(step, backoff=Backoff(NEVER, NEVER, random_part=0.0))
    task.start()
    await until(lambda: task.pause == NEVER, "the back-off")
    task.wake()
    await passes(10)
    assert task.pause == NEVER
    await task.stop()


async def test_a_stop_before_the_start_does_nothing() -> None:
    begun = asyncio.Event()

    async def step() -> float | None:
        begun.set()
        return None

    task = task_of(step)
    await task.stop()
    task.end()
    await passes(5)
    assert not begun.is_set()
    task.start()
    async with within("the first step"):
        await begun.wait()
    await task.stop()


async def test_a_task_keeps_nothing_of_the_call_that_starts_it() -> None:
    class Call:
        pass

    current: ContextVar[Call] = ContextVar("call of this test")
    task = task_of(lambda: asyncio.sleep(0), interval=UNTIL_WOKEN)

    async def call() -> weakref.ref[Call]:
        current.set(made := Call())
        task.start()
        await passes(5)
        return weakref.ref(made)

    started_by = await asyncio.create_task(call())
    await passes(5)
    gc.collect()
    assert started_by() is None
    assert task.is_running
    await task.stop()


async def test_a_task_that_ends_or_stops_itself_makes_no_further_step() -> None:
    for leave in ("end", "stop"):
        count = 0

        async def step() -> float | None:
            nonlocal count
            count += 1
            outcome = getattr(task, leave)()  # noqa: B023
            if outcome is not None:
                await outcome
            return 0.0

        task = task_of(step)
        task.start()
        await until(lambda: not task.is_running, "its end")  # noqa: B023
        assert count == 1


async def test_a_clean_up_is_not_interrupted_by_a_second_stop() -> None:
    begun, is_clean = asyncio.Event(), asyncio.Event()

    async def step() -> float | None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await passes(20)
            is_clean.set()
        return None

    task = task_of(step, cancel_again=NEVER)
    task.start()
    async with within("the clean-up"):
        await begun.wait()
        stops = list[asyncio.Task[None]]()
        for _ in range(5):
            stops.append(asyncio.create_task(task.stop()))
            await passes(2)
        await asyncio.gather(*stops)
    assert is_clean.is_set()


async def test_a_task_that_was_cancelled_by_others_can_be_started_again() -> None:
    count = 0

    async def step() -> float | None:
        nonlocal count
        count += 1
        return None

    task = task_of(step)
    for number in (1, 2):
        task.start()
        await until(lambda: count == number, "a step")  # noqa: B023
        tasks_left()[0].cancel()
        await until(lambda: not task.is_running, "its end")
    task.start()
    await until(lambda: count == 3, "a step")
    await task.stop()


async def test_failures_are_logged_with_the_words_of_their_task(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger=__name__)
    outcomes = iter([Away("for a while"), ZeroDivisionError()])
    quiet = FAILURES
    speaking = FailureLog(logger, "it failed", "it.failed", (Away,), "it waits: %s", "it.waits")
    for failures, expected in (
        (quiet, [("ERROR", "it failed", "it.failed")]),
        (speaking, [("WARNING", "it waits: for a while", "it.waits"), ("ERROR", "it failed", "it.failed")]),
    ):
        outcomes = iter([Away("for a while"), ZeroDivisionError()])

        async def step() -> float | None:
            if (outcome := next(outcomes, None)) is not None:  # noqa: B023
                raise outcome
            return None

        caplog.clear()
        task = task_of(step, failures=failures)
        task.start()
        await until(lambda: task.pause == UNTIL_WOKEN, "the last pause")  # noqa: B023
        await task.stop()
        records = [record for record in caplog.records if record.name == __name__]
        assert [
            (record.levelname, record.getMessage(), getattr(record, "action", None)) for record in records
        ] == expected
        assert [bool(record.exc_info) for record in records] == [level == "ERROR" for level, *_ in expected]

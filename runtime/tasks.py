"""Background tasks: a step that a process repeats from start to stop, with pauses, wake-ups and a back-off."""

import asyncio
import contextlib
import contextvars
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from runtime.backoff import Backoff

CANCEL_AGAIN = 10.0  # seconds after which a step that has not ended is cancelled once more
UNTIL_WOKEN = math.inf  # the pause that only `wake` ends

Step = Callable[[], Awaitable[float | None]]


@dataclass(frozen=True)
class FailureLog:
    """How a background task logs the failures of its steps.

    expected: errors that are no faults, such as a database that is away. They are logged as a warning with
    `expected_message`, which takes the error as its one argument, or not at all when there is none.
    """

    logger: logging.Logger
    message: str
    action: str
    expected: tuple[type[BaseException], ...] = ()
    expected_message: str = ""
    expected_action: str = ""

    def write(self, error: BaseException) -> None:
        """Logs one failure: a fault with its traceback."""
        if not isinstance(error, self.expected):
            self.logger.error(self.message, exc_info=error, extra={"action": self.action})
        elif self.expected_message:
            self.logger.warning(self.expected_message, error, extra={"action": self.expected_action})


class _Run:
    """What happens between one start and the stop after it."""

    def __init__(self) -> None:
        self.ends = False
        self.is_cancelled = False


class BackgroundTask:
    """Repeats a step until it is stopped.

    The step returns for how many seconds to pause before the next one, None for `interval`. A step that fails is
    logged and repeated after a back-off, which begins anew with each step that succeeds. Two steps never run at the
    same time.

    `start` and `stop` may be called in any order and any number of times, also while another call of `stop` waits.
    """

    def __init__(
        self,
        step: Step,
        failures: FailureLog,
        *,
        name: str,
        interval: float = UNTIL_WOKEN,
        first_pause: float = 0.0,
        backoff: Backoff | None = None,
        cancel_again: float = CANCEL_AGAIN,
    ) -> None:
        """first_pause: seconds from the start to the first step."""
        self._step = step
        self._failures = failures
        self._name = name
        self._interval = interval
        self._first_pause = first_pause
        self._backoff = backoff or Backoff()
        self._cancel_again = cancel_again
        self._woken = asyncio.Event()
        self._run: _Run | None = None
        self._tasks: dict[asyncio.Task[None], _Run] = {}  # all that have not ended; only the oldest can be in a step
        self._pause: float | None = None

    @property
    def is_running(self) -> bool:
        """Whether a task is left, even one that is about to end."""
        # Not only the callback `_ended` decides: it runs one pass of the event loop after the end of its task.
        return any(not task.done() for task in self._tasks)

    @property
    def pause(self) -> float | None:
        """The length in seconds of the pause or back-off that it is in; None outside of both."""
        return self._pause

    def start(self) -> None:
        """Begins with the first pause. Does nothing while it is started; after a stop, waits for the end of that."""
        if self._run is not None and not self._run.ends and self.is_running:
            return
        self._run = _Run()
        before = tuple(self._tasks)
        # In an empty context: its steps belong to no call, also when a call has started it. The task and its callback
        # would keep the context of the call, and all that is in it, as long as the task runs.
        empty = contextvars.Context()
        task = asyncio.create_task(self._work(self._run, before), name=self._name, context=empty)
        self._tasks[task] = self._run
        task.add_done_callback(self._ended, context=empty)

    def wake(self) -> None:
        """Ends the current pause or skips the next one, so that a step follows. It does not end a back-off."""
        self._woken.set()

    def end(self) -> None:
        """Ends after the current step or back-off, without waiting for that. It may be called in the step."""
        if self._run is not None and not self._run.ends:
            self._run.ends = True
            self._woken.set()

    async def stop(self) -> None:
        """Cancels the current step or pause, and returns when the task has ended.

        A step that catches the cancellation and goes on is cancelled again after CANCEL_AGAIN seconds, and no step
        follows it. Called in the step itself, it ends the task after the step.
        """
        own = asyncio.current_task()
        waiting = {task for task in self._tasks if task is not own}
        for task, run in self._tasks.items():
            run.ends = True
            # Only once for all who stop it: a second cancellation would interrupt the clean-up after the first.
            if task is not own and not run.is_cancelled:
                run.is_cancelled = True
                task.cancel()
        while waiting:
            _, waiting = await asyncio.wait(waiting, timeout=self._cancel_again)
            for task in waiting:
                task.cancel()

    async def _work(self, run: _Run, before: tuple[asyncio.Task[None], ...]) -> None:
        if before:
            await asyncio.wait(before)
        pause = self._first_pause
        while not run.ends:
            await self._wait(pause)
            if run.ends:
                return
            # Cleared before the step, not after it: a wake-up during the step asks for another one.
            self._woken.clear()
            try:
                wanted = await self._step()
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and is_cancelled():
                    raise
                # Another CancelledError is not meant for this task: something that the step awaited was cancelled.
                self._failures.write(error)
                if not run.ends:
                    await self._back_off()
                pause = 0.0
            else:
                self._backoff.reset()
                pause = self._interval if wanted is None else wanted

    async def _back_off(self) -> None:
        self._pause = self._backoff.next()
        try:
            await asyncio.sleep(self._pause)
        finally:
            self._pause = None

    async def _wait(self, pause: float) -> None:
        # An event that is set does not suspend: a task that is woken all the time would starve all others.
        await asyncio.sleep(0)
        if pause <= 0:
            return
        self._pause = pause
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if pause == UNTIL_WOKEN else pause):
                    await self._woken.wait()
        finally:
            self._pause = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        run = self._tasks.pop(task)
        run.ends = True  # also when something other than `stop` cancelled the task: it can be started again
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.write(error)


def is_cancelled() -> bool:
    """Whether the current task is being cancelled. Otherwise a CancelledError comes from something that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

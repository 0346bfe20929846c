"""Supervision of child processes: they are started together, started again when they end, and drained together."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from cli.serving.processes import Child, NotStarted, describe_exit
from runtime.backoff import Backoff
from runtime.configuration import Configuration
from runtime.signals import on_stop

FIRST_PAUSE = 1.0  # seconds before a child that ended is started again; doubled after each failure
LONGEST_PAUSE = 30.0  # seconds
HEALTHY_AFTER = 60.0  # seconds that a child must run until its next pause is FIRST_PAUSE again
STOP_MARGIN = 10.0  # seconds beside the limits of the drain that a process may take to stop


class Reporter(Protocol):
    """Reports what happens to the children."""

    def ended(self, name: str, ending: str, pause: float) -> None:
        """A child ended (`was ended by SIGKILL`) and is started again in `pause` seconds."""

    def runs_again(self, name: str) -> None:
        """A child that had ended is ready again."""

    def draining(self) -> None:
        """The first signal came: the children drain."""


def stop_timeout(settings: Configuration) -> float:
    """Seconds that a server or a notifier with these settings may take to stop."""
    return settings.propagation_delay + settings.drain_timeout + STOP_MARGIN


class Supervisor:
    """Runs child processes until this process is asked to stop."""

    def __init__(
        self,
        children: Sequence[Child],
        reporter: Reporter,
        stop_timeout: float,
        *,
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        """stop_timeout: seconds that a child may take to drain before it is killed. first_pause: see FIRST_PAUSE."""
        self._children = children
        self._reporter = reporter
        self._stop_timeout = stop_timeout
        self._first_pause = first_pause
        self._stopping = asyncio.Event()

    async def run(self, on_started: Callable[[], Awaitable[None]]) -> None:
        """Starts the children, awaits `on_started`, and keeps the children running. Returns when all have drained.

        The first signal drains them, a second one ends them at once; what does not end in time is killed. Raises
        NotStarted when one of them is not ready at the start; the others are stopped then.
        """
        on_stop(self._on_signal)
        try:
            started = asyncio.create_task(self._start(on_started), name="start")
            stopping = asyncio.create_task(self._stopping.wait(), name="stopping")
            await asyncio.wait({started, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping.is_set():
                await started
                await self._keep_until(stopping)
            started.cancel()
            stopping.cancel()
            await asyncio.gather(started, stopping, return_exceptions=True)
        finally:
            await self._stop()

    async def _start(self, on_started: Callable[[], Awaitable[None]]) -> None:
        await asyncio.gather(*(child.start() for child in self._children))
        await on_started()

    async def _keep_until(self, stopping: asyncio.Task[bool]) -> None:
        """Keeps the children running until this process stops, and then waits for their ends."""
        keeping = [asyncio.create_task(self._keep(child), name=f"keep {child.name}") for child in self._children]
        await asyncio.wait({*keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await self._stop()  # one that does not drain would be waited for without end
        await asyncio.gather(*keeping)

    async def _stop(self) -> None:
        await asyncio.gather(*(child.stop(self._stop_timeout) for child in self._children))

    async def _keep(self, child: Child) -> None:
        """Starts the child again each time it ends, until this process stops."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(self._first_pause, LONGEST_PAUSE, random_part=0.0)
        runs = True
        while runs:
            started = loop.time()
            ending = describe_exit(await child.wait())
            if loop.time() - started > HEALTHY_AFTER:
                backoff.reset()
            runs = await self._start_again(child, ending, backoff)

    async def _start_again(self, child: Child, ending: str, backoff: Backoff) -> bool:
        """Starts a child that has ended, in as many tries as it takes; returns False if this process stops."""
        while not self._stopping.is_set():
            pause = backoff.next()
            self._reporter.ended(child.name, ending, pause)
            await self._pause(pause)
            if self._stopping.is_set():
                break
            try:
                await child.start()
            except NotStarted:
                ending = describe_exit(await child.wait())
            except OSError as error:  # the system has no memory or no number for it; the others go on
                ending = f"could not be started: {error.strerror}"
            else:
                self._reporter.runs_again(child.name)
                return not self._stopping.is_set()
        return False

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _on_signal(self) -> None:
        if not self._stopping.is_set():
            self._reporter.draining()
        self._stopping.set()
        for child in self._children:
            child.request_stop()

"""The client of a benchmark: a process of its own that prepares a job, and runs it on request."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import traceback
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import uvloop

Result = TypeVar("Result")


class JobFailed(Exception):
    """The job failed in the client's process; the message is the traceback."""


class Job(ABC, Generic[Result]):
    """A job for the client. It is pickled for the client's process, so its fields are plain values.

    stopping: set in the client's process by `Client.stop`; a job that has no end of its own waits for it.
    """

    stopping: asyncio.Event

    @abstractmethod
    async def prepare(self) -> None:
        """Does the part that is not measured."""

    @abstractmethod
    async def run(self) -> Result:
        """Does the measured part, and returns the result."""


class Client:
    """Starts and controls the client's process. It runs one job at a time."""

    def __init__(self) -> None:
        # Spawned, not forked: a fork would inherit locks of gRPC's threads, but not the threads.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs,), name="bench client", daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.join()

    async def prepare(self, job: Job[Result]) -> Callable[[], Awaitable[Result]]:
        """Lets the client prepare the job; returns a function that runs it."""
        await self._ask(job)

        async def run() -> Result:
            result: Result = await self._ask(None)
            return result

        return run

    def stop(self) -> None:
        """Asks the job to end: sets its `stopping`."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGUSR1)

    async def _ask(self, request: Any) -> Any:
        self._connection.send(request)
        try:
            failed, answer = await asyncio.to_thread(self._connection.recv)
        except (EOFError, ConnectionError):
            raise JobFailed("the client's process has ended") from None
        if failed:
            raise JobFailed(answer)
        return answer


def _main(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and ends this process
    with contextlib.suppress(EOFError):  # the parent has ended
        uvloop.run(_follow(connection))


async def _follow(connection: Connection) -> None:
    """Reads a job, which is prepared, then None, at which the job runs."""
    job: Job[Any] | None = None

    def stop() -> None:
        if job is not None:
            job.stopping.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stop)
    while True:
        request = await asyncio.to_thread(connection.recv)
        try:
            if request is None:
                assert job is not None
                answer = False, await job.run()
            else:
                job = request
                job.stopping = asyncio.Event()
                await job.prepare()
                answer = False, None
        except Exception:
            answer = True, traceback.format_exc()
        connection.send(answer)

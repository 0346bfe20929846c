"""The client of a benchmark: a process of its own that prepares a job, waits for the word, and does it."""

import asyncio
import contextlib
import multiprocessing
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
    """The client's process could not do its job; the message is its traceback."""


class Job(ABC, Generic[Result]):
    """Something for the client to do. It is sent there as it is, so it is made of plain values."""

    @abstractmethod
    async def prepare(self) -> None:
        """Does what is not to be measured."""

    @abstractmethod
    async def run(self) -> Result:
        """Does what is to be measured, and returns what was measured."""


class Client:
    """The other end of the client's process. One job at a time."""

    def __init__(self) -> None:
        # Spawned, not forked: a fork inherits gRPC's threads in whatever state they are.
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
        """Lets the client prepare the job; what is returned then runs it."""
        await self._ask(job)

        async def run() -> Result:
            result: Result = await self._ask(None)
            return result

        return run

    async def _ask(self, question: Any) -> Any:
        self._connection.send(question)
        try:
            failed, answer = await asyncio.to_thread(self._connection.recv)
        except (EOFError, ConnectionError):
            raise JobFailed("the client's process has ended") from None
        if failed:
            raise JobFailed(answer)
        return answer


def _main(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the parent, which ends us
    with contextlib.suppress(EOFError):  # the parent is gone
        uvloop.run(_follow(connection))


async def _follow(connection: Connection) -> None:
    """A job is followed by None, which says that it is to be run."""
    job: Job[Any] | None = None
    while True:
        question = await asyncio.to_thread(connection.recv)
        try:
            if question is None:
                assert job is not None
                answer = False, await job.run()
            else:
                job = question
                await job.prepare()
                answer = False, None
        except Exception:
            answer = True, traceback.format_exc()
        connection.send(answer)

"""What happened to reservations, sent in the background until it is acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import grpc

from tidemark_client.errors.status import PASSING
from tidemark_client.tasks.backoff import Backoff

# What a repetition can change. All others are final: the same request gets the same answer.
REPEATED = PASSING | {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED}
# What an operator can change: the key gets its role, or is exchanged. What happened is still true then.
REPAIRABLE = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries

Send = Callable[[], Awaitable[object]]

logger = logging.getLogger("tidemark_client.enforcement")


class Reports:
    """Reports that are on their way. They are in memory only.

    most: reports at the same time. A gateway that cannot report must not grow without a limit: it waits in `send`.
    """

    def __init__(self, most: int) -> None:
        self._room = asyncio.Semaphore(most)
        self._tasks = set[asyncio.Task[None]]()

    async def send(self, name: str, send: Send) -> None:
        """Takes over a report, and returns before it is acknowledged. send: one try, the same request each time."""
        await self._room.acquire()
        task = asyncio.create_task(_until_acknowledged(name, send), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def drain(self, seconds: float) -> int:
        """Waits for all reports before the program ends; returns how many were not acknowledged in that time."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()


async def _until_acknowledged(name: str, send: Send) -> None:
    backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
    is_first = True
    while True:
        try:
            await send()
            return
        except grpc.aio.AioRpcError as error:
            if error.code() not in REPEATED | REPAIRABLE:
                # A mistake of this program: an alert on this line must say so, because the usage is not counted.
                logger.error("%s was refused: %s %s", name, error.code().name, error.details())
                return
            if is_first:
                logger.warning("%s is repeated: %s %s", name, error.code().name, error.details())
                is_first = False
        await asyncio.sleep(backoff.next())

"""What happened to reservations, sent to Tidemark in the background until it is acknowledged."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

import grpc

# What a repetition can change. All others are final: the same request gets the same answer.
PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
    }
)
# What an operator can change: the key gets its role, or is exchanged. What happened is still true then.
REPAIRABLE = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries

Send = Callable[[], Awaitable[object]]

logger = logging.getLogger(__name__)


def pause(tries: int) -> float:
    """Seconds before the next try: twice as long each time, and random, so that gateways do not come together."""
    longest = min(FIRST_PAUSE * float(2 ** min(tries, 16)), LONGEST_PAUSE)
    return random.uniform(longest / 2, longest)


class Reports:
    """Reports that are on their way. They are in memory only: see `docs/enforcement.md` for a gateway that is killed.

    most: reports at the same time. A gateway that cannot report must not grow without a limit: it waits in `send`.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._room = asyncio.Semaphore(most)
        self._tasks = set[asyncio.Task[None]]()

    async def send(self, name: str, send: Send) -> None:
        """Takes over a report, and returns before it is acknowledged. send: one try, the same request each time."""
        await self._room.acquire()
        task = asyncio.create_task(self._until_acknowledged(name, send), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def drain(self, seconds: float) -> int:
        """Waits for all reports before the program ends; returns how many were not acknowledged in that time."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        return len(left)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._room.release()

    async def _until_acknowledged(self, name: str, send: Send) -> None:
        tries = 0
        while True:
            try:
                await send()
                return
            except grpc.aio.AioRpcError as error:
                if error.code() not in PASSING | REPAIRABLE:
                    # A mistake of this program: an alert on this line must say so, because the usage is not counted.
                    logger.error("%s was refused: %s %s", name, error.code().name, error.details())
                    return
                if tries == 0:
                    logger.warning("%s is repeated: %s %s", name, error.code().name, error.details())
            await asyncio.sleep(pause(tries))
            tries += 1

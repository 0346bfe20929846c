"""The two servers of the story, each of which may be replaced while clients use it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

import grpc

from runtime.clock import ManualClock
from runtime.configuration import Configuration
from runtime.tasks import is_cancelled
from tests.support.usage.caller import Caller, calling

Answer = TypeVar("Answer")

REPLICAS = 2
RETRY_DELAY = 0.05  # seconds
# UNAVAILABLE is also the answer to a change that waited too long for the organization's lock: on a machine that is
# busy with other tests it may.
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Servers:
    """Callers of the servers as one organization; a server that stops gets no new calls."""

    def __init__(
        self, database_url: str, clock: ManualClock, configuration: Configuration, organization: str, key: str
    ) -> None:
        self.restarts = 0
        self._start_with = database_url, clock, organization, key, configuration
        self._callers: list[Caller | None] = [None] * REPLICAS
        self._stacks = [contextlib.AsyncExitStack() for _ in range(REPLICAS)]

    async def start(self) -> None:
        """Starts all servers."""
        for number in range(REPLICAS):
            self._callers[number] = await self._started(number)

    async def stop(self) -> None:
        """Stops all servers."""
        for stack in self._stacks:
            await stack.aclose()

    async def _started(self, number: int) -> Caller:
        stack = self._stacks[number] = contextlib.AsyncExitStack()
        return await stack.enter_async_context(calling(*self._start_with))

    async def restart(self, number: int) -> None:
        """Lets a server finish its calls and end its streams, and starts another in its place."""
        stopping, self._callers[number] = self._callers[number], None
        assert stopping is not None
        stopping.server.shutdown.request()
        await asyncio.shield(stopping.server.stopped)
        await self._stacks[number].aclose()
        self._callers[number] = await self._started(number)
        self.restarts += 1

    def caller(self, number: int) -> Caller:
        """A caller of that server, or of another one while it is being replaced."""
        found = self._callers[number] or next(one for one in self._callers if one is not None)
        return found

    def any(self, random: Random) -> Caller:
        """A caller of one of the servers."""
        return self.caller(random.randrange(REPLICAS))

    async def call(self, random: Random, make: Callable[[Caller], Awaitable[Answer]]) -> Answer:
        """Makes a call that is safe to repeat; repeats it while a server stops, or is too busy for it."""
        while True:
            try:
                return await make(self.any(random))
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRIED:
                    raise
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                # The channel to a server that has stopped was closed.
            await asyncio.sleep(RETRY_DELAY)

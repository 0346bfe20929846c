"""How a server process ends: the request to stop, the drain, and the calls in flight."""

import asyncio
import contextlib

from runtime.signals import on_stop
from server.calls.once import Once


class Shutdown:
    """The request to stop this process: graceful at first, immediate when it is repeated."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()

    def request(self) -> None:
        """Requests a graceful stop; requests an immediate stop when a graceful one is in progress."""
        if self.requested.is_set():
            self.forced.set()
        self.requested.set()

    def follow_signals(self) -> None:
        """Lets the signals of runtime.signals request a stop; call it in the main thread, inside the event loop."""
        on_stop(self.request)

    async def sleep(self, seconds: float) -> None:
        """Waits for `seconds`, or until an immediate stop is requested."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.forced.wait()


class Drain:
    """Whether the server ends its streams. A stream waits for its next request and for `begun` at the same time."""

    def __init__(self) -> None:
        self.begun = Once()

    @property
    def is_on(self) -> bool:
        """Whether the drain has begun."""
        return self.begun.is_set()

    def begin(self) -> None:
        """Makes every stream send `going_away` and end."""
        self.begun.set()


class CallsInFlight:
    """The number of calls that have begun and not ended."""

    def __init__(self) -> None:
        self.count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        """Counts one call more."""
        self.count += 1
        self._idle.clear()

    def leave(self) -> None:
        """Counts one call less."""
        self.count -= 1
        if self.count == 0:
            self._idle.set()

    async def idle(self) -> None:
        """Waits until no call is in flight."""
        await self._idle.wait()

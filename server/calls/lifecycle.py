"""How a server process ends: the signals that ask for it, the drain, the calls in flight."""

import asyncio
import contextlib

from runtime.signals import on_stop


class Shutdown:
    """Whether this process was asked to stop, and whether it was asked twice."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()

    def request(self) -> None:
        """Asks for a graceful stop; asks for an immediate one when a graceful one is already under way."""
        if self.requested.is_set():
            self.forced.set()
        self.requested.set()

    def follow_signals(self) -> None:
        """Lets the signals of runtime.signals ask from now on; call it in the main thread, inside the event loop."""
        on_stop(self.request)

    async def sleep(self, seconds: float) -> None:
        """Waits so long, or until an immediate stop is asked for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.forced.wait()


class Drain:
    """Whether the server is ending its streams. A stream races its next request against `begun`."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    @property
    def is_on(self) -> bool:
        """Whether the drain has begun."""
        return self.begun.is_set()

    def begin(self) -> None:
        """Tells every stream to say goodbye and to end."""
        self.begun.set()


class InFlight:
    """The number of calls that have begun and not ended."""

    def __init__(self) -> None:
        self.count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        """One call more."""
        self.count += 1
        self._idle.clear()

    def leave(self) -> None:
        """One call less."""
        self.count -= 1
        if self.count == 0:
            self._idle.set()

    async def idle(self) -> None:
        """Waits until no call is in flight."""
        await self._idle.wait()

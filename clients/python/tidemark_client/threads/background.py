"""The event loop in a background thread that all clients of a process share.

grpc.aio is made for one event loop in a process. The loop begins with the first thing that needs it, and ends with
the last.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Background:
    """A thread with an event loop, for as long as somebody uses it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def acquire(self) -> asyncio.AbstractEventLoop:
        """The loop, which runs until as many calls of `release` as of this."""
        with self._mutex:
            self._users += 1
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(loop,), name="tidemark_client", daemon=True)
                self._thread.start()
            return self._loop

    def release(self) -> None:
        """Ends one use."""
        with self._mutex:
            self._users -= 1
            if self._users:
                return
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        assert loop is not None
        assert thread is not None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


BACKGROUND = Background()


class LoopUser:
    """One use of the loop in the background. Threads may share it."""

    def __init__(self) -> None:
        self.loop = BACKGROUND.acquire()
        self._is_open = True

    def call(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Runs the work in the loop, and waits for its result. An interrupted wait cancels the work."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def make(self, factory: Callable[[], _Result]) -> _Result:
        """What the factory makes within the loop."""

        async def make() -> _Result:
            return factory()

        return self.call(make())

    def close(self) -> None:
        """Ends the use."""
        if self._is_open:
            self._is_open = False
            BACKGROUND.release()

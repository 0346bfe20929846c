"""Turns: long work on the event loop runs in slices, one slice in each pass of the loop, organizations in rotation.

In one pass, the event loop runs all tasks that are ready, before it reads from the network again. If forty batches
are parsed in one pass, all other calls wait for the forty. Therefore a slice of long work takes a turn first, and
each pass grants one turn: between two slices, every other task runs.

A turn is not returned. It lasts until its task awaits something, so it cannot be lost when the task is cancelled.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Hashable
from weakref import WeakKeyDictionary

SLICE = 0.005  # seconds of work in one turn


class Turns:
    """The turns of one event loop."""

    def __init__(self) -> None:
        self._taken = False  # in this pass of the loop
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, key: Hashable) -> None:
        """Waits for a turn of `key`. Keys get turns in rotation; the waits of one key, in their order."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._next)
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        await turn

    def _next(self) -> None:
        """Grants the turn of the next pass to the first wait."""
        while self._waiting:
            key, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[key] = turns  # after the other keys
            if not turn.done():  # otherwise the wait was cancelled
                # The task runs in the next pass, before the next call of this method.
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._taken = False


class Slices:
    """Long work of one key, divided into slices: call `pause` between short pieces of the work.

    After any other `await`, continue with `begin`, because that `await` ended the turn.
    """

    def __init__(self, key: Hashable, duration: float = SLICE) -> None:
        """duration: seconds of a slice."""
        self._key = key
        self._duration = duration
        self._end = 0.0

    async def begin(self) -> None:
        """Waits for a turn and begins a slice."""
        await of_loop().take(self._key)
        self._end = time.perf_counter() + self._duration

    async def pause(self) -> None:
        """Returns at once while the slice lasts; otherwise waits for the next turn."""
        if time.perf_counter() >= self._end:
            await self.begin()


_OF_LOOPS: "WeakKeyDictionary[asyncio.AbstractEventLoop, Turns]" = WeakKeyDictionary()


def of_loop() -> Turns:
    """The turns of the running event loop, which all long work on that loop shares."""
    loop = asyncio.get_running_loop()
    turns = _OF_LOOPS.get(loop)
    if turns is None:
        turns = _OF_LOOPS[loop] = Turns()
    return turns

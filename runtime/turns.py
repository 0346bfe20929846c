"""Turns: long work on the event loop is done in slices, one slice in each pass of the loop, organizations in turn.

In one pass the event loop runs all tasks that are ready, and reads the network only after that. Forty batches that
are read in one pass delay all calls by the time of forty. So a slice of long work takes a turn first, and each pass
gives only one turn: between two slices every other task runs.

A turn is not given back: it ends when its task waits for anything. So it cannot be lost, even if that task fails.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Hashable
from weakref import WeakKeyDictionary

SLICE = 0.005  # seconds of work that one turn is for


class Turns:
    """The turns of one event loop."""

    def __init__(self) -> None:
        self._taken = False  # in this pass of the loop
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, key: Hashable) -> None:
        """Waits for a turn of `key`. Keys have turns one after the other; the waits of one key, in their order."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._next)
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        await turn

    def _next(self) -> None:
        """Begins the next pass: gives its turn to the next key that waits."""
        while self._waiting:
            key, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[key] = turns  # behind the others
            if not turn.done():  # else the wait was cancelled
                # The task wakes in the next pass, before this is called there again.
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._taken = False


class Slices:
    """Long work of one key, cut into slices: `pause` goes between its pieces, each of which has to be short.

    After any other wait the work goes on with `begin`, since the turn ended with that wait.
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
        """Goes on at once while the slice lasts; otherwise waits for the next turn."""
        if time.perf_counter() >= self._end:
            await self.begin()


_OF_LOOPS: "WeakKeyDictionary[asyncio.AbstractEventLoop, Turns]" = WeakKeyDictionary()


def of_loop() -> Turns:
    """The turns of the running event loop. They are the loop's, as its time is: all long work shares them."""
    loop = asyncio.get_running_loop()
    turns = _OF_LOOPS.get(loop)
    if turns is None:
        turns = _OF_LOOPS[loop] = Turns()
    return turns

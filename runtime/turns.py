"""Turns: long work on the event loop is done in slices, one slice in each pass of the loop, organizations in turn.

The event loop runs whatever is ready in one pass before it looks at the network again. Forty batches that are read in
one pass keep everybody's calls waiting for the time of forty. So a slice of long work asks for a turn first, and
only one turn is given in each pass: between two slices every other task gets to run.

A turn is never given back: it lasts until the task that has it waits for anything, and it cannot be lost, whatever
becomes of that task.
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
        """Begins the next pass: gives its turn to whoever waits."""
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

"""Turns: long work on the event loop runs in slices, one slice in each pass of the loop, organizations in rotation.

In one pass, the event loop runs all tasks that are ready, before it reads from the network again. If forty batches
are parsed in one pass, all other calls wait for the forty. Therefore a slice of long work takes a turn first, and
each pass grants one turn: between two slices, every other task runs.

A call passes the event loop about ten times, and each time it waits for the slice of another key. So slices are short
while a `light` key has calls in progress, one that has used up no slice lately and has few calls at the same time.
Passes without a slice follow each slice then, in which the call of the light key goes on. Without a light key slices
are longer and follow each other, because each change of tasks has a cost.

A turn is not returned. It lasts until its task awaits something, so it cannot be lost when the task is cancelled.
"""

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from weakref import WeakKeyDictionary

SLICE = 0.005  # seconds of work in one turn
# Seconds of work in one turn while a light key has calls in progress, and shortly after: the next call may come.
SHORT_SLICE = 0.001
# Passes of the loop from one slice of a heavy key to the next one while a light key has calls in progress. A pass in
# which nothing is ready takes about 0.01 ms.
PASSES = 5
PIECE = 0.000_15  # seconds of the work that a task does in one turn of `Pieces`, as the sending of a message
# Seconds after the last slice that a key has used up, until the key is light again. Longer than a large commit waits
# among those of many organizations.
LIGHT_AFTER = 5.0
# Calls of a key in progress at the same time, above which it is heavy: they need the database and the loop as much as
# one long piece of work.
MANY_CALLS = 16
# Seconds after the last call of a light key in which it still counts as a neighbour: most callers send one call after
# the other, and a large piece of work that begins between two of them delays the next one.
NEIGHBOUR_STAYS = 0.25
_MOST_HEAVY = 1_000  # keys; above it, those that are light again are removed


class Turns:
    """The turns of one event loop, and the keys that have calls in progress."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        """now: a clock in seconds, which decides when a key is light again."""
        self._now = now
        self._taken = False  # in this pass of the loop
        self._passes = 0  # from the next one on, in which a turn is given to light keys only
        self._is_scheduled = False  # whether `_next` is going to run in the next pass
        self._first = _Rotation()  # waits of light keys
        self._others = _Rotation()
        self._first_is_next = True  # the two rotations alternate, so neither can keep the other from a turn
        self._in_progress: Counter[Hashable] = Counter()  # calls by key
        self._light: set[Hashable] = set()  # of the keys in progress
        self._heavy: dict[Hashable, float] = {}  # when each key used up its last slice
        # When the last calls of light keys ended, of the keys that were light last. Two are enough: one of them is
        # another key than the one that asks.
        self._last_light: OrderedDict[Hashable, float] = OrderedDict()

    async def take(self, key: Hashable) -> None:
        """Waits for a turn of `key`. Keys get turns in rotation; the waits of one key, in their order.

        Every second turn is given to a light key, if one waits. While one has calls in progress and does not wait
        for a turn, no turn is given in the passes after that of another key.
        """
        loop = asyncio.get_running_loop()
        # The waits of one key are in one rotation: another one could grant them in another order.
        is_first = key not in self._others and (key in self._light or key in self._first)
        if not self._taken and (is_first or not self._passes):
            self._first_is_next = not is_first
            self._note_turn(0 if is_first else PASSES - 1)
            return
        turn: asyncio.Future[None] = loop.create_future()
        (self._first if is_first else self._others).add(key, turn)
        await turn

    def begin_call(self, key: Hashable) -> None:
        """Notes that a call of the key begins. `end_call` must follow."""
        self._in_progress[key] += 1
        if self._in_progress[key] > MANY_CALLS:
            self.used_up(key)
        elif key not in self._light and not self.is_heavy(key):
            self._light.add(key)

    def end_call(self, key: Hashable) -> None:
        """Notes that a call of the key has ended."""
        self._in_progress[key] -= 1
        if not self._in_progress[key]:
            del self._in_progress[key]
            if key in self._light:
                self._light.discard(key)
                self._last_light[key] = self._now()
                self._last_light.move_to_end(key)
                if len(self._last_light) > 2:
                    self._last_light.popitem(last=False)

    def used_up(self, key: Hashable) -> None:
        """Notes that the key has used up a slice, or what is like one, so it is not light for some time."""
        self._light.discard(key)
        self._last_light.pop(key, None)
        now = self._now()
        self._heavy[key] = now
        if len(self._heavy) > _MOST_HEAVY:
            self._heavy = {one: used for one, used in self._heavy.items() if now - used < LIGHT_AFTER}

    def has_light_neighbour(self, key: Hashable) -> bool:
        """Whether another key is light and has calls in progress."""
        return len(self._light) > (key in self._light)

    def has_or_had_light_neighbour(self, key: Hashable) -> bool:
        """Whether another key is light and has calls in progress, or had one in the last NEIGHBOUR_STAYS seconds."""
        if self.has_light_neighbour(key):
            return True
        since = self._now() - NEIGHBOUR_STAYS
        return any(ended > since for other, ended in self._last_light.items() if other != key)

    def slice_of(self, key: Hashable) -> float:
        """The seconds of the key's next slice."""
        return SHORT_SLICE if self.has_or_had_light_neighbour(key) else SLICE

    def is_heavy(self, key: Hashable) -> bool:
        """Whether the key has used up a slice lately."""
        used = self._heavy.get(key)
        if used is None:
            return False
        if self._now() - used < LIGHT_AFTER:
            return True
        del self._heavy[key]
        return False

    def _note_turn(self, passes: int) -> None:
        """Notes that the turn of a pass is taken. passes: until the next turn of a key that is not light."""
        self._taken = True
        if passes and self._light:
            self._passes = passes
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Grants the turn of the next pass to the first wait."""
        self._is_scheduled, self._taken = False, False
        if self._passes:
            self._passes = self._passes - 1 if self._light else 0
        if self._passes and not self._first:
            self._schedule()
            return
        rotations = (self._first, self._others) if self._first_is_next else (self._others, self._first)
        for rotation in rotations:
            turn = rotation.pop()
            if turn is not None:
                self._first_is_next = rotation is not self._first
                # The task runs in the next pass, before the next call of this method.
                turn.set_result(None)
                self._note_turn(0 if rotation is self._first else PASSES)
                return
        if self._passes:
            self._schedule()


class _Rotation:
    """Waits by key; the keys are served in rotation."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._waiting

    def __bool__(self) -> bool:
        """Whether any key waits; perhaps only with waits that were cancelled."""
        return bool(self._waiting)

    def add(self, key: Hashable, turn: "asyncio.Future[None]") -> None:
        self._waiting.setdefault(key, deque()).append(turn)

    def pop(self) -> "asyncio.Future[None] | None":
        """The next wait that was not cancelled, or None."""
        while self._waiting:
            key, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[key] = turns  # after the other keys
            if not turn.done():  # otherwise the wait was cancelled
                return turn
        return None


class Pieces:
    """Short pieces of work of one key, by many tasks: as many as fit into a slice share one turn."""

    def __init__(self, key: Hashable) -> None:
        self._key = key
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._granting: asyncio.Task[None] | None = None

    async def turn(self) -> None:
        """Waits for a turn for one piece, which lasts until the task awaits something."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.grant_in_turn((turn,))
        await turn

    def grant_in_turn(self, waits: Iterable[asyncio.Future[None]]) -> None:
        """Ends each of these waits with a turn for one piece, in their order."""
        self._waiting.extend(waits)
        if self._granting is None and self._waiting:
            self._granting = asyncio.create_task(self._grant(), name="turns-of-pieces")

    async def _grant(self) -> None:
        turns = of_loop()
        while self._waiting:
            await turns.take(self._key)
            for _ in range(max(1, int(turns.slice_of(self._key) / PIECE))):
                if not self._waiting:
                    break
                turn = self._waiting.popleft()
                if not turn.done():  # otherwise the wait was cancelled
                    turn.set_result(None)
            if self._waiting:
                turns.used_up(self._key)
        self._granting = None


class Slices:
    """Long work of one key, divided into slices: call `pause` between short pieces of the work.

    After any other `await`, continue with `begin`, because that `await` ended the turn.
    """

    def __init__(self, key: Hashable, duration: float | None = None) -> None:
        """duration: seconds of a slice; None: as `Turns.slice_of` decides."""
        self._key = key
        self._duration = duration
        self._end = 0.0

    async def begin(self) -> None:
        """Waits for a turn and begins a slice."""
        await of_loop().take(self._key)
        self.begin_at_once()

    def begin_at_once(self) -> None:
        """Begins a slice without a turn: for work that most often ends before its first slice does."""
        duration = of_loop().slice_of(self._key) if self._duration is None else self._duration
        self._end = time.perf_counter() + duration

    async def pause(self) -> None:
        """Returns at once while the slice lasts; otherwise waits for the next turn."""
        if time.perf_counter() >= self._end:
            if self._end:  # not before the first slice
                of_loop().used_up(self._key)
            await self.begin()


_OF_LOOPS: "WeakKeyDictionary[asyncio.AbstractEventLoop, Turns]" = WeakKeyDictionary()


def of_loop() -> Turns:
    """The turns of the running event loop, which all long work on that loop shares."""
    loop = asyncio.get_running_loop()
    turns = _OF_LOOPS.get(loop)
    if turns is None:
        turns = _OF_LOOPS[loop] = Turns()
    return turns

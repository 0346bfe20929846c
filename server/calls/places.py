"""A bounded number of calls that may wait for something, of which those that hold the most give way."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from generated.tidemark.v1 import error_reason_pb2
from server.calls import errors

# Seconds between two looks for calls that have to give way. A call goes only when two looks in a row have seen it:
# what is there already, however much of it, is taken between them, also after the event loop stood still.
PATIENCE = 0.05
RETRY = timedelta(seconds=1)


@dataclass(eq=False, slots=True)
class Place:
    """What one call holds while it waits."""

    holder: object
    task: "asyncio.Task[object]"
    looks: int = 0
    given: bool = False  # to another call: the task was cancelled for it

    def gave_way(self) -> bool:
        """Whether a cancellation that the task has just seen was for this, and for nothing else; takes it back."""
        return self.given and self.task.uncancel() == 0


class Places:
    """The calls that wait for one thing, at most `limit` of them for longer than a moment.

    When there are more, the holder that has the most (a connection, an organization) loses its oldest. So a caller
    with few is served whatever another one holds, and nobody can fill all places and keep them.
    """

    def __init__(self, limit: int, waiting_for: str, *, patience: float = PATIENCE) -> None:
        """`waiting_for` completes the sentence "too many calls wait for …"; `patience`: seconds, see PATIENCE."""
        self._limit = limit
        self._patience = patience
        self._waiting_for = waiting_for
        self._by_holder: dict[object, dict[Place, None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.count = 0

    def enter(self, holder: object) -> Place:
        """Takes a place for the current task, which must await nothing but what it waits for until it leaves.

        A task that has to give way is cancelled, and its place is marked as `given`.
        """
        task = asyncio.current_task()
        assert task is not None
        place = Place(holder, task)
        self._by_holder.setdefault(holder, {})[place] = None
        self.count += 1
        if self.count > self._limit:
            self._look_later()
        return place

    def leave(self, place: Place) -> None:
        """Gives the place back; doing so twice does nothing."""
        places = self._by_holder.get(place.holder)
        if places is None or place not in places:
            return
        del places[place]
        self.count -= 1
        if not places:
            del self._by_holder[place.holder]

    @contextmanager
    def waiting(self, holder: object) -> Iterator[None]:
        """Has a place for the time of the block; raises errors.ResourceExhausted when the call has to give way."""
        place = self.enter(holder)
        try:
            yield
            return
        except asyncio.CancelledError:
            if not place.gave_way():
                raise
        finally:
            self.leave(place)
        raise self.refusal()

    def refusal(self) -> errors.ResourceExhausted:
        """What a call ends with that had to give way."""
        return errors.ResourceExhausted(
            error_reason_pb2.ERROR_REASON_OVERLOADED,
            f"too many calls wait for {self._waiting_for}, and this one gave way to another: repeat it",
            metadata={"limit": str(self._limit)},
            retry_after=RETRY,
        )

    def _look_later(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            # Behind everything that is ready to run: uvloop runs timers first, and what has come would not be seen.
            self._timer = loop.call_later(self._patience, loop.call_soon, self._look)

    def _look(self) -> None:
        self._timer = None
        if self.count <= self._limit:
            return
        for places in self._by_holder.values():
            for place in places:
                place.looks += 1
        while self.count > self._limit:
            largest = max(self._by_holder.values(), key=len)
            oldest = next(iter(largest))
            if oldest.looks < 2:
                break  # the rest of them may be of others: the next look finds them
            oldest.given = True
            oldest.task.cancel()
            self.leave(oldest)
        if self.count > self._limit:
            self._look_later()

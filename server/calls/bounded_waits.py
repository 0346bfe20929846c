"""A limit on the calls that wait for the same thing. Above it, the holder with the most waits loses its oldest."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from generated.tidemark.v1 import error_reason_pb2
from server.calls import errors

# Seconds between two checks for waits to end. A wait ends only when two checks in a row have seen it: the event loop
# serves between them every call whose message has arrived, also after it was blocked.
CHECK_INTERVAL = 0.05
RETRY = timedelta(seconds=1)


@dataclass(eq=False, slots=True)
class Wait:
    """One call that waits. holder: the connection or organization that the wait counts for."""

    holder: object
    task: "asyncio.Task[object]"
    checks: int = 0  # that have seen this wait while there were too many
    evicted: bool = False  # its task was cancelled in favour of another call

    def was_evicted(self) -> bool:
        """Whether the cancellation that the task has just seen was an eviction and nothing else; takes it back."""
        return self.evicted and self.task.uncancel() == 0


class BoundedWaits:
    """The calls that wait for one thing. At most `limit` of them are left after two checks.

    Above the limit, the holder with the most waits (a connection or an organization) loses its oldest. So a caller
    with few waits is served however many another caller has, and no caller can occupy the whole limit.
    """

    def __init__(self, limit: int, waiting_for: str, *, check_interval: float = CHECK_INTERVAL) -> None:
        """`waiting_for` completes the error text "too many calls wait for …". check_interval: seconds."""
        self._limit = limit
        self._check_interval = check_interval
        self._waiting_for = waiting_for
        self._by_holder: dict[object, dict[Wait, None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.count = 0

    def begin(self, holder: object) -> Wait:
        """Begins a wait of the current task. Until `end`, the task may only await what it waits for.

        The task of a wait that is evicted is cancelled.
        """
        task = asyncio.current_task()
        assert task is not None
        wait = Wait(holder, task)
        self._by_holder.setdefault(holder, {})[wait] = None
        self.count += 1
        if self.count > self._limit:
            self._check_later()
        return wait

    def end(self, wait: Wait) -> None:
        """Ends a wait; does nothing when it has ended."""
        waits = self._by_holder.get(wait.holder)
        if waits is None or wait not in waits:
            return
        del waits[wait]
        self.count -= 1
        if not waits:
            del self._by_holder[wait.holder]

    @contextmanager
    def waiting(self, holder: object) -> Iterator[None]:
        """Waits for the time of the block. Raises errors.ResourceExhausted when the wait is evicted."""
        wait = self.begin(holder)
        try:
            yield
            return
        except asyncio.CancelledError:
            if not wait.was_evicted():
                raise
        finally:
            self.end(wait)
        raise self.refusal()

    def refusal(self) -> errors.ResourceExhausted:
        """The error of a call whose wait was evicted."""
        return errors.ResourceExhausted(
            error_reason_pb2.ERROR_REASON_OVERLOADED,
            f"too many calls wait for {self._waiting_for}, and this call was ended in favour of another: repeat it",
            metadata={"limit": str(self._limit)},
            retry_after=RETRY,
        )

    def _check_later(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            # uvloop runs timers before callbacks that are ready. The extra call_soon puts the check after those, so
            # that a wait whose message has arrived is over when the check comes.
            self._timer = loop.call_later(self._check_interval, loop.call_soon, self._check)

    def _check(self) -> None:
        self._timer = None
        if self.count <= self._limit:
            return
        for waits in self._by_holder.values():
            for wait in waits:
                wait.checks += 1
        while self.count > self._limit:
            largest = max(self._by_holder.values(), key=len)
            oldest = next(iter(largest))
            if oldest.checks < 2:
                break  # another holder may have the most waits by the next check
            oldest.evicted = True
            oldest.task.cancel()
            self.end(oldest)
        if self.count > self._limit:
            self._check_later()

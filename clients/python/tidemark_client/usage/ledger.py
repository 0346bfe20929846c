"""What a writer has taken, what of it is in memory, and who waits for room or for acknowledgements."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidemark_client.errors.exceptions import TidemarkError
from tidemark_client.usage.options import WriterCounts, WriterOptions
from tidemark_client.usage.pending import Pending


class Ledger:
    """The events of a writer.

    error: why the writer has failed. on_release: called with the numbers of events and of bytes that left memory;
    they are negative for those that come back. on_failure: called when it has failed. is_loaded: what an earlier
    writer left is taken. is_open: an event can be taken without waiting. What is in a message that is being filled
    comes here when the message is complete.

    Each message belongs to an epoch, and each wait for acknowledgements begins a new one. A sum of events would end a
    wait too early: a later message may be acknowledged first, over another stream.
    """

    def __init__(self, options: WriterOptions) -> None:
        self.counts = WriterCounts()
        self.error: TidemarkError | None = None
        self.is_open = True
        self.is_loaded = options.spill is None
        self.on_release: Callable[[int, int], None] | None = None
        self.on_failure: Callable[[], None] | None = None
        self._options = options
        self._bytes = self._events = 0  # in memory
        self._is_closing = False
        self._epoch = 1  # 0 is that of earlier writers
        self._unfinished: dict[int, int] = {}  # messages by epoch
        self._loop = asyncio.get_running_loop()
        self._changed: asyncio.Future[None] = self._loop.create_future()  # done at the next change

    @property
    def is_full(self) -> bool:
        """Whether the events in memory have reached a bound."""
        return self._bytes >= self._options.max_pending_bytes or self._events >= self._options.max_pending_events

    @property
    def is_closing(self) -> bool:
        """Whether no further event is taken."""
        return self._is_closing

    def take(self, pending: Pending) -> None:
        """A new message, in memory."""
        pending.epoch = self._epoch
        self._take(pending)

    def take_again(self, pending: Pending) -> None:
        """Events of a message that is being finished, in a new one of the same epoch."""
        self._take(pending)
        self._note_release(-pending.count, -pending.size)

    def take_spilled(self, pending: Pending) -> None:
        """A message of an earlier writer, in a file."""
        self._unfinished[pending.epoch] = self._unfinished.get(pending.epoch, 0) + 1
        self.counts.pending += pending.count
        self.counts.spilled += pending.count

    def read_back(self, pending: Pending) -> None:
        """A message comes from a file into memory."""
        self._bytes += pending.size
        self._events += pending.count
        self.counts.spilled -= pending.count
        self._look()
        self._note_release(-pending.count, -pending.size)

    def spilled(self, pending: Pending) -> None:
        """A message left memory for a file."""
        self.counts.spilled += pending.count
        self._free(pending)

    def finish(self, pending: Pending) -> None:
        """A message is acknowledged."""
        self.counts.pending -= pending.count
        self._unfinished[pending.epoch] -= 1
        if not self._unfinished[pending.epoch]:
            del self._unfinished[pending.epoch]
        self._free(pending)

    def fail(self, error: TidemarkError) -> None:
        """The writer takes no further events."""
        self.error = error
        if self.on_failure is not None:
            self.on_failure()
        self.note_change()

    def close(self) -> None:
        """No further event is taken."""
        self._is_closing = True
        self.note_change()

    def note_change(self) -> None:
        """Lets those that wait look again."""
        self._look()
        if not self._changed.done():
            self._changed.set_result(None)
        self._changed = self._loop.create_future()

    async def room(self) -> None:
        """Waits until there is room for one more event. Raises TidemarkError when there will never be."""
        while True:
            if self.error is not None:
                raise self.error
            if self._is_closing:
                raise RuntimeError("the usage writer is closed")
            if not self.is_full:
                return
            await asyncio.shield(self._changed)

    async def acknowledged(self) -> None:
        """Waits until every event that was taken so far is acknowledged or rejected. Raises TidemarkError."""
        epoch, self._epoch = self._epoch, self._epoch + 1
        while not self.is_loaded or min(self._unfinished, default=self._epoch) <= epoch:
            if self.error is not None:
                raise self.error
            await asyncio.shield(self._changed)

    def _take(self, pending: Pending) -> None:
        self._unfinished[pending.epoch] = self._unfinished.get(pending.epoch, 0) + 1
        self._bytes += pending.size
        self._events += pending.count
        self.counts.pending += pending.count
        self._look()

    def _free(self, pending: Pending) -> None:
        self._bytes -= pending.size
        self._events -= pending.count
        self._note_release(pending.count, pending.size)
        self.note_change()

    def _look(self) -> None:
        self.is_open = not (self.is_full or self._is_closing or self.error)

    def _note_release(self, events: int, size: int) -> None:
        if self.on_release is not None:
            self.on_release(events, size)

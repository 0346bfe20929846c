"""Moves messages of a writer into files: all while no server answers, and the oldest ones when memory is full."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from tidemark_client.usage.pending import Pending
from tidemark_client.usage.spill import SpillFolder, SpillFull

MOST_BYTES = 4 * 1024 * 1024  # that one write takes together, for one fsync

logger = logging.getLogger("tidemark_client.usage")


class Spiller:
    """A task that writes messages to the spill. The oldest come first, so that files keep the order.

    waiting: the messages in the order of the writer. on_freed: called with each message that is no longer in memory.
    is_away: no server answers, so messages that are sent are written, too: a crash would lose them.
    """

    def __init__(
        self,
        folder: SpillFolder,
        waiting: Callable[[], Iterable[Pending]],
        is_needed: Callable[[], bool],
        on_freed: Callable[[Pending], None],
    ) -> None:
        self._folder = folder
        self._waiting = waiting
        self._is_needed = is_needed
        self._on_freed = on_freed
        self._wake = asyncio.Event()
        self._writing: asyncio.Future[None] | None = None
        self._is_full = False
        self.is_away = False

    def wake(self) -> None:
        """Looks whether there is something to write."""
        self._wake.set()

    def done(self, pending: Pending) -> None:
        """Forgets an acknowledged message."""
        if pending.record is not None:
            self._folder.done(pending.record)
            if self._is_full:
                self._is_full = False
                self._wake.set()

    async def run(self) -> None:
        """Writes until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while not self._is_full and (self.is_away or self._is_needed()) and (chosen := self._chosen()):
                await self.write(chosen)

    async def finish(self) -> None:
        """Ends the write that is in progress when `run` is cancelled, and writes what is in memory only."""
        if self._writing is not None:
            await self._writing
        if left := [one for one in self._waiting() if one.record is None and one.events]:
            await self.write(left)

    async def write(self, chosen: list[Pending]) -> None:
        """Writes these messages. Full files and errors are logged: the messages stay in memory."""
        # A write in a thread goes on when this task is cancelled.
        self._writing = asyncio.ensure_future(self._write(chosen))
        await asyncio.shield(self._writing)

    async def _write(self, chosen: list[Pending]) -> None:
        # In the order of the writer, without those that were acknowledged meanwhile.
        contents = [pending.events for pending in chosen if pending.events is not None]
        try:
            records = await asyncio.to_thread(self._folder.append, contents)
        except (SpillFull, OSError) as error:
            self._is_full = True
            logger.error("usage stays in memory: %s", error)
            return
        for pending, record in zip(chosen, records, strict=True):
            pending.record = record
            if pending.is_done:
                self._folder.done(record)
            elif not pending.is_sent:
                pending.events = None
                self._on_freed(pending)

    def _chosen(self) -> list[Pending]:
        chosen: list[Pending] = []
        size = 0
        for pending in self._waiting():
            if pending.record is None and pending.events and (self.is_away or not pending.is_sent):
                chosen.append(pending)
                size += pending.size
                if size >= MOST_BYTES:
                    break
        return chosen

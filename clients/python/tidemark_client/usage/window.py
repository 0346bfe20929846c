"""Batches from their source to their acknowledgement."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from tidemark_client.tasks.cancellation import is_being_cancelled
from tidemark_client.usage.batches import AnyBatch
from tidemark_client.v1.usage_pb2 import UsageOutcome

BatchType = TypeVar("BatchType", bound=AnyBatch)


class BatchWindow(Generic[BatchType]):
    """Takes batches from a source, and keeps each of them until the server acknowledges it.

    unacknowledged: the batches that are sent or are being sent, the oldest first; at most `size`.
    is_exhausted: the source has ended, and every batch of it was taken. written: the number of the first batches that
    were given to a connection.
    """

    def __init__(self, size: int) -> None:
        self.unacknowledged: deque[BatchType] = deque()
        self.is_exhausted = False
        self.acknowledgement_count = 0
        self.written = 0
        self._free = asyncio.Semaphore(size)
        self._ready: asyncio.Queue[BatchType | None] = asyncio.Queue(1)  # None: the source has ended

    @property
    def is_complete(self) -> bool:
        """Whether every batch of the source is acknowledged."""
        return self.is_exhausted and not self.unacknowledged

    async def fill(self, source: AsyncIterator[BatchType]) -> None:
        """Takes every batch from the source. An error of the source is raised, and ends the batches."""
        try:
            async for batch in source:
                await self._ready.put(batch)
        except asyncio.CancelledError:
            if is_being_cancelled():
                raise
            await self._ready.put(None)
            raise RuntimeError("the source of the batches was cancelled before it ended") from None
        except Exception:
            await self._ready.put(None)
            raise
        await self._ready.put(None)

    async def next(self) -> BatchType | None:
        """The next new batch, once the window has room for it; None after the last one."""
        await self._free.acquire()
        try:
            batch = await self._ready.get()
        except BaseException:
            self._free.release()
            raise
        if batch is None:
            self._free.release()
            self.is_exhausted = True
        else:
            self.unacknowledged.append(batch)
        return batch

    def acknowledge(self, outcome: UsageOutcome) -> BatchType:
        """Removes the oldest batch, which the outcome acknowledges, and returns it.

        Raises RuntimeError when the outcome belongs to another batch.
        """
        if not self.unacknowledged:
            raise RuntimeError(f"the server answered batch {outcome.batch_id!r} more often than it was sent")
        batch = self.unacknowledged.popleft()
        if batch.batch_id != outcome.batch_id:
            raise RuntimeError(f"the server answered batch {outcome.batch_id!r} before {batch.batch_id!r}")
        self.acknowledgement_count += 1
        self._free.release()
        return batch

"""Hints that work waits in the database, and the signal that wakes the loop of the worker."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Literal

from store.deliveries.pending_work import PendingWork
from store.postgres.database import DatabaseUnavailable


class Hints:
    """Which kinds of work may wait. A wrong hint costs one statement, a missing one the time until the next poll."""

    def __init__(self) -> None:
        self.outbox = False
        self.due = False
        self.expired = False
        self._wake = asyncio.Event()

    def any(self) -> bool:
        """Whether any work may wait."""
        return self.outbox or self.due or self.expired

    @contextlib.contextmanager
    def taken(self, kind: Literal["outbox", "due", "expired"]) -> Iterator[None]:
        """Takes a hint for a block that looks for that work; leaves it if the database fails there.

        It is taken before the block: a row that is committed meanwhile sets it again.
        """
        setattr(self, kind, False)
        try:
            yield
        except DatabaseUnavailable:
            setattr(self, kind, True)
            raise

    def add(self, work: PendingWork) -> None:
        """Adds what a poll found."""
        self.outbox |= work.outbox is True
        self.due |= work.due
        self.expired |= work.expired

    def outbox_changed(self) -> None:
        """Wakes the loop, because outbox rows may have been committed."""
        self.outbox = True
        self.wake()

    def deliveries_due(self) -> None:
        """Wakes the loop, because deliveries may be due."""
        self.due = True
        self.wake()

    def wake(self) -> None:
        """Wakes the loop."""
        self._wake.set()

    async def wait(self, timeout: float) -> None:
        """Waits until the loop is woken, for at most `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        self._wake.clear()

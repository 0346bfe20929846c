"""Something in the database that a process reads regularly, and shows as it was last read: no scrape waits for it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.tasks import BackgroundTask, FailureLog
from store.postgres.database import Connection, Database, DatabaseUnavailable

TIMEOUT = 5.0  # seconds that a read may take

Found = TypeVar("Found")

logger = logging.getLogger(__name__)


class RegularReading(Generic[Found]):
    """Reads on the pool of the process, one connection for milliseconds.

    After a read that failed there is nothing until one succeeds: an old value would look like a good one.
    """

    def __init__(
        self, database: Database, read: Callable[[Connection], Awaitable[Found]], *, name: str, interval: float
    ) -> None:
        """read: in a transaction of its own. name: what it reads. interval: seconds between two reads."""
        self._database = database
        self._read = read
        self._last: Found | None = None
        self._task = BackgroundTask(
            self.read,
            FailureLog(
                logger,
                f"the {name} cannot be read",
                LogAction.BACKLOG_FAILED,
                (DatabaseUnavailable, TimeoutError),  # `Database` logs it
            ),
            name=name,
            interval=interval,
            backoff=Backoff(longest=interval),
        )

    @property
    def last(self) -> Found | None:
        """What the last read found; None while there is none, or if it failed."""
        return self._last

    def start(self) -> None:
        """Begins to read."""
        self._task.start()

    async def stop(self) -> None:
        """Ends the reads."""
        await self._task.stop()

    async def read(self) -> None:
        """Reads once. Raises DatabaseUnavailable and TimeoutError."""
        try:
            async with asyncio.timeout(TIMEOUT), self._database.transaction() as connection:
                found = await self._read(connection)
        except BaseException:
            self._last = None
            raise
        self._last = found

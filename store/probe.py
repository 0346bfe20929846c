"""Whether the database answers, and takes writes."""

import asyncio

from sqlalchemy.exc import SQLAlchemyError

from store import sessions
from store.database import Database, DatabaseUnavailable


class Probe:
    """Asks the database for a sign of life, on a connection of its own.

    A connection of the common pool would have to be waited for while the service is busy, and a busy service
    is not a dead database.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url, pool_size=1)

    async def answers(self, timeout: float) -> bool:
        """Whether a statement succeeds within `timeout` seconds, on a server that takes writes."""
        try:
            async with asyncio.timeout(timeout), self._database.raw_transaction() as connection:
                await sessions.require_writable(connection)
        # Any refusal counts: a server that is there but takes no login serves nobody either.
        except (TimeoutError, DatabaseUnavailable, SQLAlchemyError):
            return False
        return True

    async def close(self) -> None:
        """Closes the connection."""
        await self._database.close()

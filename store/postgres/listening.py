"""LISTEN: receives what other transactions send with NOTIFY, on a separate connection."""

from collections.abc import AsyncIterator

import psycopg
from psycopg import sql

from store.postgres import sessions
from store.postgres.failures import DatabaseUnavailable, failure_of

CHECK_INTERVAL = 10.0  # seconds without a notification after which the connection is checked


async def listen(url: str, *channels: str) -> AsyncIterator[tuple[str, str] | None]:
    """Yields None once it listens, and then the channel and the payload of each notification.

    Raises DatabaseUnavailable if the connection fails or is lost, or if its server no longer accepts writes.
    """
    try:
        async with await sessions.connect(url, "listen") as connection:
            for channel in channels:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            yield None
            while True:
                async for notify in connection.notifies(timeout=CHECK_INTERVAL):
                    yield notify.channel, notify.payload
                # An old primary that is now read only keeps the connection open, and will never notify again.
                await sessions.require_writable(connection)
    except psycopg.Error as error:
        if failure_of(error) is None:
            raise
        raise DatabaseUnavailable("the connection that listens for notifications was lost") from error

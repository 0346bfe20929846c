"""LISTEN: a connection of its own that says what other transactions have notified, and on which channel."""

from collections.abc import AsyncIterator

import psycopg
from psycopg import sql

from store.postgres import sessions
from store.postgres.failures import DatabaseUnavailable, failure_of

CHECK_INTERVAL = 10.0  # seconds of silence after which a listening connection asks for a sign of life


async def listen(url: str, *channels: str) -> AsyncIterator[tuple[str, str] | None]:
    """Yields None once when it listens, and then the channel and the payload of each notification.

    Raises DatabaseUnavailable when the connection cannot be made, is lost, or is one to a server that takes no writes
    any more.
    """
    try:
        async with await sessions.connect(url, "listen") as connection:
            for channel in channels:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            yield None
            while True:
                async for notify in connection.notifies(timeout=CHECK_INTERVAL):
                    yield notify.channel, notify.payload
                # An old primary that was set to read only keeps the connection, and commits nothing any more.
                await sessions.require_writable(connection)
    except psycopg.Error as error:
        if failure_of(error) is None:
            raise
        raise DatabaseUnavailable("the connection that listens for notifications was lost") from error

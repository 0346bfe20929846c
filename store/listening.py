"""LISTEN: a connection of its own that says what other transactions have notified, and on which channel."""

from collections.abc import AsyncIterator

import psycopg
from psycopg import sql

from store.database import CONNECT_TIMEOUT, DatabaseUnavailable

KEEPALIVE_IDLE = 30  # seconds; a listening connection says nothing itself and would not notice a dead peer


async def listen(url: str, *channels: str) -> AsyncIterator[tuple[str, str] | None]:
    """Yields None once when it listens, and then the channel and the payload of each notification.

    Raises DatabaseUnavailable when the connection cannot be made, or is lost.
    """
    try:
        connection = await psycopg.AsyncConnection.connect(
            url,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT,
            application_name="tidemark listen",
            keepalives_idle=KEEPALIVE_IDLE,
        )
        async with connection:
            for channel in channels:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            yield None
            async for notify in connection.notifies():
                yield notify.channel, notify.payload
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable("the connection that listens for notifications was lost") from error

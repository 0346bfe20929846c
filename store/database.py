"""The connection pool: transactions for SQLAlchemy statements, and raw ones for COPY and pipelines."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.pq import PipelineStatus
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from store.addresses import writable

Row = tuple[Any, ...]

# What `transaction` hands out. Other rooms pass it on to the store's functions, and need not know whose it is.
Connection = AsyncConnection

_DIALECT = "postgresql+psycopg://"  # SQLAlchemy's name of the driver; the addresses go to the driver itself
CONNECT_TIMEOUT = 5  # seconds
POOL_TIMEOUT = 10.0  # seconds to wait for a free connection


class DatabaseUnavailable(Exception):
    """The database cannot be reached, or went away in the middle of a transaction that was not committed."""


def sync_engine(url: str) -> Engine:
    """Connections for work that is done before or without an event loop: one at a time, none kept."""
    conninfo = writable(url, connect_timeout=CONNECT_TIMEOUT)
    return create_engine(_DIALECT, creator=lambda: psycopg.connect(conninfo), poolclass=NullPool)


class Database:
    """A pool of connections to one PostgreSQL server, for one event loop.

    `pool_size` connections stay open at the most. A connection that turns out to be dead takes the idle ones
    with it, so that one failure does not surface once for each of them.
    """

    def __init__(self, url: str, pool_size: int = 12) -> None:
        self.url = url
        conninfo = writable(
            url, connect_timeout=CONNECT_TIMEOUT, application_name="tidemark", options="-c timezone=UTC"
        )

        # SQLAlchemy's own URLs know no list of hosts, so the driver reads the address.
        async def connect() -> psycopg.AsyncConnection[Row]:
            # Prepared statements pay off at once for a service that repeats a dozen of them.
            return await psycopg.AsyncConnection.connect(conninfo, prepare_threshold=1)

        self._engine = create_async_engine(
            _DIALECT, async_creator=connect, pool_size=pool_size, max_overflow=0, pool_timeout=POOL_TIMEOUT
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction at READ COMMITTED; commits at the end of the block, rolls back on an exception.

        Statements may also go to its driver connection (see `driver`); they belong to the same transaction.
        Raises DatabaseUnavailable when the server cannot be reached or goes away.
        """
        pool = self._engine.pool
        try:
            async with self._engine.connect() as connection:
                try:
                    # SQLAlchemy begins at its first statement; a raw one may come before it.
                    async with connection.begin():
                        yield connection
                except psycopg.OperationalError as error:
                    # Raised by a raw statement, so SQLAlchemy has not noticed that the connection is dead.
                    if _is_loss(error):
                        await connection.invalidate(error)
                    raise
                finally:
                    # The pool was thrown away in the meantime, see below: nobody closes what is put back there. And
                    # a connection that was cut within a pipeline cannot leave it, so nothing can be rolled back.
                    if self._engine.pool is not pool or await _is_stuck(connection):
                        await connection.invalidate()
        except PoolTimeoutError as error:
            raise DatabaseUnavailable("no connection became free in time") from error
        except (DBAPIError, psycopg.OperationalError) as error:
            if not _is_loss(error):
                raise
            await self._engine.dispose()
            raise DatabaseUnavailable("the connection to the database was lost") from error

    @asynccontextmanager
    async def raw_transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        """The same transaction on the driver's own connection, for what SQLAlchemy has no words for."""
        async with self.transaction() as connection:
            yield await driver(connection)

    async def close(self) -> None:
        """Closes every connection."""
        await self._engine.dispose()


async def driver(connection: AsyncConnection) -> psycopg.AsyncConnection[Row]:
    """The psycopg connection beneath SQLAlchemy's: for COPY, pipelines and the statements of the hot path."""
    pooled: Any = await connection.get_raw_connection()
    beneath: psycopg.AsyncConnection[Row] = pooled.driver_connection
    return beneath


async def _is_stuck(connection: AsyncConnection) -> bool:
    """Whether the connection is still in a pipeline, although nobody is."""
    if connection.closed or connection.invalidated:
        return False
    return (await driver(connection)).pgconn.pipeline_status != PipelineStatus.OFF


def _is_loss(error: DBAPIError | psycopg.OperationalError) -> bool:
    """Whether the connection is gone, as opposed to one statement having failed."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or (
            isinstance(error.orig, psycopg.OperationalError) and _is_loss(error.orig)
        )
    # Class 08: connection lost; 57P: the server shuts down, crashed or starts; 53300: no connection left.
    return (error.sqlstate or "08000").startswith(("08", "57P", "53300"))

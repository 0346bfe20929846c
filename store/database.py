"""The connection pool: transactions for SQLAlchemy statements, and raw ones for COPY and pipelines."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError, TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

Row = tuple[Any, ...]

CONNECT_TIMEOUT = 5  # seconds
POOL_TIMEOUT = 10.0  # seconds to wait for a free connection


class DatabaseUnavailable(Exception):
    """The database cannot be reached, or went away in the middle of a transaction that was not committed."""


def sqlalchemy_url(url: str) -> URL:
    """The same address for SQLAlchemy's psycopg 3 dialect."""
    return make_url(url).set(drivername="postgresql+psycopg")


class Database:
    """A pool of connections to one PostgreSQL server, for one event loop.

    `pool_size` connections stay open at the most. A connection that turns out to be dead takes the idle ones
    with it, so that one failure does not surface once for each of them.
    """

    def __init__(self, url: str, pool_size: int = 12) -> None:
        self.url = url
        self._engine = create_async_engine(
            sqlalchemy_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT,
                "application_name": "tidemark",
                # Prepared statements pay off at once for a service that repeats a dozen of them.
                "prepare_threshold": 1,
                "options": "-c timezone=UTC",
            },
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction at READ COMMITTED; commits at the end of the block, rolls back on an exception.

        Raises DatabaseUnavailable when the server cannot be reached or goes away.
        """
        try:
            async with self._engine.begin() as connection:
                yield connection
        except PoolTimeoutError as error:
            raise DatabaseUnavailable("no connection became free in time") from error
        except DBAPIError as error:
            if _is_lost(error):
                await self._engine.dispose()
                raise DatabaseUnavailable("the connection to the database was lost") from error
            raise

    @asynccontextmanager
    async def raw_transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        """The same transaction on psycopg's own connection, for what SQLAlchemy has no words for.

        Raises DatabaseUnavailable as `transaction` does.
        """
        async with self.transaction() as connection:
            raw = driver_connection(await connection.get_raw_connection())
            try:
                yield raw
                await raw.commit()
            except psycopg.OperationalError as error:
                if raw.closed or raw.broken or _is_shutdown(error):
                    await connection.invalidate(error)
                    await self._engine.dispose()
                    raise DatabaseUnavailable("the connection to the database was lost") from error
                await raw.rollback()
                raise
            except BaseException:
                # SQLAlchemy saw no statement of ours and would hand the open transaction to the next caller.
                if not raw.closed:
                    await raw.rollback()
                raise

    async def close(self) -> None:
        """Closes every connection."""
        await self._engine.dispose()


def driver_connection(pooled: Any) -> psycopg.AsyncConnection[Row]:
    """The psycopg connection inside SQLAlchemy's pooled one."""
    connection: psycopg.AsyncConnection[Row] = pooled.driver_connection
    return connection


def _is_lost(error: DBAPIError) -> bool:
    original = error.orig
    return error.connection_invalidated or (
        isinstance(original, psycopg.OperationalError)
        and (original.sqlstate is None or _is_shutdown(original))
    )


def _is_shutdown(error: psycopg.Error) -> bool:
    # Class 57P: the server is shutting down, crashed or cannot be connected to yet; class 08: connection lost.
    state = error.sqlstate or "08000"
    return state.startswith(("57P", "08", "53300"))

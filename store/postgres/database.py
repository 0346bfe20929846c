"""The connection pool: transactions for SQLAlchemy statements, and raw ones for COPY and pipelines."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.pq import ConnStatus, PipelineStatus
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from store.postgres import sessions
from store.postgres.failures import DatabaseUnavailable, Discard, Failure, failure_of, sqlstate_of, unavailable

# The exception that every room catches is known by this module's name.
__all__ = ["Connection", "Database", "DatabaseUnavailable", "DriverConnection", "Row", "driver", "sync_engine"]

Row = sessions.Row

# What `transaction` hands out. Other rooms pass it on to the store's functions, and need not know whose it is.
Connection = AsyncConnection

# What `driver` hands out: the driver's own connection below it, for COPY, pipelines and statements on the hot path.
DriverConnection = psycopg.AsyncConnection[Row]

_DIALECT = "postgresql+psycopg://"  # SQLAlchemy's name of the driver; the addresses go to the driver itself
POOL_TIMEOUT = 10.0  # seconds to wait for a free connection
LOG_INTERVAL = 10.0  # seconds between two lines of the log about failures of one kind

logger = logging.getLogger(__name__)


def sync_engine(url: str) -> Engine:
    """Connections for work that is done before or without an event loop, such as migrations; none is kept."""
    conninfo = sessions.connection_string(url, "migrate")
    engine = create_engine(
        _DIALECT, creator=lambda: psycopg.connect(conninfo), poolclass=NullPool, hide_parameters=True
    )
    event.listen(engine, "connect", lambda connection, _: sessions.prepare_migration(connection), insert=True)
    return engine


class Database:
    """A pool of connections to one PostgreSQL server, for one event loop.

    `pool_size` connections stay open at the most. A connection that turns out to be dead takes the idle ones
    with it, so that one failure does not surface once for each of them.
    """

    def __init__(self, url: str, pool_size: int = 12, purpose: str = "") -> None:
        """purpose: what the connections are for, as a word for pg_stat_activity; empty for the work itself."""
        self.url = url
        self.losses = 0  # how often the pool was thrown away, whichever task met the failure
        self._open: dict[object, float] = {}  # transactions, and when they began by the event loop's clock
        self._logged: dict[str, tuple[float, int]] = {}  # by kind: when, and how many since
        conninfo = sessions.connection_string(url, purpose)

        # SQLAlchemy's own URLs know no list of hosts, so the driver reads the address.
        async def connect() -> DriverConnection:
            # Prepared statements pay off at once for a service that repeats a dozen of them.
            return await psycopg.AsyncConnection.connect(conninfo, prepare_threshold=1)

        self._engine = create_async_engine(
            _DIALECT,
            async_creator=connect,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            # What a statement is given may be secret, and its errors are logged.
            hide_parameters=True,
        )
        # Before SQLAlchemy's own first statements, which would run with the settings of the role.
        event.listen(self._engine.sync_engine, "connect", _prepare, insert=True)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction at READ COMMITTED; commits at the end of the block, rolls back on an exception.

        Statements may also go to its driver connection (see `driver`); they belong to the same transaction.
        Raises DatabaseUnavailable for every failure of the database that `store.postgres.failures` knows.
        """
        async with self._transaction() as connection:
            token = object()
            self._open[token] = asyncio.get_running_loop().time()
            try:
                yield connection
            finally:
                del self._open[token]

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        pool = self._engine.pool
        failure: Failure | None = None
        try:
            async with self._engine.connect() as connection:
                try:
                    # SQLAlchemy begins at its first statement; a raw one may come before it.
                    async with connection.begin():
                        yield connection
                except (SQLAlchemyError, psycopg.Error) as error:
                    failure = failure_of(error, connection_is_dead=await _is_dead(connection))
                    # Raised by a raw statement, SQLAlchemy has not noticed what became of the connection.
                    if failure is not None and failure.discard is not Discard.NOTHING:
                        await connection.invalidate(error)
                    raise
                finally:
                    # The pool was thrown away in the meantime, see below: nobody closes what is put back there. And
                    # a connection that was cut within a pipeline cannot leave it, so nothing can be rolled back.
                    if self._engine.pool is not pool or await _is_stuck(connection):
                        await connection.invalidate()
        except (SQLAlchemyError, psycopg.Error, DatabaseUnavailable) as error:
            failure = failure or failure_of(error)
            if failure is None:
                raise
            if failure.discard is Discard.POOL:
                self.losses += 1
                await self._engine.dispose()
            self._log(failure, error)
            if isinstance(error, DatabaseUnavailable):
                raise
            raise unavailable(failure) from error

    @asynccontextmanager
    async def raw_transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        """The same transaction on the driver's own connection, for what SQLAlchemy has no words for."""
        async with self.transaction() as connection:
            yield await driver(connection)

    def longest_transaction(self) -> float:
        """Since how many seconds the oldest open transaction lasts; 0 when none is open."""
        if not self._open:
            return 0.0
        return asyncio.get_running_loop().time() - next(iter(self._open.values()))

    async def close(self) -> None:
        """Closes every connection."""
        await self._engine.dispose()

    def _log(self, failure: Failure, error: Exception) -> None:
        """Says what failed, since many who meet it only wait and try again; each kind now and then only."""
        now = asyncio.get_running_loop().time()
        last, count = self._logged.get(failure.kind, (-LOG_INTERVAL, 0))
        if now - last < LOG_INTERVAL:
            self._logged[failure.kind] = last, count + 1
            return
        self._logged[failure.kind] = now, 0
        logger.warning(
            "the database failed a transaction: %s",
            failure.message,
            extra={
                "action": "database.failed",
                "failure": failure.kind,
                "sqlstate": sqlstate_of(error),
                "before": count,
            },
        )


async def driver(connection: AsyncConnection) -> DriverConnection:
    """The psycopg connection beneath SQLAlchemy's: for COPY, pipelines and the statements of the hot path."""
    pooled: Any = await connection.get_raw_connection()
    beneath: DriverConnection = pooled.driver_connection
    return beneath


def _prepare(connection: Any, _: Any) -> None:
    """Prepares the session of a connection that the pool has just made."""
    connection.run_async(sessions.prepare)


async def _is_dead(connection: AsyncConnection) -> bool:
    """Whether the driver has found the connection gone."""
    if connection.closed or connection.invalidated:
        return connection.invalidated
    return (await driver(connection)).pgconn.status is ConnStatus.BAD


async def _is_stuck(connection: AsyncConnection) -> bool:
    """Whether the connection is still in a pipeline, although nobody is."""
    if connection.closed or connection.invalidated:
        return False
    return (await driver(connection)).pgconn.pipeline_status != PipelineStatus.OFF

"""The connection pool: transactions for SQLAlchemy, and the driver's connection for COPY and pipelines."""

import asyncio
import contextlib
import functools
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psycopg
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus
from sqlalchemy import Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool, Pool
from sqlalchemy.util import greenlet_spawn

from runtime.actions import LogAction
from store.postgres import sessions
from store.postgres.failures import KINDS, DatabaseUnavailable, Discard, Failure, failure_of, sqlstate_of, unavailable
from store.postgres.pooled_connection import PooledConnection
from store.postgres.statement_bounds import statement_timeout

# Other rooms import DatabaseUnavailable from here.
__all__ = [
    "Connection",
    "Cursor",
    "Database",
    "DatabaseUnavailable",
    "DriverConnection",
    "Row",
    "driver",
    "sync_engine",
]

Row = sessions.Row

# The connection of a transaction. Other rooms only pass it to the store's functions.
Connection = AsyncConnection

# The driver's connection below it, which `driver` returns: for COPY, pipelines and statements on the hot path.
DriverConnection = psycopg.AsyncConnection[Row]

# A statement that was executed; within a pipeline, one that is sent and has no result yet.
Cursor = psycopg.AsyncCursor[Row]

_DIALECT = "postgresql+psycopg://"  # SQLAlchemy's name of the driver; the addresses go to the driver itself
POOL_TIMEOUT = 10.0  # seconds to wait for a free connection
LOG_INTERVAL = 10.0  # seconds between two log entries about failures of one kind

logger = logging.getLogger(__name__)


def sync_engine(url: str) -> Engine:
    """Connections for work without an event loop, such as migrations. None stays open."""
    conninfo = sessions.connection_string(url, "migrate")
    engine = create_engine(
        _DIALECT, creator=lambda: psycopg.connect(conninfo), poolclass=NullPool, hide_parameters=True
    )
    event.listen(engine, "connect", lambda connection, _: sessions.prepare_migration(connection), insert=True)
    return engine


class Database:
    """A pool of connections to one PostgreSQL server, for one event loop.

    At most `pool_size` connections are open. If one of them is dead, the pool closes the idle ones too, so that one
    failure of the server does not fail a transaction for each of them.
    """

    def __init__(
        self,
        url: str,
        pool_size: int = 12,
        purpose: str = "",
        *,
        lock_timeout: float = sessions.LOCK_TIMEOUT,
        announce: Callable[[Collection[int]], None] | None = None,
    ) -> None:
        """purpose: one word that pg_stat_activity shows for the connections; empty for the main pool.

        lock_timeout: seconds that a statement waits for a lock before its transaction is rolled back.

        announce: called after a commit at a worker of a cluster, with the organizations that it notifies.
        """
        self._announce = announce
        self.url = url
        self.losses = 0  # failures for which the pool is thrown away, whichever task met them
        self.pool_size = pool_size
        self.waiting = 0  # tasks that wait for a connection
        self.waits = 0  # for a connection that have ended, also those that did not have to wait
        self.wait_seconds = 0.0  # of all of them
        self.failures = Counter[str](dict.fromkeys(KINDS, 0))  # of transactions, by kind
        self._open: dict[object, float] = {}  # transactions, and when they began by the event loop's clock
        self._logged: dict[str, tuple[float, int]] = {}  # by kind: when, and how many since
        conninfo = sessions.connection_string(url, purpose)

        # The driver reads the address: SQLAlchemy's URLs support no list of hosts.
        async def connect() -> DriverConnection:
            # The service repeats a few statements, so each is prepared at its second execution.
            return await PooledConnection.connect(conninfo, prepare_threshold=1)

        self._engine = create_async_engine(
            _DIALECT,
            async_creator=connect,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            # Parameters of statements can be secret, and errors are logged.
            hide_parameters=True,
            # No column has this type. SQLAlchemy would look it up at the first connection of each pool.
            use_native_hstore=False,
        )
        # Before SQLAlchemy's own first statements: they would run with the settings of the role.
        prepare = functools.partial(sessions.prepare, pins=sessions.pins_with(lock_timeout=lock_timeout))
        event.listen(
            self._engine.sync_engine, "connect", lambda connection, _: connection.run_async(prepare), insert=True
        )
        event.listen(self._engine.sync_engine, "handle_error", _decide_what_is_closed)

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction at READ COMMITTED; commits at the end of the block, rolls back on an exception.

        Statements on the driver's connection (see `driver`) belong to the same transaction. When the task is
        cancelled, PostgreSQL cancels the statement that runs. The statements of a call also end soon after its
        deadline (`store.postgres.statement_bounds`). Raises DatabaseUnavailable for each failure of the database that
        `store.postgres.failures` knows.
        """
        return self._noted_transaction(unbegun=False)

    def unbegun_transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A `transaction` that its block begins: the first statement is BEGIN, on the driver's connection.

        The driver's own BEGIN takes a round trip, also within a pipeline.
        """
        return self._noted_transaction(unbegun=True)

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection for one statement that only reads: a `transaction` without the trips of BEGIN and COMMIT.

        Two statements in the block are two transactions. Where PostgreSQL has to know the deadline of the call, it is
        a `transaction`, because the setting needs one.
        """
        return self._noted_transaction(unbegun=statement_timeout() is None)

    @asynccontextmanager
    async def _noted_transaction(self, *, unbegun: bool) -> AsyncIterator[AsyncConnection]:
        async with self._transaction(unbegun=unbegun) as connection:
            token = object()
            self._open[token] = asyncio.get_running_loop().time()
            try:
                yield connection
            finally:
                del self._open[token]

    @asynccontextmanager
    async def _transaction(self, *, unbegun: bool) -> AsyncIterator[AsyncConnection]:
        pool = self._engine.pool
        failure: Failure | None = None
        timeout = None if unbegun else statement_timeout()
        begins_itself = unbegun or timeout is not None
        scope = _begun_by_block if unbegun else _begun
        self.waiting += 1
        wait_began: float | None = time.perf_counter()
        try:
            async with self._engine.connect() as connection:
                self._end_wait(wait_began)
                wait_began = None
                try:
                    async with scope(connection, timeout):
                        yield connection
                    if self._announce is not None:
                        await _announce(connection, self._announce)
                except (SQLAlchemyError, psycopg.Error) as error:
                    failure = failure_of(error, connection_is_dead=await _is_dead(connection))
                    # SQLAlchemy does not see errors of statements on the driver's connection.
                    if failure is not None and failure.discard is not Discard.NOTHING:
                        await connection.invalidate(error)
                    raise
                finally:
                    # If the pool was disposed of meanwhile (see below), a connection that returns to it is never
                    # closed. A connection that broke inside a pipeline cannot leave it, so no rollback is possible.
                    is_usable = self._engine.pool is pool and not await _is_stuck(connection)
                    if not is_usable or (begins_itself and not await _end_autocommit(connection)):
                        await connection.invalidate()
        except (SQLAlchemyError, psycopg.Error, DatabaseUnavailable) as error:
            failure = failure or failure_of(error)
            if failure is None:
                raise
            if failure.discard is Discard.POOL:
                self.losses += 1
                await self._throw_away(pool)
            self._log(failure, error)
            if isinstance(error, DatabaseUnavailable):
                raise
            raise unavailable(failure, error) from error
        finally:
            self._end_wait(wait_began)  # when it got no connection

    async def _throw_away(self, pool: Pool) -> None:
        """Replaces the pool of a transaction that was lost, and closes what is idle in it.

        One cause can end several transactions, which notice it one after the other. The pool is replaced once, and
        before anything is closed: the later ones find another pool, with connections that were opened since.
        """
        if self._engine.pool is pool:
            self._engine.sync_engine.dispose(close=False)
            await greenlet_spawn(pool.dispose)

    def _end_wait(self, began: float | None) -> None:
        """Counts the wait for a connection that began then; does nothing when it was counted already."""
        if began is not None:
            self.waiting -= 1
            self.waits += 1
            self.wait_seconds += time.perf_counter() - began

    @asynccontextmanager
    async def raw_transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        """A `transaction`, as the driver's connection."""
        async with self.transaction() as connection:
            yield await driver(connection)

    @property
    def in_use(self) -> int:
        """Connections of the pool that are in use."""
        return len(self._open)

    def longest_transaction(self) -> float:
        """The age of the oldest open transaction in seconds; 0 if none is open."""
        if not self._open:
            return 0.0
        return asyncio.get_running_loop().time() - next(iter(self._open.values()))

    async def close(self) -> None:
        """Closes every connection."""
        await self._engine.dispose()

    def _log(self, failure: Failure, error: Exception) -> None:
        """Logs a failure, since many callers only wait and try again. Each kind at most once in LOG_INTERVAL."""
        self.failures[failure.kind] += 1
        now = asyncio.get_running_loop().time()
        last, count = self._logged.get(failure.kind, (-LOG_INTERVAL, 0))
        if now - last < LOG_INTERVAL:
            self._logged[failure.kind] = last, count + 1
            return
        self._logged[failure.kind] = now, 0
        logger.warning(
            "the database failed a transaction: %s",
            unavailable(failure, error),
            extra={
                "action": LogAction.DATABASE_FAILED,
                "failure": failure.kind,
                "sqlstate": sqlstate_of(error),
                "before": count,
            },
        )


async def driver(connection: AsyncConnection) -> DriverConnection:
    """The psycopg connection beneath SQLAlchemy's: for COPY, pipelines and the statements of the hot path."""
    pooled: Any
    if connection.closed or connection.invalidated:
        pooled = await connection.get_raw_connection()  # says what is wrong
    else:
        # The same without a greenlet, which takes longer than all else that a transaction needs it for.
        assert connection.sync_connection is not None, "an open connection has it"
        pooled = connection.sync_connection.connection
    beneath: DriverConnection = pooled.driver_connection
    return beneath


@asynccontextmanager
async def _begun(connection: AsyncConnection, timeout: int | None) -> AsyncIterator[None]:
    """A transaction around the block. timeout: see `_begin`."""
    # Without it, SQLAlchemy begins at its first statement, which can come after one on the driver.
    async with connection.begin():
        if timeout is not None:
            await (await driver(connection)).set_autocommit(True)
            await _begin(connection, timeout)
        yield


@asynccontextmanager
async def _begun_by_block(connection: AsyncConnection, _: int | None) -> AsyncIterator[None]:
    """Commits what the block has begun and not committed; rolls it back on an exception."""
    raw = await driver(connection)
    await raw.set_autocommit(True)
    try:
        yield
    except BaseException:
        # The exception of the block says more than one of the rollback; a connection that is still in a transaction
        # is closed (`_end_autocommit`).
        with contextlib.suppress(psycopg.Error):
            await raw.rollback()
        raise
    if raw.pgconn.transaction_status != TransactionStatus.IDLE:
        await raw.commit()


async def _begin(connection: AsyncConnection, timeout: int) -> None:
    """Begins the transaction, with a time in milliseconds for each of its statements.

    The driver's own BEGIN takes a round trip, too; this is one message with two statements, which cannot be prepared.
    """
    statement = b"BEGIN; SET LOCAL statement_timeout = %d" % timeout
    await (await driver(connection)).execute(statement, prepare=False)


def _decide_what_is_closed(context: ExceptionContext) -> None:
    """Keeps the pool after any error, and the connection of a statement that was cancelled with its task.

    SQLAlchemy would end all connections of the present pool, which may be newer than its own; `failures`
    says which errors end them. It would also close the connection, because it does not know in which state it is. The
    driver has waited for the end of the statement, or has closed it itself. A connection for each call that is
    cancelled would cost more than the call.
    """
    context.invalidate_pool_on_disconnect = False
    if not isinstance(context.original_exception, asyncio.CancelledError) or context.connection is None:
        return
    raw: DriverConnection = context.connection.connection.driver_connection  # type: ignore[assignment]
    if raw.pgconn.transaction_status in (
        TransactionStatus.IDLE,
        TransactionStatus.INTRANS,
        TransactionStatus.INERROR,
    ):
        context.is_disconnect = False


async def _announce(connection: AsyncConnection, announce: Callable[[Collection[int]], None]) -> None:
    """Announces what the transaction that was committed notifies."""
    raw = await driver(connection)
    if isinstance(raw, PooledConnection) and raw.announced:
        announce(tuple(raw.announced))
        raw.announced.clear()


async def _is_dead(connection: AsyncConnection) -> bool:
    """Whether the connection is lost, as far as the driver knows."""
    if connection.closed or connection.invalidated:
        return connection.invalidated
    return (await driver(connection)).pgconn.status is ConnStatus.BAD


async def _is_stuck(connection: AsyncConnection) -> bool:
    """Whether the connection is in pipeline mode after the pipeline block has ended."""
    if connection.closed or connection.invalidated:
        return False
    return (await driver(connection)).pgconn.pipeline_status != PipelineStatus.OFF


async def _end_autocommit(connection: AsyncConnection) -> bool:
    """Lets the driver begin transactions again. False if the connection is in a transaction, and may not be used."""
    if connection.closed or connection.invalidated:
        return True
    raw = await driver(connection)
    if raw.pgconn.transaction_status != TransactionStatus.IDLE:  # its end was cancelled
        return False
    await raw.set_autocommit(False)
    return True

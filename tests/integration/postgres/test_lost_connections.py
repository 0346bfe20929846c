"""The pool when connections are lost: the error that is raised, and the state of the other connections."""

import asyncio
import gc
import warnings

import psycopg
import pytest
from sqlalchemy import text

from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.pooled_connection import PooledConnection
from tests.support.server.sharing import own_database

pytestmark = own_database


async def end(database: Database, pid: int) -> None:
    """Cuts one connection."""
    async with await psycopg.AsyncConnection.connect(database.url, autocommit=True) as connection:
        await connection.execute("SELECT pg_terminate_backend(%s::integer)", (pid,))


@pytest.mark.parametrize("raw", [True, False])
async def test_a_lost_connection_raises_database_unavailable_and_the_next_one_works(
    database: Database, raw: bool
) -> None:
    with pytest.raises(DatabaseUnavailable):
        await lose(database, raw)
    async with database.transaction() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1


async def lose(database: Database, raw: bool) -> None:
    """Uses a connection that is cut meanwhile."""
    if raw:
        async with database.raw_transaction() as driver:
            await end(database, driver.info.backend_pid)
            await driver.execute("SELECT 1")
    else:
        async with database.transaction() as connection:
            await end(database, int(await connection.scalar(text("SELECT pg_backend_pid()")) or 0))
            await connection.execute(text("SELECT 1"))


async def test_a_failed_statement_is_not_reported_as_a_lost_connection(database: Database) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        async with database.raw_transaction() as connection:
            await connection.execute("SELECT 1 / 0")


async def test_a_transaction_that_outlives_the_loss_of_another_commits_and_leaves_no_connection_open(
    database: Database,
) -> None:
    """The pool of its connection is replaced by then: a connection that is returned there would never be closed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with database.raw_transaction() as surviving:
            pid = surviving.info.backend_pid
            with pytest.raises(DatabaseUnavailable):
                await lose(database, raw=True)
            await surviving.execute("CREATE TABLE survived (number integer)")
        del surviving
        gc.collect()
    assert not [str(warning.message) for warning in caught]
    async with database.raw_transaction() as connection:
        cursor = await connection.execute("SELECT count(*) FROM survived")
        assert await cursor.fetchall() == [(0,)]
        cursor = await connection.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,))
        assert await cursor.fetchall() == []


@pytest.mark.parametrize("closing_waits", [False, True])
async def test_transactions_that_one_cause_ends_replace_the_pool_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, closing_waits: bool
) -> None:
    """What others have opened since stays. closing_waits: the first one still closes the pool then."""
    closes, goes_on = asyncio.Event(), asyncio.Event()
    close = PooledConnection.close

    async def slowly(self: PooledConnection) -> None:
        if self is idle:
            closes.set()
            await goes_on.wait()
        await close(self)

    async def ended(began: asyncio.Event, ends: asyncio.Event) -> None:
        async with database.raw_transaction() as connection:
            await end(database, connection.info.backend_pid)
            began.set()
            await ends.wait()
            await connection.execute("SELECT 1")

    async def lost(began: asyncio.Event, ends: asyncio.Event) -> None:
        with pytest.raises(DatabaseUnavailable):
            await ended(began, ends)

    began, ends = [asyncio.Event() for _ in range(2)], [asyncio.Event() for _ in range(2)]
    async with database.raw_transaction() as idle:
        first, second = (asyncio.create_task(lost(*events)) for events in zip(began, ends, strict=True))
        await asyncio.gather(*(event.wait() for event in began))
    if closing_waits:
        monkeypatch.setattr(PooledConnection, "close", slowly)
    ends[0].set()
    await (closes.wait() if closing_waits else first)
    if closing_waits:
        ends[1].set()
        await second
    async with database.raw_transaction() as connection:
        opened = connection.info.backend_pid
        ends[1].set()
        await second
    goes_on.set()
    await first
    async with database.raw_transaction() as connection:
        assert connection.info.backend_pid == opened
    assert database.losses == 2

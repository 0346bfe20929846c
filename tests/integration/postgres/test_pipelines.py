"""Pipelines of the pool's connections: their statements go to the server together, and fail as in the driver's."""

import asyncio
import contextlib
from collections.abc import Iterable

import psycopg
import pytest

from store.postgres import pipelines
from store.postgres.database import Database, DriverConnection, driver
from store.postgres.pooled_connection import PooledConnection
from tests.support.server.sharing import own_database

pytestmark = own_database

LARGE = 8_000_000  # characters: more than the buffers of both sockets hold
MADE = "CREATE TABLE IF NOT EXISTS made (number integer PRIMARY KEY)"


async def numbers(database: Database) -> list[int]:
    """What is stored."""
    async with database.raw_transaction() as raw:
        return [number for (number,) in await (await raw.execute("SELECT number FROM made ORDER BY 1")).fetchall()]


@pytest.fixture
async def table(database: Database) -> None:
    async with database.raw_transaction() as raw:
        await raw.execute(MADE)
        await raw.execute("TRUNCATE made")


async def test_statements_are_sent_when_a_result_is_needed(database: Database) -> None:
    async with (
        database.unbegun_transaction() as connection,
        await psycopg.AsyncConnection.connect(database.url, autocommit=True) as other,
    ):
        raw = await driver(connection)
        async with pipelines.pipeline(raw):
            await pipelines.begin(raw)
            await raw.execute("SELECT pg_advisory_xact_lock(4711)")
            cursor = await raw.execute("SELECT %(number)s::integer", {"number": 1})
            assert await locks(other) == 0
            assert await cursor.fetchall() == [(1,)]
            assert await locks(other) == 1
            await pipelines.commit(raw)
        assert await locks(other) == 0


async def locks(connection: psycopg.AsyncConnection[tuple[int]]) -> int:
    """How many sessions hold the lock of the test. Asked several times: a statement that was sent needs some time."""
    for _ in range(20):
        cursor = await connection.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711"
        )
        [[number]] = await cursor.fetchall()
    return number


async def test_a_statement_that_fails_undoes_the_others(database: Database, table: None) -> None:
    for wrong in (0, 1, 2):
        with pytest.raises(psycopg.errors.UniqueViolation):
            await store(database, sorted([0, 1, 2, wrong]))
        assert await numbers(database) == []
    assert database.losses == 0
    await store(database, [0, 1, 2])
    assert await numbers(database) == [0, 1, 2]


async def store(database: Database, wanted: Iterable[int]) -> None:
    """Stores numbers in one transaction of one round trip."""
    async with database.unbegun_transaction() as connection:
        raw = await driver(connection)
        async with pipelines.pipeline(raw):
            await pipelines.begin(raw)
            for one in wanted:
                await raw.execute("INSERT INTO made VALUES (%(one)s)", {"one": one})
            await pipelines.commit(raw)


async def test_an_exception_of_the_block_undoes_what_was_sent_and_what_was_not(
    database: Database, table: None
) -> None:
    with pytest.raises(ZeroDivisionError):
        await fail_within(database)
    assert await numbers(database) == []


async def fail_within(database: Database) -> None:
    """One statement is sent before the exception, and one is not."""
    async with database.unbegun_transaction() as connection:
        raw = await driver(connection)
        async with pipelines.pipeline(raw):
            await pipelines.begin(raw)
            await (await raw.execute("INSERT INTO made VALUES (1) RETURNING number")).fetchall()
            await raw.execute("INSERT INTO made VALUES (2)")
            raise ZeroDivisionError


async def test_a_block_that_does_not_commit_is_committed_at_its_end(database: Database, table: None) -> None:
    async with database.unbegun_transaction() as connection:
        raw = await driver(connection)
        async with pipelines.pipeline(raw):
            await pipelines.begin(raw)
            await raw.execute("INSERT INTO made VALUES (1)")
    assert await numbers(database) == [1]


async def test_large_statements_and_results_do_not_wait_for_each_other(database: Database) -> None:
    text = "x" * LARGE
    async with asyncio.timeout(60), database.unbegun_transaction() as connection:
        raw = await driver(connection)
        async with pipelines.pipeline(raw):
            await pipelines.begin(raw)
            cursors = [await raw.execute("SELECT %(text)s::text", {"text": text}) for _ in range(4)]
            await pipelines.commit(raw)
        for cursor in cursors:
            [[found]] = await cursor.fetchall()
            assert found == text


async def test_a_pipeline_works_in_a_transaction_that_the_driver_begins_and_in_another_one(
    database: Database, table: None
) -> None:
    async with database.raw_transaction() as raw, raw.pipeline():
        await raw.execute("INSERT INTO made VALUES (1)")
        async with raw.pipeline():
            cursor = await raw.execute("SELECT count(*) FROM made")
        assert await cursor.fetchall() == [(1,)]
        await raw.execute("INSERT INTO made VALUES (2)")
    assert await numbers(database) == [1, 2]


async def test_a_cancelled_pipeline_leaves_a_connection_that_works(database: Database, table: None) -> None:
    async with await psycopg.AsyncConnection.connect(database.url) as holder:
        await holder.execute("SELECT pg_advisory_xact_lock(4712)")
        waiting = asyncio.create_task(wait_for_lock(database))
        async with await psycopg.AsyncConnection.connect(database.url, autocommit=True) as other:
            while not await waits(other):
                pass
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
    assert waiting.cancelled()
    assert await numbers(database) == []


async def wait_for_lock(database: Database) -> None:
    async with database.unbegun_transaction() as connection:
        raw = await driver(connection)
        async with pipelines.pipeline(raw):
            await pipelines.begin(raw)
            await raw.execute("INSERT INTO made VALUES (1)")
            await raw.execute("SELECT pg_advisory_xact_lock(4712)")
            await pipelines.commit(raw)


async def waits(connection: psycopg.AsyncConnection[tuple[bool]]) -> bool:
    cursor = await connection.execute("SELECT count(*) > 0 FROM pg_locks WHERE objid = 4712 AND NOT granted")
    [[found]] = await cursor.fetchall()
    return found


async def test_a_connection_that_is_lost_in_a_pipeline_is_not_used_again(database: Database, table: None) -> None:
    async with await psycopg.AsyncConnection.connect(database.url, autocommit=True) as other:
        raw = await PooledConnection.connect(database.url)
        with pytest.raises(psycopg.OperationalError):
            await end_within(raw, other)
        await raw.close()
    assert await numbers(database) == []


async def end_within(raw: DriverConnection, other: psycopg.AsyncConnection[tuple[bool]]) -> None:
    async with raw.pipeline():
        await raw.execute("INSERT INTO made VALUES (1)")
        await other.execute("SELECT pg_terminate_backend(%s::integer)", (raw.info.backend_pid,))
        await (await raw.execute("SELECT 1")).fetchall()

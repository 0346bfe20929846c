"""The error and the connection after each failure of the database; each failure is provoked for real."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import LiteralString

import psycopg
import pytest
from sqlalchemy import make_url, text

from store.postgres import failures
from store.postgres.database import Database, DatabaseUnavailable, driver
from store.postgres.failures import Failure
from store.postgres.retries import repeated
from tests.support.server.sharing import own_database

pytestmark = own_database

Session = psycopg.AsyncConnection[tuple[object, ...]]


@pytest.fixture
async def other(database: Database) -> AsyncIterator[Session]:
    """A session beside the pool's, with a table of three numbers that both write to."""
    async with await psycopg.AsyncConnection.connect(database.url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE number (id integer PRIMARY KEY, value integer NOT NULL DEFAULT 0)")
        await connection.execute("INSERT INTO number SELECT generate_series(1, 3)")
        yield connection


async def backend(database: Database) -> int:
    """The process of the pool's connection that the next transaction uses."""
    async with database.raw_transaction() as raw:
        return raw.info.backend_pid


async def read_only(database: Database, other: Session) -> None:
    async with database.raw_transaction() as raw:
        await raw.execute("SET TRANSACTION READ ONLY")
        await raw.execute("UPDATE number SET value = 1")


async def serialization(database: Database, other: Session) -> None:
    async with database.raw_transaction() as raw:
        await raw.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await raw.execute("SELECT * FROM number")
        await other.execute("UPDATE number SET value = 1")
        await raw.execute("UPDATE number SET value = 2")


async def serialization_of_alchemy(database: Database, other: Session) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        await connection.execute(text("SELECT * FROM number"))
        await other.execute("UPDATE number SET value = 1")
        await connection.execute(text("UPDATE number SET value = 2"))


async def deadlock(database: Database, other: Session) -> None:
    async with database.raw_transaction() as raw:
        # Only the pool's session checks for deadlocks, so PostgreSQL aborts that one.
        await raw.execute("SET LOCAL deadlock_timeout = '10ms'")
        await other.execute("SET deadlock_timeout = '60s'")
        await raw.execute("UPDATE number SET value = 1 WHERE id = 1")
        async with other.transaction():
            await other.execute("UPDATE number SET value = 1 WHERE id = 2")
            waiting = asyncio.create_task(other.execute("UPDATE number SET value = 1 WHERE id = 1"))
            try:
                await raw.execute("UPDATE number SET value = 1 WHERE id = 2")
            finally:
                await raw.rollback()
                await waiting


async def lock_timeout(database: Database, other: Session) -> None:
    async with other.transaction():
        await other.execute("UPDATE number SET value = 1")
        async with database.raw_transaction() as raw:
            await raw.execute("SET LOCAL lock_timeout = '10ms'")
            await raw.execute("UPDATE number SET value = 2")


async def statement_timeout(database: Database, other: Session) -> None:
    async with database.raw_transaction() as raw:
        await raw.execute("SET LOCAL statement_timeout = '10ms'")
        await raw.execute("SELECT pg_sleep(60)")


async def statement_canceled_by_an_operator(database: Database, other: Session) -> None:
    async with database.raw_transaction() as raw:
        pid = raw.info.backend_pid
        sleeping = asyncio.create_task(raw.execute("SELECT pg_sleep(60)"))
        while not sleeping.done():
            await other.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'",
                (pid,),
            )
        await sleeping


async def idle_in_transaction(database: Database, other: Session) -> None:
    async with database.raw_transaction() as raw:
        await raw.execute("SET LOCAL idle_in_transaction_session_timeout = '10ms'")
        await until_gone(other, raw.info.backend_pid)
        await raw.execute("SELECT 1")


async def idle_in_transaction_before_the_commit(database: Database, other: Session) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '10ms'"))
        await until_gone(other, (await driver(connection)).info.backend_pid)


async def terminated(database: Database, other: Session) -> None:
    async with database.raw_transaction() as raw:
        await other.execute("SELECT pg_terminate_backend(%s::integer)", (raw.info.backend_pid,))
        await raw.execute("SELECT 1")


async def terminated_in_a_pipeline(database: Database, other: Session) -> None:
    async with database.raw_transaction() as raw, raw.pipeline():
        await raw.execute("SELECT 1")
        await other.execute("SELECT pg_terminate_backend(%s::integer)", (raw.info.backend_pid,))
        await until_gone(other, raw.info.backend_pid)
        await raw.execute("SELECT 2")


async def terminated_before_a_statement_of_alchemy(database: Database, other: Session) -> None:
    async with database.transaction() as connection:
        raw = await driver(connection)
        await other.execute("SELECT pg_terminate_backend(%s::integer)", (raw.info.backend_pid,))
        # The error of the raw statement is suppressed: the next statement finds the connection closed.
        with contextlib.suppress(psycopg.Error):
            await raw.execute("SELECT 1")
        await connection.execute(text("SELECT 1"))


async def out_of_memory(database: Database, other: Session) -> None:
    """The shared table of locks is full."""
    async with database.raw_transaction() as raw:
        await raw.execute("SELECT pg_advisory_xact_lock(7, number) FROM generate_series(1, 10000000) AS number")


async def limit_of_temporary_files(database: Database, other: Session) -> None:
    async with database.raw_transaction() as raw:
        await raw.execute("SET LOCAL work_mem = '64kB'; SET LOCAL temp_file_limit = '100kB'")
        await raw.execute("SELECT number FROM generate_series(1, 100000) AS number ORDER BY -number")


def raised(state: str) -> Callable[[Database, Session], Awaitable[None]]:
    """An error that is too expensive to provoke for real, raised by a statement."""

    async def provoke(database: Database, other: Session) -> None:
        async with database.raw_transaction() as raw:
            await raw.execute(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{state}'; END $$".encode())

    provoke.__name__ = f"raised_{state}"
    return provoke


async def until_gone(other: Session, pid: int) -> None:
    """Waits until a session has ended."""
    await until_empty(other, "SELECT 1 FROM pg_stat_activity WHERE pid = %s", pid)


async def until_empty(other: Session, query: LiteralString, *parameters: object) -> None:
    """Waits until a query finds nothing."""
    async with asyncio.timeout(60):
        while await (await other.execute(query, parameters)).fetchone():  # noqa: ASYNC110 (the database's event)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("provoke", "expected", "keeps_connection"),
    [
        (read_only, failures.READ_ONLY, False),
        (serialization, failures.SERIALIZATION, True),
        (serialization_of_alchemy, failures.SERIALIZATION, True),
        (deadlock, failures.DEADLOCK, True),
        (lock_timeout, failures.LOCK_TIMEOUT, True),
        (statement_timeout, failures.STATEMENT_CANCELED, True),
        (statement_canceled_by_an_operator, failures.STATEMENT_CANCELED, True),
        (idle_in_transaction, None, False),
        (idle_in_transaction_before_the_commit, failures.SESSION_ENDED, False),
        (terminated, None, False),
        (terminated_in_a_pipeline, None, False),
        (terminated_before_a_statement_of_alchemy, failures.CONNECTION_LOST, False),
        (out_of_memory, failures.OUT_OF_MEMORY, True),
        (limit_of_temporary_files, failures.LIMIT_REACHED, True),
        (raised("53100"), failures.DISK_FULL, True),
        (raised("53300"), failures.TOO_MANY_CONNECTIONS, True),
        # Errors that do not end the own session are about another server, which a coordinator asked.
        (raised("57P02"), failures.NODE_LOST, True),
        (raised("57P03"), failures.NODE_LOST, True),
        (raised("25P04"), failures.SESSION_ENDED, False),
        (raised("58030"), failures.SYSTEM_ERROR, False),
        (raised("08006"), failures.NODE_LOST, True),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_a_failure_of_the_database_raises_the_documented_error(
    database: Database,
    other: Session,
    provoke: Callable[[Database, Session], Awaitable[None]],
    expected: Failure | None,
    keeps_connection: bool,
) -> None:
    before = await backend(database)
    with pytest.raises(DatabaseUnavailable) as failed:
        await provoke(database, other)
    if expected is None:
        # Whether the server's last word is still read is up to chance.
        assert failed.value.failure in (failures.SHUTTING_DOWN, failures.SESSION_ENDED, failures.CONNECTION_LOST)
    else:
        assert failed.value.failure is expected
    assert (await backend(database) == before) is keeps_connection
    # The next transaction works, and the failed one left no change.
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE number SET value = value + 10"))
        values = set(await connection.scalars(text("SELECT value FROM number")))
    assert values <= {10, 11}


@pytest.mark.parametrize("state", ["40002", "22012", "23505", "42501", "42P01", "XX000", "P0001"])
async def test_a_faulty_statement_keeps_its_own_error(database: Database, other: Session, state: str) -> None:
    before = await backend(database)
    with pytest.raises(psycopg.Error) as failed:
        await raised(state)(database, other)
    assert failed.value.sqlstate == state
    assert await backend(database) == before


async def test_a_role_at_its_connection_limit_is_an_outage(database: Database, other: Session) -> None:
    name = f"narrow_{make_url(database.url).database}"
    await other.execute(f"CREATE ROLE {name} LOGIN CONNECTION LIMIT 0".encode())
    url = make_url(database.url).set(username=name)
    narrow = Database(url.render_as_string(hide_password=False), pool_size=1)
    try:
        with pytest.raises(DatabaseUnavailable):
            async with narrow.transaction():
                pass
    finally:
        await narrow.close()
        await other.execute(f"DROP ROLE {name}".encode())


async def test_a_cancelled_caller_is_not_a_failure_of_the_database(
    database: Database, other: Session, caplog: pytest.LogCaptureFixture
) -> None:
    before = await backend(database)

    async def sleep() -> None:
        async with database.raw_transaction() as raw:
            await raw.execute("SELECT pg_sleep(600)")

    sleeping = asyncio.create_task(sleep())
    asleep = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
    await until_empty(other, f"SELECT 1 WHERE NOT EXISTS ({asleep})", before)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert [record for record in caplog.records if record.name.startswith("store")] == []
    assert await backend(database) == before


async def test_transactions_that_deadlock_are_retried_and_all_commit(database: Database, other: Session) -> None:
    tries = 0

    async def add(first: int, second: int) -> None:
        nonlocal tries
        tries += 1
        async with database.raw_transaction() as raw:
            await raw.execute("SET LOCAL deadlock_timeout = '10ms'")
            await raw.execute("UPDATE number SET value = value + 1 WHERE id = %s", (first,))
            met.set()
            if tries <= 2:
                await both.wait()
            await raw.execute("UPDATE number SET value = value + 1 WHERE id = %s", (second,))

    met, both = asyncio.Event(), asyncio.Event()
    one = asyncio.create_task(repeated(lambda: add(1, 2)))
    await met.wait()
    met.clear()
    two = asyncio.create_task(repeated(lambda: add(2, 1)))
    await met.wait()
    both.set()
    await asyncio.gather(one, two)
    assert tries > 2
    assert await (await other.execute("SELECT value FROM number WHERE id < 3")).fetchall() == [(2,), (2,)]


async def test_retries_are_bounded_and_an_outer_call_does_not_retry_again(database: Database, other: Session) -> None:
    tries = 0

    async def fail() -> None:
        nonlocal tries
        tries += 1
        await raised("40001")(database, other)

    with pytest.raises(DatabaseUnavailable):
        await repeated(lambda: repeated(fail))
    assert tries == failures.SERIALIZATION.tries
    # A transaction that may have committed is not repeated when a second execution could not be detected.
    tries = 0

    async def lose() -> None:
        nonlocal tries
        tries += 1
        await raised("08006")(database, other)

    with pytest.raises(DatabaseUnavailable):
        await repeated(lose, certain_only=True)
    assert tries == 1


async def test_a_new_connection_to_a_server_that_takes_no_writes_is_refused(
    database: Database, other: Session
) -> None:
    name = make_url(database.url).database
    await other.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'.encode())
    with pytest.raises(DatabaseUnavailable) as failed:
        async with database.transaction() as connection:
            await connection.execute(text("SELECT 1"))
    assert failed.value.failure is failures.READ_ONLY
    await other.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only'.encode())
    await backend(database)

"""The session of a diagnosis: it also opens on a standby, and each of its statements has a time limit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from runtime.redaction import error_text
from store.postgres import sessions
from store.postgres.database import DriverConnection
from store.postgres.failures import DatabaseUnavailable


class NotAnswered(Exception):
    """A statement failed: it took too long, is not allowed, or something that it reads is missing."""


class SchemaLacks(NotAnswered):
    """A table, a column or a function that a statement reads does not exist."""


_LACKS = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedFunction)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[DriverConnection]:
    """A connection in autocommit mode. Raises DatabaseUnavailable."""
    try:
        connection = await psycopg.AsyncConnection.connect(
            sessions.connection_string(url, "doctor"), autocommit=True, prepare_threshold=None
        )
    except psycopg.Error as error:
        raise DatabaseUnavailable(error_text(error)) from error
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def limited(connection: DriverConnection, seconds: float) -> AsyncIterator[None]:
    """Limits the statements of the block, and what they wait for. Raises NotAnswered for the errors of PostgreSQL."""
    milliseconds = max(int(seconds * 1000), 1)
    try:
        await connection.execute(
            # The last one is that of a cluster; other servers have no use for it.
            "SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', '500ms', false),"
            " set_config('citus.node_connection_timeout', %s, false)",
            (str(milliseconds), str(max(milliseconds // 2, 10))),
        )
        yield
    except psycopg.errors.QueryCanceled:
        raise NotAnswered(f"PostgreSQL did not answer within {seconds:.1f} s") from None
    except _LACKS as error:
        raise SchemaLacks(error_text(error).partition("\n")[0]) from error
    except psycopg.Error as error:
        raise NotAnswered(error_text(error).partition("\n")[0]) from error


async def pins_that_differ(url: str) -> list[str]:
    """Settings that a new session of Tidemark sets, and that are different in its next transaction.

    That happens behind a proxy which resets sessions. Raises DatabaseUnavailable.
    """
    try:
        connection = await psycopg.AsyncConnection.connect(sessions.connection_string(url, "doctor"))
        try:
            await sessions.prepare(connection)
            cursor = await connection.execute(
                "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS p (name)"
                " WHERE current_setting(name, true) IS NOT NULL",
                (list(_COMPARED),),
            )
            found: dict[str, str] = dict(await cursor.fetchall())
        finally:
            await connection.close()
    except psycopg.Error as error:
        raise DatabaseUnavailable(error_text(error)) from error
    return [name for name, value in found.items() if value != _COMPARED[name]]


# Those whose text PostgreSQL repeats as it was set.
_COMPARED = {
    name: sessions.PINS[name][0]
    for name in (
        "default_transaction_isolation",
        "TimeZone",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "jit",
    )
}

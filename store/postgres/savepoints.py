"""Savepoints: whether the database accepts statements, without keeping what they store."""

from collections.abc import Awaitable, Callable

import psycopg

from store.postgres.database import DriverConnection


async def refusal(connection: DriverConnection, write: Callable[[], Awaitable[None]]) -> Exception | None:
    """Runs `write` and rolls back what it stored; returns why the database refuses it, or None if it accepts it.

    The transaction around it stays usable. A failure of the database itself (psycopg.OperationalError) is raised:
    it says nothing about what `write` stores.
    """
    try:
        async with connection.transaction(force_rollback=True):
            await write()
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        return error
    return None

"""Savepoints: whether the database accepts statements, and parts of a transaction that can be undone."""

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


class Savepoints:
    """Consecutive parts of one transaction, of which each can be undone; one round trip for each.

    The last part is released by the commit.
    """

    def __init__(self, connection: DriverConnection) -> None:
        self._connection = connection
        self._begun = False

    async def begin(self) -> None:
        """Ends the part before, whose changes the transaction keeps, and begins the next one."""
        # One message with two statements cannot be prepared.
        statement: bytes = b"RELEASE SAVEPOINT part; SAVEPOINT part" if self._begun else b"SAVEPOINT part"
        await self._connection.execute(statement, prepare=False)
        self._begun = True

    async def undo(self) -> None:
        """Rolls back what this part did, also when one of its statements failed."""
        await self._connection.execute(b"ROLLBACK TO SAVEPOINT part", prepare=False)

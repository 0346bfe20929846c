"""Statements that are sent together, on the connection of an `unbegun_transaction`.

A statement waits for an answer only where its rows are fetched, so BEGIN and COMMIT take no round trips of their own.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from store.postgres.database import DriverConnection, Row


@asynccontextmanager
async def pipeline(connection: DriverConnection) -> AsyncIterator[None]:
    """Sends the statements of the block together; its end waits for all of them, and raises what failed."""
    async with connection.pipeline():
        yield


async def begin(connection: DriverConnection) -> None:
    """Begins a transaction together with the next statement."""
    await connection.execute("BEGIN", prepare=False)


async def begin_snapshot(connection: DriverConnection) -> None:
    """Begins a transaction that reads one snapshot and nothing else, together with the next statement."""
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", prepare=False)


async def commit(connection: DriverConnection) -> None:
    """Commits together with the statements before and after it. What follows is not a part of the transaction."""
    await connection.execute("COMMIT", prepare=False)


async def fetched_each(
    connection: DriverConnection, statement: bytes, parameters: Iterable[Mapping[str, Any]]
) -> list[Row]:
    """The rows of a statement that is executed with each of these parameters, sent together, in their order."""
    async with connection.pipeline():
        cursors = [await connection.execute(statement, one) for one in parameters]
    return [row for cursor in cursors for row in await cursor.fetchall()]

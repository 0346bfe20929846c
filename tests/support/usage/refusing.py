"""Rows that the database refuses, like those of an evaluation that cannot be recorded."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from tests.support.usage.caller import Caller


@asynccontextmanager
async def refusing(caller: Caller, table: str, condition: str) -> AsyncIterator[None]:
    """Inside the block the database refuses inserted rows of a table that fulfil a condition on its columns.

    By a constraint, because distributed tables cannot have triggers. Rows that are there may fulfil the condition.
    """
    name = f"refuse_{table}"
    async with await psycopg.AsyncConnection.connect(caller.database_url, autocommit=True) as connection:
        await connection.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK (NOT ({condition})) NOT VALID".encode()
        )
        try:
            yield
        finally:
            await connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}".encode())

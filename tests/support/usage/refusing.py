"""Rows that the database refuses, like those of an evaluation that cannot be recorded."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from tests.support.usage.caller import Caller


@asynccontextmanager
async def refusing(caller: Caller, table: str, condition: str) -> AsyncIterator[None]:
    """Inside the block the database refuses inserted rows (`new`) of a table that fulfil a condition."""
    name = f"refuse_{table}"
    async with await psycopg.AsyncConnection.connect(caller.database_url, autocommit=True) as connection:
        await connection.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF {condition} THEN RAISE 'refused by the test: secret detail'; END IF; RETURN new; END $$".encode()
        )
        await connection.execute(
            f"CREATE TRIGGER {name} BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()".encode()
        )
        try:
            yield
        finally:
            await connection.execute(f"DROP FUNCTION {name} CASCADE".encode())

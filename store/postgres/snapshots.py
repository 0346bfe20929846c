"""Snapshots: transactions whose statements all see the database as it was when the first of them ran."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


async def begin_snapshot(connection: AsyncConnection, *, by_index: bool = False) -> None:
    """Makes a transaction a snapshot that only reads. It must not have read anything before.

    by_index: its statements read few rows of large tables. With a LIMIT, or with statistics from when a table was
    small, PostgreSQL may plan to read a table in its order, and finds the rows at the end of it.
    """
    await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    if by_index:
        await connection.execute(text("SELECT set_config('enable_seqscan', 'off', true)"))

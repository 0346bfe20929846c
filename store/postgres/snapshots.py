"""Snapshots: transactions whose statements all see the database as it was when the first of them ran."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


async def begin_snapshot(connection: AsyncConnection) -> None:
    """Makes a transaction a snapshot that only reads. It must not have read anything before."""
    await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))

"""Counts for the total_size of lists: exact up to a bound, so that a count never reads more rows than that."""

from sqlalchemy import ColumnElement, FromClause, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

MAX_TOTAL_SIZE = 10_000


async def bounded_count(connection: AsyncConnection, table: FromClause, *conditions: ColumnElement[bool]) -> int:
    """How many rows match the conditions; MAX_TOTAL_SIZE for that many or more."""
    found = select(literal(1)).select_from(table).where(*conditions).limit(MAX_TOTAL_SIZE).subquery()
    return await connection.scalar(select(func.count()).select_from(found)) or 0

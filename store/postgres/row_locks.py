"""Locks of the rows of several customers, in the order of their ids: all transactions lock them in this one order.

On one PostgreSQL a statement locks the rows of all of them. The rows of different customers lie on different nodes
of a cluster, where a statement can lock those of one customer only. So there is a statement for each customer, and
all of them are sent together.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from psycopg.pq import PipelineStatus

from store.postgres.database import Cursor, DriverConnection, Row

# One cursor of a statement about all customers, or one for each customer.
Sent = list[Cursor]


async def send_each(
    connection: DriverConnection, statement: bytes, by_customer: Mapping[str, Mapping[str, Any]]
) -> Sent:
    """Sends a statement that locks rows of one customer for each customer; `rows` reads the results.

    by_customer: the parameters, by the id of the customer. The order is that of COLLATE "C", which is Python's, too.
    """
    async with _pipeline(connection):
        return [await connection.execute(statement, by_customer[one]) for one in sorted(by_customer)]


def _pipeline(connection: DriverConnection) -> AbstractAsyncContextManager[object]:
    """A pipeline, or the one that is open: the end of one in another waits for all results."""
    is_open = connection.pgconn.pipeline_status != PipelineStatus.OFF
    return nullcontext() if is_open else connection.pipeline()


async def rows(sent: Sent) -> list[Row]:
    """The rows of all these statements."""
    return [row for cursor in sent for row in await cursor.fetchall()]

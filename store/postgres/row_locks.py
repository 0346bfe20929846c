"""Locks of the rows of several customers, in one order of all transactions, so that no two of them deadlock.

On one PostgreSQL a statement locks the rows of all customers, in the order of their ids. The rows of different
customers can lie on different nodes of a cluster, where a statement can lock those of one shard only. So there is a
statement for each shard, all of which are sent together: the order is that of the shards, and within a shard that of
ids. A commit at a node that names the tables of shards (`store.citus.shard_tables`) keeps the same order.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from psycopg.pq import PipelineStatus

from store.postgres.database import Cursor, DriverConnection, Row

# One cursor of a statement about all customers, or one for each shard or customer.
Sent = list[Cursor]


# Shards are known by those of one table: `store.citus.shard_tables.ShardTables.shard_id` is of the same one.
_SHARDS = """
SELECT id, get_shard_id_for_distribution_column('organization_epoch', id) FROM unnest(%s::text[]) AS i (id)
"""


async def send_by_shard(
    connection: DriverConnection,
    statement: bytes,
    customer_ids: Collection[str],
    parameters: Callable[[list[str]], Mapping[str, Any]],
) -> Sent:
    """Sends a statement about the customers of one shard for each shard; `rows` reads the results.

    For a cluster, where such a statement can do all that one PostgreSQL can. It has to name its customers by an
    array, and to lock in the order of their ids, which come sorted. parameters: of these ids.
    """
    parts = [sorted(customer_ids)]
    if len(parts[0]) > 1:
        by_shard: dict[int, list[str]] = {}
        cursor = await connection.execute(_SHARDS, parts)
        for customer_id, shard in await cursor.fetchall():
            by_shard.setdefault(shard, []).append(customer_id)
        parts = [sorted(by_shard[shard]) for shard in sorted(by_shard)]
    async with _pipeline(connection):
        return [await connection.execute(statement, parameters(part)) for part in parts if part]


async def send_each(
    connection: DriverConnection, statement: bytes, by_customer: Mapping[str, Mapping[str, Any]]
) -> Sent:
    """Sends a statement that changes rows of one customer for each customer; `rows` reads the results.

    For a cluster. by_customer: the parameters, by the id of the customer. They are locked in the order of ids, as
    puts lock customers. The order is that of COLLATE "C", which is Python's, too.
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

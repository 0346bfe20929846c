"""Taking rows of the outbox on a cluster, where they lie on the nodes of customers.

Rows of several nodes cannot be taken with SKIP LOCKED. So one fan-out of the cluster runs at a time: it reads the
oldest rows of all nodes and deletes them by their keys, and each row is returned by one deletion only.

The deletion and the deliveries, which lie on the coordinator alone, are one transaction. Citus prepares it on the
workers, because it also changes `fan_out`, and the commit of the coordinator decides. If a worker fails after that,
its rows stay locked until Citus commits what was prepared, within a minute of its return. A deletion that waits for
them is cancelled after PATIENCE seconds, and the next fan-outs take what is not locked, shard by shard.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.postgres import apart

PATIENCE = 5  # seconds for a statement on the nodes
_LOCK = 1_717_069_684  # an advisory lock at the coordinator, held until all nodes have committed

_BEGIN = text("""
SELECT current_setting('statement_timeout'), pg_advisory_xact_lock(:lock),
       set_config('statement_timeout', :patience, true)
""")
_END = text("SELECT set_config('statement_timeout', :before, true)")

_OLDEST = text("SELECT outbox_id, customer_id FROM outbox ORDER BY create_time, outbox_id LIMIT :limit")
# The same of one shard; see `apart`. Rows that a prepared transaction deletes are locked.
_OLDEST_OF_SHARD = """
SELECT p.outbox_id, p.customer_id, extract(epoch FROM p.create_time) AS time
FROM %s p WHERE '%s' <> '' ORDER BY p.create_time, p.outbox_id LIMIT {limit} FOR UPDATE SKIP LOCKED
"""

_PREPARE = text("""
INSERT INTO fan_out (fan_out_id, fan_outs) VALUES (1, 1)
ON CONFLICT (fan_out_id) DO UPDATE SET fan_outs = fan_out.fan_outs + 1
""")

_TAKE = text("""
DELETE FROM outbox
WHERE customer_id = ANY(CAST(:customers AS text[])) AND outbox_id = ANY(CAST(:ids AS bigint[]))
RETURNING organization_id, customer_id, notification_id, event_type, condition_type
""")


async def take(connection: AsyncConnection, limit: int) -> Sequence[Row[Any]]:
    """Deletes up to `limit` of the oldest rows, and returns them."""
    before = await connection.scalar(_BEGIN, {"patience": f"{PATIENCE}s", "lock": _LOCK})
    customers, ids = await _oldest(connection, limit)
    taken: Sequence[Row[Any]] = ()
    if ids:
        await connection.execute(_PREPARE)
        with apart.noticing(connection):
            taken = (await connection.execute(_TAKE, {"customers": sorted(set(customers)), "ids": ids})).all()
    await connection.execute(_END, {"before": before})
    return taken


async def _oldest(connection: AsyncConnection, limit: int) -> tuple[list[str], list[int]]:
    """The customers and the numbers of the oldest rows."""
    if apart.is_needed(connection):
        found = await apart.rows(connection, "outbox", "feed_pending", _OLDEST_OF_SHARD.format(limit=int(limit)))
        first = sorted(found, key=lambda row: (row["time"], row["outbox_id"]))[:limit]
        return [row["customer_id"] for row in first], [row["outbox_id"] for row in first]
    with apart.noticing(connection):
        rows = (await connection.execute(_OLDEST, {"limit": limit})).all()
    return [row.customer_id for row in rows], [row.outbox_id for row in rows]

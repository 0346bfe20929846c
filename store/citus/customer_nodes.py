"""The nodes of customers: on which node of a cluster the rows of each customer lie.

A customer belongs to a shard, by the hash of its id, for good; an operator can move a shard to another node.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from store.citus.nodes import Node
from store.citus.shard_tables import TABLES, ShardTables
from store.postgres.database import Connection
from store.postgres.distributed import is_distributed

# The parts of a shard, which lie together, begin at the same hash.
_SHARDS = text("""
SELECT CAST(s.shardminvalue AS int) AS first, CASE WHEN n.groupid > 0 THEN n.nodename END AS host, n.nodeport AS port,
    s.shardid,
    (SELECT json_object_agg(i.name, shard_name(o.logicalrelid, o.shardid))
        FROM unnest(CAST(:tables AS text[])) AS i (name)
        JOIN pg_dist_shard o ON o.logicalrelid = to_regclass(i.name) AND o.shardminvalue = s.shardminvalue) AS names
FROM pg_dist_shard s
JOIN pg_dist_placement p USING (shardid)
JOIN pg_dist_node n ON n.groupid = p.groupid AND n.noderole = 'primary'
WHERE s.logicalrelid = to_regclass('organization_epoch')
ORDER BY first
""")
_HASHES = text("SELECT worker_hash(id) FROM unnest(CAST(:ids AS text[])) WITH ORDINALITY AS i (id, n) ORDER BY n")


@dataclass(frozen=True)
class NodeMap:
    """Where shards lie. firsts: the first hash of each shard, ascending. nodes: of each; None: the coordinator.

    tables: of each; None if its parts do not correspond, as in the middle of a change of the cluster.
    """

    firsts: Sequence[int]
    nodes: Sequence[Node | None]
    tables: Sequence[ShardTables | None]

    def shard_of(self, hash_value: int) -> int:
        """The index of the shard of a hash."""
        return bisect_right(self.firsts, hash_value) - 1


async def read(connection: Connection) -> NodeMap | None:
    """The map of the cluster as it is now; None where customers lie on one PostgreSQL."""
    if not await is_distributed(connection):
        return None
    rows = (await connection.execute(_SHARDS, {"tables": list(TABLES)})).all()
    if not rows:  # the table has not been distributed yet
        return None
    return NodeMap(
        [row.first for row in rows],
        [None if row.host is None else Node(row.host, row.port) for row in rows],
        [
            ShardTables(row.shardid, **row.names) if row.names is not None and len(row.names) == len(TABLES) else None
            for row in rows
        ],
    )


async def hashes(connection: Connection, customer_ids: Sequence[str]) -> list[int]:
    """The hashes by which the cluster distributes these customers, in their order."""
    return [int(one) for one in await connection.scalars(_HASHES, {"ids": list(customer_ids)})]

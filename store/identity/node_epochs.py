"""The lock and the epoch of an organization at the nodes of a cluster, for commits that run there.

A commit at a node takes the organization's lock, shared, at that node alone, and reads the epoch from a row that lies
on it. A change of rules takes the lock, exclusively, at the coordinator and at each node, and raises the epoch in a
row on each shard. All nodes take part in its commit: what the change has written at a node becomes visible there in
the moment in which it lets go of the node's lock.

Why not one lock at one node for all: it would cost each commit a round trip to another node, and a change could let
go of it before all nodes show what it has written.

The coordinator commits first, so only a transaction that holds its lock sees all parts of a change, whichever node
they lie on. A commit at a node must therefore read no rules: they have to be cached at its epoch. Otherwise it raises
`NeedsCoordinator`.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.postgres.database import Cursor, DriverConnection, Row
from store.postgres.distributed import NeedsCoordinator
from store.postgres.sessions import LOCK_TIMEOUT

LOCK_CLASS = 0x7469  # the first half of every organization's advisory lock

_STANDING = """
SELECT epoch, name, pg_backend_pid() FROM organization_epoch
WHERE organization_id = %(organization_id)s AND customer_id = %(marker)s
"""

# Raises the epoch on all shards. It comes before the locks: a shard with changed rows stays at its node until the
# commit, so there is no node with shards, and commits, that lacks the lock.
_RAISE = "UPDATE organization_epoch SET epoch = epoch + 1 WHERE organization_id = %s"
_RENAME = "UPDATE organization_epoch SET name = %s WHERE organization_id = %s"

# Each node executes it for its rows. lock_timeout is a setting of each session, also of those between nodes.
_LOCK_EVERYWHERE = f"""
SELECT set_config('lock_timeout', '{LOCK_TIMEOUT}s', true), pg_advisory_xact_lock(%s, %s)
FROM organization_epoch WHERE organization_id = %s
"""

# The rows of an organization: for each shard the first number whose text belongs to it. Of n shards, all but one in
# millions have one among 30 n numbers.
_MARKERS = text("""
SELECT DISTINCT ON (shard) CAST(i AS text)
FROM (
    SELECT i, get_shard_id_for_distribution_column('organization_epoch', CAST(i AS text)) AS shard
    FROM generate_series(0, 30 * (
        SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = to_regclass('organization_epoch')
    )) AS i
) AS numbered
ORDER BY shard, i
""")
_ARE_COMPLETE = text("""
SELECT (SELECT count(*) FROM organization_epoch WHERE organization_id = :organization_id)
    >= (SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = to_regclass('organization_epoch'))
""")
_STANDING_OF_ALL = text("SELECT epoch, name FROM organization WHERE organization_id = :organization_id")
_CREATE = text("""
INSERT INTO organization_epoch (organization_id, customer_id, epoch, name)
VALUES (:organization_id, :marker, :epoch, :name) ON CONFLICT DO NOTHING
""")


async def send_lock_shared(connection: DriverConnection, organization_id: int, marker: str) -> Cursor:
    """Sends the statements that take the lock, shared, at the node of the connection, within a pipeline.

    marker: of a row that lies there. `standing` reads the result.
    """
    await connection.execute("SELECT pg_advisory_xact_lock_shared(%s, %s)", (LOCK_CLASS, organization_id))
    return await connection.execute(_STANDING, {"organization_id": organization_id, "marker": marker})


def standing(connection: DriverConnection, row: Row | None) -> tuple[int, str]:
    """The epoch and the name. Raises NeedsCoordinator if the row does not lie on this node, or does not exist."""
    if row is None or row[2] != connection.info.backend_pid:
        raise NeedsCoordinator
    return row[0], row[1]


async def send_lock_everywhere(connection: DriverConnection, organization_id: int) -> None:
    """Sends the statements that raise the epoch at each node and take the lock there, exclusively.

    Within a pipeline of a transaction at the coordinator, which holds its lock.
    """
    await connection.execute(_RAISE, (organization_id,))
    await connection.execute(_LOCK_EVERYWHERE, (LOCK_CLASS, organization_id, organization_id))


async def rename(connection: DriverConnection, organization_id: int, name: str) -> None:
    """Changes the name at each node. The transaction holds the lock, exclusively."""
    await connection.execute(_RENAME, (name, organization_id))


async def are_complete(connection: AsyncConnection, organization_id: int) -> bool:
    """Whether each shard has a row of the organization."""
    return bool(await connection.scalar(_ARE_COMPLETE, {"organization_id": organization_id}))


async def create(connection: AsyncConnection, organization_id: int) -> None:
    """Creates those rows of an organization that are missing. The transaction holds the lock, exclusively."""
    markers = (await connection.scalars(_MARKERS)).all()
    row = (await connection.execute(_STANDING_OF_ALL, {"organization_id": organization_id})).one()
    rows = [
        {"organization_id": organization_id, "marker": marker, "epoch": row.epoch, "name": row.name}
        for marker in markers
    ]
    await connection.execute(_CREATE, rows)

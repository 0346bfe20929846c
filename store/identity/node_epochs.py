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

A node that is lost while it commits its part shows that part only when Citus has recovered it, a minute later. The
coordinator answers and lets go of its lock before. So a change of rules waits until no part of an earlier
transaction is in doubt, and rules are not read while a node does not show the epoch (`require_shown`), nor facts
while the node of their customer does not (`require_shown_of`).
"""

import asyncio
from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.postgres.database import Cursor, DriverConnection, Row, driver
from store.postgres.distributed import NeedsCoordinator, on_cluster
from store.postgres.failures import LOCK_TIMEOUT as HELD_FOR_TOO_LONG
from store.postgres.failures import unavailable
from store.postgres.sessions import LOCK_TIMEOUT

LOCK_CLASS = 0x7469  # the first half of every organization's advisory lock
# Seconds for which a change waits for parts of transactions that are prepared. Those of other organizations that are
# being committed end within milliseconds.
IN_DOUBT = 1.0
_PAUSE = 0.005  # seconds between two readings of them

_STANDING = """
SELECT epoch, name, pg_backend_pid() FROM organization_epoch
WHERE organization_id = %(organization_id)s AND customer_id = %(marker)s
"""

# Raises the epoch on all shards. It comes before the locks: a shard with changed rows stays at its node until the
# commit, so there is no node with shards, and commits, that lacks the lock.
_RAISE = "UPDATE organization_epoch SET epoch = epoch + 1 WHERE organization_id = %s"
_RENAME = "UPDATE organization_epoch SET name = %s WHERE organization_id = %s"

# lock_timeout is a setting of each session, also of those between nodes.
_BOUND = f"""
SELECT set_config('lock_timeout', '{LOCK_TIMEOUT}s', true) FROM organization_epoch WHERE organization_id = %s
"""
# Each node executes it for its rows.
_LOCK_EVERYWHERE = "SELECT pg_advisory_xact_lock(%s, %s) FROM organization_epoch WHERE organization_id = %s"
# The parts of transactions that are prepared at a node, in this database, and neither committed nor rolled back. In
# this form each node executes it; the coordinator would execute a subquery, and cannot join what nodes have of their
# own. The number of the database is that in the path of a table.
_PREPARED = """
SELECT (pg_prepared_xact()).gid,
    (pg_prepared_xact()).dbid = CAST(split_part(pg_relation_filepath(tableoid), '/', -2) AS oid)
FROM organization_epoch WHERE organization_id = %s
"""
_SHARDS = "SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = to_regclass('organization_epoch')"
_LEAST = "SELECT min(epoch) FROM organization_epoch WHERE organization_id = %s"

# The rows of an organization: for each shard the first number whose text belongs to it. In the narrowest shard, 30 of
# the numbers are expected: all shards but one in millions have one. One that would need more than _NUMBERS does not
# count for that.
_NUMBERS = 200_000
_MARKER_OF_SHARD = f"""
SELECT DISTINCT ON (shard) CAST(i AS text) AS marker, shard
FROM (
    SELECT i, get_shard_id_for_distribution_column('organization_epoch', CAST(i AS text)) AS shard
    FROM generate_series(0, (
        SELECT max(least(30 * (1::bigint << 32) / width, {_NUMBERS})) FROM (
            SELECT shardmaxvalue::bigint - shardminvalue::bigint + 1 AS width FROM pg_dist_shard
            WHERE logicalrelid = to_regclass('organization_epoch')
        ) AS shard WHERE width >= 30 * (1::bigint << 32) / {_NUMBERS}
    )) AS i
) AS numbered
ORDER BY shard, i
"""
_MARKERS = text(f"SELECT marker FROM ({_MARKER_OF_SHARD}) AS of_shard")
# Of a shard without a number, such as that of a tenant that was isolated, which has one hash: a customer there.
_MARKERS_OF_NARROW = text(f"""
SELECT r.result
FROM pg_dist_shard s JOIN pg_dist_placement p USING (shardid)
JOIN pg_dist_node n ON n.groupid = p.groupid AND n.noderole = 'primary'
CROSS JOIN LATERAL master_run_on_worker(
    ARRAY[n.nodename], ARRAY[n.nodeport],
    ARRAY[format('SELECT min(customer_id) FROM %s', shard_name(s.logicalrelid, s.shardid))], false
) AS r
WHERE s.logicalrelid = to_regclass('customer') AND r.success AND r.result <> '' AND s.shardminvalue <> ALL(ARRAY(
    SELECT o.shardminvalue FROM pg_dist_shard o JOIN ({_MARKER_OF_SHARD}) AS of_shard ON of_shard.shard = o.shardid
))
""")
_MARKERS_OF_CUSTOMERS = f"""
SELECT marker FROM ({_MARKER_OF_SHARD}) AS of_shard WHERE shard = ANY(ARRAY(
    SELECT get_shard_id_for_distribution_column('organization_epoch', id) FROM unnest(%s::text[]) AS i (id)
))
"""
_LEAST_OF = """
SELECT min(epoch) FROM organization_epoch WHERE organization_id = %s AND customer_id = ANY(%s::text[])
"""
_SHOWN = text("""
SELECT CASE WHEN (SELECT count(*) FROM organization_epoch WHERE organization_id = :organization_id)
    >= (SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = to_regclass('organization_epoch'))
THEN (SELECT min(epoch) FROM organization_epoch WHERE organization_id = :organization_id) END
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


class Everywhere(NamedTuple):
    """What `send_lock_everywhere` has sent. shards: how many there are. locked: a row for each that has an epoch."""

    shards: Cursor
    locked: Cursor
    prepared: Cursor


async def send_lock_everywhere(connection: DriverConnection, organization_id: int) -> Everywhere:
    """Sends the statements that raise the epoch at each node and take the lock there, exclusively.

    Within a pipeline of a transaction at the coordinator, which holds its lock. `locked_everywhere` reads the
    results.
    """
    await connection.execute(_BOUND, (organization_id,))
    await connection.execute(_RAISE, (organization_id,))
    return await _send_lock(connection, organization_id)


async def _send_lock(connection: DriverConnection, organization_id: int) -> Everywhere:
    shards = await connection.execute(_SHARDS)
    locked = await connection.execute(_LOCK_EVERYWHERE, (LOCK_CLASS, organization_id, organization_id))
    return Everywhere(shards, locked, await connection.execute(_PREPARED, (organization_id,)))


async def locked_everywhere(connection: AsyncConnection, organization_id: int, sent: Everywhere) -> None:
    """Ends what `send_lock_everywhere` began, after the pipeline, when the epoch of the organization is raised.

    Waits for parts of earlier transactions that are prepared: what the change reads would lack them. Creates the rows
    of an organization that has none, and of shards that were split. Raises DatabaseUnavailable if a part stays in
    doubt.
    """
    raw = await driver(connection)
    [(shards,)] = await sent.shards.fetchall()
    if len(await sent.locked.fetchall()) < shards:
        await create(connection, organization_id)
        sent = await _send_lock(raw, organization_id)
    prepared = await _of_this_database(sent.prepared)
    now = asyncio.get_running_loop().time
    end = now() + IN_DOUBT
    while prepared:
        if now() > end:
            raise unavailable(HELD_FOR_TOO_LONG)
        await asyncio.sleep(_PAUSE)
        prepared &= await _of_this_database(await raw.execute(_PREPARED, (organization_id,)))


async def _of_this_database(cursor: Cursor) -> set[str]:
    return {gid for gid, is_here in await cursor.fetchall() if is_here}


async def require_shown(connection: DriverConnection, organization_id: int, epoch: int) -> None:
    """Raises DatabaseUnavailable if a node does not show an epoch yet, so that rules would be read as they were.

    The transaction holds the lock at the coordinator.
    """
    if on_cluster(connection):
        await _require(await connection.execute(_LEAST, (organization_id,)), epoch)


async def require_shown_of(
    connection: DriverConnection, organization_id: int, epoch: int, customer_ids: Collection[str]
) -> None:
    """As `require_shown`, for the nodes of these customers only: others may be away."""
    if on_cluster(connection):
        markers = await (await connection.execute(_MARKERS_OF_CUSTOMERS, (list(customer_ids),))).fetchall()
        # A customer in a shard of its own is the marker of that.
        parameters = (organization_id, [*customer_ids, *(marker for (marker,) in markers)])
        await _require(await connection.execute(_LEAST_OF, parameters), epoch)


async def _require(found: Cursor, epoch: int) -> None:
    row = await found.fetchone()
    if row is not None and row[0] is not None and row[0] < epoch:
        raise unavailable(HELD_FOR_TOO_LONG)


async def rename(connection: DriverConnection, organization_id: int, name: str) -> None:
    """Changes the name at each node. The transaction holds the lock, exclusively."""
    await connection.execute(_RENAME, (name, organization_id))


async def shown(connection: AsyncConnection, organization_id: int) -> int | None:
    """The epoch that each node shows, or a later one; None if not each shard has a row of the organization.

    Epochs only rise, so this stays true.
    """
    found = await connection.scalar(_SHOWN, {"organization_id": organization_id})
    return None if found is None else int(found)


async def create(connection: AsyncConnection, organization_id: int) -> None:
    """Creates those rows of an organization that are missing. The transaction holds the lock, exclusively."""
    markers = [*await connection.scalars(_MARKERS), *await connection.scalars(_MARKERS_OF_NARROW)]
    row = (await connection.execute(_STANDING_OF_ALL, {"organization_id": organization_id})).one()
    rows = [
        {"organization_id": organization_id, "marker": marker, "epoch": row.epoch, "name": row.name}
        for marker in markers
    ]
    await connection.execute(_CREATE, rows)

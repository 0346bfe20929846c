"""Whether the tables of customers are distributed over the workers of a Citus cluster, and statements for either.

Most statements have one form, which is right and as fast as possible in both cases. Where they differ, `Forms` has
both: the same rows, found in another way. Each new connection of a pool asks once (`store.postgres.sessions`). One
that asked before the tables were distributed keeps the form for one PostgreSQL, so no server may run while
`tidemark migrate --citus` distributes them.
"""

from dataclasses import dataclass

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.postgres.pooled_connection import PooledConnection, Row
from store.tables.placement import ANCHOR

# The catalogue of Citus exists only where its extension was created, and a statement that names it fails elsewhere.
HAS_CITUS = "to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL"
_IS_DISTRIBUTED = (
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_partition"
    f" WHERE logicalrelid = to_regclass('{ANCHOR}') AND partmethod = 'h')"
)
# At the coordinator, no row. At a worker, the first number whose text would lie there as a customer_id; empty if none
# of the first numbers does, as on a node without shards. `store.identity.node_epochs` has rows with these.
_MARKER = f"""
SELECT coalesce((
    SELECT min(i)::text
    FROM (
        SELECT i, get_shard_id_for_distribution_column('{ANCHOR}', i::text) AS shardid
        FROM generate_series(0, 999) AS i
    ) AS numbered
    JOIN pg_catalog.pg_dist_placement p USING (shardid) WHERE p.groupid = own.groupid
), '')
FROM pg_catalog.pg_dist_local_group AS own WHERE own.groupid <> 0
"""

# Prepared statements of a connection to a worker: some for each of its shards.
PREPARED_AT_NODE = 1_000


class NeedsCoordinator(Exception):
    """A transaction at a worker cannot go on there. Nothing is stored; the coordinator can do the same."""


@dataclass(frozen=True)
class Forms:
    """A statement in two forms with the same parameters and results.

    plain: for one PostgreSQL. cluster: for distributed tables; it is right on one PostgreSQL, too.
    """

    plain: bytes
    cluster: bytes

    @classmethod
    def naming_shards(cls, statement: str, customer_ids: str) -> "Forms":
        """A statement about several customers, which on a cluster says of which.

        Otherwise it goes to each shard. statement: with {shards} where a condition can follow others. customer_ids:
        that condition, as "t.customer_id = ANY(%(customer_ids)s)".
        """
        cluster = statement.replace("{shards}", f"AND {customer_ids}")
        return cls(statement.replace("{shards}", "").encode(), cluster.encode())

    def on(self, connection: psycopg.AsyncConnection[Row]) -> bytes:
        """The form for the database of a connection."""
        return self.cluster if on_cluster(connection) else self.plain


def on_cluster(connection: psycopg.AsyncConnection[Row]) -> bool:
    """Whether the tables of customers were distributed when this connection of a pool was opened."""
    return isinstance(connection, PooledConnection) and connection.on_cluster


def marker_of(connection: psycopg.AsyncConnection[Row]) -> str | None:
    """The marker of the worker to which a connection of a pool leads; None for the coordinator and one PostgreSQL."""
    return connection.marker if isinstance(connection, PooledConnection) else None


def require_coordinator(connection: psycopg.AsyncConnection[Row]) -> None:
    """Raises NeedsCoordinator at a worker: for what writes tables that lie on the coordinator."""
    if marker_of(connection) is not None:
        raise NeedsCoordinator


def announce_after_commit(connection: psycopg.AsyncConnection[Row], organization_id: int) -> bool:
    """Notes at a worker that the commit has notifications of an organization; returns whether it is a worker.

    A NOTIFY at a worker does not reach listeners at the coordinator. So the pool calls `announce` after the commit.
    """
    if marker_of(connection) is None or not isinstance(connection, PooledConnection):
        return False
    connection.announced.add(organization_id)
    return True


def has_citus(connection: Connection) -> bool:
    """Whether the database has the extension Citus."""
    return bool(connection.scalar(text(f"SELECT {HAS_CITUS}")))


def is_distributed_now(connection: Connection) -> bool:
    """Whether the tables of customers are distributed."""
    return has_citus(connection) and bool(connection.scalar(text(_IS_DISTRIBUTED)))


async def is_distributed(connection: AsyncConnection) -> bool:
    """As `is_distributed_now`, in a transaction of a pool."""
    return bool(await connection.run_sync(is_distributed_now))


async def detect(connection: PooledConnection) -> None:
    """Notes on a new connection to a database with the extension Citus what `on_cluster` and `marker_of` say."""
    row = await (await connection.execute(_IS_DISTRIBUTED)).fetchone()
    connection.on_cluster = row is not None and bool(row[0])
    if connection.on_cluster:
        row = await (await connection.execute(_MARKER.encode())).fetchone()
        connection.marker = None if row is None else row[0]
        if connection.marker is not None:
            connection.prepared_max = PREPARED_AT_NODE

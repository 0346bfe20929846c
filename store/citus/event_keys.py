"""The keys of the partitions of `event`, in a form that Citus distributes, and moves between workers.

Citus accepts a unique index only with the distribution column in it. The index of `store.tables.event_key` has a hash
of it instead.

While Citus moves a shard, it copies the changes of its rows by logical replication. For that it has to know which
row was deleted: by a primary key, or by all of its columns (REPLICA IDENTITY FULL). A partition has no primary key,
since an index of expressions cannot be one. Without either, a shard moves only while no process writes to it. To name
a row by all of its columns costs an INSERT and a COPY nothing. A deleted row is written to the log as a whole if
`wal_level` is `logical`, and while its shard moves the new worker reads the whole partition for it. Only voids and
erasures delete events.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from store.tables import event_key

_WITHOUT_CUSTOMER = text("""
SELECT c.relname AS partition, i.relname AS index
FROM pg_inherits JOIN pg_index x ON x.indrelid = inhrelid AND x.indisunique AND x.indkey[0] = 0
JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
WHERE inhparent = 'event'::regclass
""")

_WITHOUT_IDENTITY = text("""
SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
WHERE inhparent = 'event'::regclass AND c.relreplident = 'd'
    AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)
""")


def make_distributable(connection: Connection) -> None:
    """Replaces the unique indexes of hashes alone. The partitions are locked until the transaction ends."""
    for row in connection.execute(_WITHOUT_CUSTOMER).all():
        connection.execute(text(f"DROP INDEX {row.index}"))
        connection.execute(
            text(f"CREATE UNIQUE INDEX {row.index} ON {row.partition} ({event_key.DISTRIBUTED_INDEX})")
        )


def immovable(connection: Connection) -> list[str]:
    """The partitions whose rows Citus cannot move to another worker while they are written."""
    return list(connection.scalars(_WITHOUT_IDENTITY))


def make_movable(connection: Connection, partitions: Sequence[str]) -> None:
    """Lets Citus move the rows of these partitions. They are locked until the transaction ends."""
    for partition in partitions:
        connection.execute(text(f"ALTER TABLE {partition} {event_key.REPLICA_IDENTITY}"))

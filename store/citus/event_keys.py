"""The unique indexes of the partitions of `event`, in a form that Citus distributes.

Citus accepts a unique index only with the distribution column in it. The index of `store.tables.event_key` has a hash
of it instead.
"""

from sqlalchemy import Connection, text

from store.tables import event_key

_WITHOUT_CUSTOMER = text("""
SELECT c.relname AS partition, i.relname AS index
FROM pg_inherits JOIN pg_index x ON x.indrelid = inhrelid AND x.indisunique AND x.indkey[0] = 0
JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
WHERE inhparent = 'event'::regclass
""")


def make_distributable(connection: Connection) -> None:
    """Replaces the unique indexes of hashes alone. The partitions are locked until the transaction ends."""
    for row in connection.execute(_WITHOUT_CUSTOMER).all():
        connection.execute(text(f"DROP INDEX {row.index}"))
        connection.execute(
            text(f"CREATE UNIQUE INDEX {row.index} ON {row.partition} ({event_key.DISTRIBUTED_INDEX})")
        )

"""Which ids of events are taken: by events that are stored in the same calendar month (UTC)."""

from collections.abc import Collection
from datetime import datetime

from store.postgres.database import Cursor, DriverConnection
from store.postgres.distributed import Forms
from store.tables import event_key
from store.usage.months import in_month_of

# One probe of the index of a partition for each. Columns come as text with tabs between the values. Citus takes the
# columns of the function for text, unless it is in a subquery.
_READ = f"""
SELECT e.customer_id, e.event_id
FROM (
    SELECT * FROM unnest(
        string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(event_ids)s, E'\t'),
        string_to_array(%(times)s, E'\t')::timestamptz[]
    ) AS i (customer_id, event_id, event_time)
) AS i
JOIN event e ON {event_key.of_event("%(organization_id)s", "i.customer_id", "i.event_id")}
    AND {in_month_of("i.event_time")} {{shards}}
"""
_THOSE_STORED = Forms.naming_shards(_READ, r"e.customer_id = ANY(string_to_array(%(customer_ids)s, E'\t'))")


async def send_read(
    connection: DriverConnection, organization_id: int, ids: Collection[tuple[str, str, datetime]]
) -> Cursor:
    """Sends the statement that looks for events. ids: customer, event and a time; `found` reads the result."""
    return await connection.execute(
        _THOSE_STORED.on(connection),
        {
            "organization_id": organization_id,
            "customer_ids": "\t".join([customer_id for customer_id, _, _ in ids]),
            "event_ids": "\t".join([event_id for _, event_id, _ in ids]),
            "times": "\t".join([time.isoformat() for _, _, time in ids]),
        },
    )


async def found(cursor: Cursor) -> set[tuple[str, str]]:
    """The result of `send_read`: customer and event of those that are stored."""
    return {(row[0], row[1]) for row in await cursor.fetchall()}

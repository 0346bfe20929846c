"""Placing on a cluster, where feed_pending lies with the notifications, on the nodes of customers.

The rows of a customer are written by one transaction of its node, and read by one statement there, so a notification
shows together with its row of feed_pending, and the later one of a gauge never shows without the earlier one. The
numbers that nodes give out (`arrival`) are in no order across nodes, and a customer's rows can have those of several:
its shard moved, or a transaction came through the coordinator. So the first rows are taken by `sequence`, which
counts the notifications of each alert on each gauge: whatever the limit cuts off, no row is taken without those
before it.

The positions are committed on the coordinator alone, without the deletion of what they stand for. A row of
feed_pending whose notification has a position is no work, and a later call deletes it: feed_entry says so exactly,
under the lock of the feed. So placing holds no row of a node, no prepared transaction can stop it, and a crash
between both repeats the deletion and nothing else.

While a node does not answer, the notifications of its customers wait, and those of the others get their positions.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.notifications.placed import PendingRow, Placed, lock_feed
from store.postgres import apart

# In JSON, a time has one form whatever the DateStyle of the node is.
_COLUMNS = """
    p.arrival, p.sequence AS turn, p.customer_id, p.notification_id, n.alert_id, CAST(n.gauge_id AS text) AS gauge_id,
    n.sequence, n.event_type, n.condition_type, json_build_array(n.create_time) ->> 0 AS create_time
"""
_SAME = """
    n.organization_id = p.organization_id AND n.customer_id = p.customer_id AND n.notification_id = p.notification_id
"""
_PENDING = text(f"""
SELECT {_COLUMNS} FROM feed_pending p LEFT JOIN notification n ON {_SAME}
WHERE p.organization_id = :organization_id ORDER BY p.sequence, p.arrival LIMIT :limit
""")
# The same of one shard; see `apart`.
_PENDING_OF_SHARD = f"""
SELECT {_COLUMNS} FROM %s p LEFT JOIN %s n ON {_SAME}
WHERE p.organization_id = {{organization_id}} ORDER BY p.sequence, p.arrival LIMIT {{limit}}
"""

_WITH_POSITIONS = text("""
SELECT notification_id FROM feed_entry
WHERE organization_id = :organization_id AND notification_id = ANY(CAST(:notifications AS text[]))
""")

# In order of time, except that no notification of a gauge comes before an earlier one.
_PLACE = text("""
WITH placed AS (
    INSERT INTO feed_entry (
        organization_id, place, notification_id, customer_id, alert_id, event_type, condition_type, create_time,
        high_time
    )
    SELECT f.organization_id, f.last_place + row_number() OVER in_order, notification_id, customer_id, alert_id,
           event_type, condition_type, create_time, greatest(f.high_time, max(create_time) OVER in_order)
    FROM (
        SELECT *, max(create_time) OVER (
            PARTITION BY alert_id, gauge_id ORDER BY sequence, notification_id ROWS UNBOUNDED PRECEDING
        ) AS time_of_gauge
        FROM unnest(
            CAST(:customer_id AS text[]), CAST(:notification_id AS text[]), CAST(:alert_id AS text[]),
            CAST(:gauge_id AS text[]), CAST(:sequence AS bigint[]), CAST(:event_type AS text[]),
            CAST(:condition_type AS text[]), CAST(:create_time AS timestamptz[])
        ) AS i (
            customer_id, notification_id, alert_id, gauge_id, sequence, event_type, condition_type, create_time
        )
    ) AS fresh
    JOIN feed f ON f.organization_id = :organization_id
    WINDOW in_order AS (ORDER BY time_of_gauge, sequence, notification_id)
    RETURNING place, high_time
), last AS (
    SELECT max(place) AS place, max(high_time) AS high_time FROM placed
)
UPDATE feed SET last_place = last.place, high_time = last.high_time FROM last
WHERE organization_id = :organization_id
""")
_PLACED_COLUMNS = (
    "customer_id",
    "notification_id",
    "alert_id",
    "gauge_id",
    "sequence",
    "event_type",
    "condition_type",
    "create_time",
)

_DELETE = text("""
DELETE FROM feed_pending
WHERE organization_id = :organization_id AND customer_id = ANY(CAST(:customers AS text[]))
  AND notification_id = ANY(CAST(:notifications AS text[]))
""")

_ORGANIZATIONS = text("SELECT DISTINCT organization_id FROM feed_pending")
_ORGANIZATIONS_OF_SHARD = "SELECT DISTINCT p.organization_id FROM %s p WHERE '%s' <> ''"


async def assign_positions(connection: AsyncConnection, organization_id: int, limit: int) -> Placed:
    """As `placing.assign_positions`, and deletes rows of notifications that have positions.

    They are deleted when there is nothing to place, and when they fill the limit.
    """
    # Before the lock: what another transaction places meanwhile, `feed_entry` shows after it.
    rows = await _pending(connection, organization_id, limit)
    if not rows:
        return Placed(0)
    await lock_feed(connection, organization_id)
    ids = [row["notification_id"] for row in rows]
    found = await connection.scalars(_WITH_POSITIONS, {"organization_id": organization_id, "notifications": ids})
    with_positions = set(found)
    waiting = [row for row in rows if row["notification_id"] not in with_positions]
    # One that was deleted without its row of feed_pending; see `unseen`. The others of its customer wait for it.
    unseen = next((row for row in waiting if row["create_time"] is None), None)
    not_shown = {row["customer_id"] for row in waiting if row["create_time"] is None}
    fresh = [row for row in waiting if row["customer_id"] not in not_shown]
    if fresh:
        columns = {name: [row[name] for row in fresh] for name in _PLACED_COLUMNS}
        await connection.execute(_PLACE, {"organization_id": organization_id, **columns})
    more = len(rows) == limit
    if with_positions and (more or not fresh):
        await _delete(connection, organization_id, [row for row in rows if row["notification_id"] in with_positions])
    if unseen is None:
        return Placed(len(fresh), more=more)
    return Placed(
        len(fresh), PendingRow(unseen["arrival"], unseen["customer_id"], unseen["notification_id"]), more=bool(fresh)
    )


async def organizations_with_pending(connection: AsyncConnection) -> list[int]:
    """The organizations that have rows in feed_pending, on the nodes that answer."""
    if apart.is_needed(connection):
        found = await apart.rows(connection, "feed_pending", "notification", _ORGANIZATIONS_OF_SHARD)
        return sorted({row["organization_id"] for row in found})
    with apart.noticing(connection):
        return sorted(await connection.scalars(_ORGANIZATIONS))


async def _pending(connection: AsyncConnection, organization_id: int, limit: int) -> Sequence[dict[str, Any]]:
    if apart.is_needed(connection):
        statement = _PENDING_OF_SHARD.format(organization_id=int(organization_id), limit=int(limit))
        found = await apart.rows(connection, "feed_pending", "notification", statement)
        return sorted(found, key=lambda row: (row["turn"], row["arrival"]))[:limit]
    with apart.noticing(connection):
        rows = await connection.execute(_PENDING, {"organization_id": organization_id, "limit": limit})
        return [dict(row) for row in rows.mappings()]


async def _delete(connection: AsyncConnection, organization_id: int, rows: Sequence[dict[str, Any]]) -> None:
    with apart.noticing(connection):
        await connection.execute(
            _DELETE,
            {
                "organization_id": organization_id,
                "customers": sorted({row["customer_id"] for row in rows}),
                "notifications": [row["notification_id"] for row in rows],
            },
        )

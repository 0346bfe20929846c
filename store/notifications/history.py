"""The history of notifications: found by id, listed by time, and deleted when they are older than the retention."""

from datetime import datetime

from sqlalchemy import select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from store.notifications.feed import ASSIGN_LIMIT, Entry, NotificationFilter, assign_positions, select_entries
from store.tables.feed import feed, feed_entry


async def assign_all_positions(connection: AsyncConnection, organization_id: int) -> None:
    """Assigns positions to all committed notifications: the history shows those that have one."""
    while await assign_positions(connection, organization_id) == ASSIGN_LIMIT:
        pass


async def get(connection: AsyncConnection, organization_id: int, notification_id: str) -> Entry | None:
    """The notification of that id; None if it does not exist or is deleted."""
    statement = select_entries(organization_id, NotificationFilter()).where(
        feed_entry.c.notification_id == notification_id
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else Entry(*row)


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    wanted: NotificationFilter,
    *,
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    after: tuple[datetime, int] | None = None,
    limit: int,
) -> list[Entry]:
    """Up to `limit` notifications that were created in [start_time, end_time), the newest first.

    after: create_time and position of the last entry of the page before.
    """
    statement = (
        select_entries(organization_id, wanted)
        .order_by(feed_entry.c.create_time.desc(), feed_entry.c.place.desc())
        .limit(limit)
    )
    if start_time is not None:
        statement = statement.where(feed_entry.c.create_time >= start_time)
    if end_time is not None:
        statement = statement.where(feed_entry.c.create_time < end_time)
    if after is not None:
        statement = statement.where(tuple_(feed_entry.c.create_time, feed_entry.c.place) < tuple_(*after))
    return [Entry(*row) for row in await connection.execute(statement)]


# Deletes the oldest entries and their notifications, and records up to which position. In order of position, not of
# time: the remaining feed has no gaps, so that one number (forgotten_place) describes what is deleted.
_DELETE_BEFORE = text("""
WITH gone AS (
    DELETE FROM feed_entry
    WHERE organization_id = :organization_id AND place IN (
        SELECT place FROM feed_entry
        WHERE organization_id = :organization_id AND high_time < :before
        ORDER BY high_time, place LIMIT :limit
    )
    RETURNING organization_id, place, customer_id, notification_id
), deleted AS (
    DELETE FROM notification n USING gone
    WHERE n.organization_id = gone.organization_id AND n.customer_id = gone.customer_id
      AND n.notification_id = gone.notification_id
), last AS (
    SELECT count(*) AS number, max(place) AS place FROM gone
)
UPDATE feed SET forgotten_place = last.place
FROM last WHERE organization_id = :organization_id AND last.number > 0
RETURNING last.number
""")


async def delete_before(connection: AsyncConnection, organization_id: int, before: datetime, limit: int) -> int:
    """Deletes up to `limit` notifications that were created before that time; returns how many."""
    # The lock that assigns positions: without it, two servers would try to delete the same entries.
    await connection.execute(
        select(feed.c.last_place).where(feed.c.organization_id == organization_id).with_for_update()
    )
    parameters = {"organization_id": organization_id, "before": before, "limit": limit}
    return int(await connection.scalar(_DELETE_BEFORE, parameters) or 0)


async def organizations_with_older(connection: AsyncConnection, before: datetime) -> list[int]:
    """The organizations with notifications from before that time. Probes an index once for each feed."""
    older = select(feed_entry.c.place).where(
        feed_entry.c.organization_id == feed.c.organization_id, feed_entry.c.high_time < before
    )
    return list(
        await connection.scalars(
            select(feed.c.organization_id).where(older.exists()).order_by(feed.c.organization_id)
        )
    )

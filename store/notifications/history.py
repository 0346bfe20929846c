"""The history of notifications: found by their ids, listed by their times, forgotten when they are old."""

from datetime import datetime

from sqlalchemy import select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from store.notifications.feed import PLACE_LIMIT, Entry, Wanted, entries, place
from store.tables.feed import feed, feed_entry

FORGET_LIMIT = 1_000  # notifications that one transaction deletes


async def complete(connection: AsyncConnection, organization_id: int) -> None:
    """Gives a place to everything that has been committed: the history shows what has one."""
    while await place(connection, organization_id) == PLACE_LIMIT:
        pass


async def get(connection: AsyncConnection, organization_id: int, notification_id: str) -> Entry | None:
    """The notification of that id; None when there is none, or it is older than notifications are kept."""
    statement = entries(organization_id, Wanted()).where(feed_entry.c.notification_id == notification_id)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else Entry(*row)


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    wanted: Wanted,
    *,
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    after: tuple[datetime, int] | None = None,
    limit: int,
) -> list[Entry]:
    """Up to `limit` notifications made in [start_time, end_time), the newest first.

    `after` is the create_time and place of the last one seen.
    """
    statement = (
        entries(organization_id, wanted)
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


# By places and not by times: what is left of the feed has no holes, so that one number says what is gone.
_FORGET = text("""
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


async def forget(connection: AsyncConnection, organization_id: int, before: datetime) -> int:
    """Deletes up to FORGET_LIMIT notifications that were made before that time; returns how many."""
    # The same lock as for giving places, so that two servers do not delete the same ones.
    await connection.execute(
        select(feed.c.last_place).where(feed.c.organization_id == organization_id).with_for_update()
    )
    parameters = {"organization_id": organization_id, "before": before, "limit": FORGET_LIMIT}
    return int(await connection.scalar(_FORGET, parameters) or 0)


async def organizations_to_forget(connection: AsyncConnection, before: datetime) -> list[int]:
    """The organizations with notifications that were made before that time: one probe of an index for each feed."""
    old = select(feed_entry.c.place).where(
        feed_entry.c.organization_id == feed.c.organization_id, feed_entry.c.high_time < before
    )
    return list(
        await connection.scalars(select(feed.c.organization_id).where(old.exists()).order_by(feed.c.organization_id))
    )

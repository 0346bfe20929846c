"""Lists of notifications that an answer to usage left out, so that the caller can read exactly these."""

from collections.abc import Sequence
from datetime import datetime
from operator import itemgetter

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from store.ids import random_id
from store.notifications.feed import FeedEntry, NotificationFilter, select_entries
from store.tables.feed import feed_entry
from store.tables.notifications import omitted_notifications

_ID_PREFIX = "omt_"


async def store(
    connection: AsyncConnection, organization_id: int, notification_ids: Sequence[str], now: datetime
) -> str:
    """Stores a list; returns its id."""
    list_id = random_id(_ID_PREFIX)
    await connection.execute(
        insert(omitted_notifications).values(
            organization_id=organization_id,
            list_id=list_id,
            notification_ids=list(notification_ids),
            create_time=now,
        )
    )
    return list_id


async def read(
    connection: AsyncConnection, organization_id: int, list_id: str, *, after: int, limit: int
) -> list[tuple[int, FeedEntry]] | None:
    """Up to `limit` notifications of a list with their numbers in it, from 1, those after number `after`.

    Notifications that are deleted are left out. Returns None if there is no such list.
    """
    listed = omitted_notifications.c
    notification_ids = await connection.scalar(
        select(listed.notification_ids).where(listed.organization_id == organization_id, listed.list_id == list_id)
    )
    if notification_ids is None:
        return None
    numbers = {notification_id: number for number, notification_id in enumerate(notification_ids, start=1)}
    wanted = notification_ids[after:]
    found: list[tuple[int, FeedEntry]] = []
    # Another round only where notifications are deleted.
    while wanted and len(found) < limit:
        part, wanted = wanted[: limit - len(found)], wanted[limit - len(found) :]
        statement = select_entries(organization_id, NotificationFilter()).where(
            feed_entry.c.notification_id.in_(part)
        )
        entries = [FeedEntry(*row) for row in await connection.execute(statement)]
        found += sorted(((numbers[entry.notification_id], entry) for entry in entries), key=itemgetter(0))
    return found


async def delete_before(connection: AsyncConnection, time: datetime) -> int:
    """Deletes the lists from before `time`; returns how many."""
    result = await connection.execute(delete(omitted_notifications).where(omitted_notifications.c.create_time < time))
    return int(result.rowcount)

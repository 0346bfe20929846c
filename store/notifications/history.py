"""The history of notifications: found by id, listed by time, and deleted when they are older than the retention."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.notifications.feed import FeedEntry, NotificationFilter, select_entries
from store.notifications.placing import ASSIGN_LIMIT, assign_positions
from store.notifications.unseen import UnseenWait
from store.postgres import bounded_pages
from store.postgres.bounded_pages import BoundedPage, ListScan
from store.postgres.database import Database, driver
from store.postgres.distributed import on_cluster
from store.tables.feed import feed, feed_entry


async def assign_all_positions(connection: AsyncConnection, organization_id: int) -> None:
    """Assigns positions to all committed notifications, up to the first that does not show yet."""
    while (await assign_positions(connection, organization_id)).more:
        pass


_LAST_ARRIVAL = text("SELECT max(arrival) FROM feed_pending WHERE organization_id = :organization_id")


@contextlib.asynccontextmanager
async def reading(
    database: Database, organization_id: int, *, assign_limit: int = ASSIGN_LIMIT
) -> AsyncIterator[AsyncConnection]:
    """A transaction in which all notifications that were committed before have positions.

    Each transaction assigns up to `assign_limit` positions. One transaction for all of them would lock the feed for
    seconds when 100,000 notifications wait. While one of those that were committed before does not show, it waits
    without a connection. Raises DatabaseUnavailable.
    """
    wait, last_arrival = UnseenWait(database, organization_id), None
    while True:
        async with database.transaction() as connection:
            placed = await assign_positions(connection, organization_id, assign_limit)
            if placed.unseen is not None and last_arrival is None:
                # What comes later need not be in the list: on a busy cluster, there is always one that does not show.
                last_arrival = await connection.scalar(_LAST_ARRIVAL, {"organization_id": organization_id})
            is_unseen = placed.unseen is not None and placed.unseen.arrival <= (last_arrival or 0)
            if not placed.more and not is_unseen:
                yield connection
                return
        if placed.unseen is not None and is_unseen:
            await asyncio.sleep(await wait.pause(placed.unseen))


async def get(connection: AsyncConnection, organization_id: int, notification_id: str) -> FeedEntry | None:
    """The notification of that id; None if it does not exist or is deleted."""
    statement = select_entries(organization_id, NotificationFilter()).where(
        feed_entry.c.notification_id == notification_id
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else FeedEntry(*row)


_WITH_IDS = """
SELECT notification_id, customer_id, alert_id, event_type, condition_type, sequence, create_time, body
FROM notification
WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s AND notification_id = ANY(%(ids)s)
"""


async def with_ids(
    connection: AsyncConnection, organization_id: int, customer_id: str, ids: Sequence[str]
) -> list[FeedEntry]:
    """Those notifications of a customer that exist, also without a position in the feed, which is 0 here."""
    raw = await driver(connection)
    parameters = {"organization_id": organization_id, "customer_id": customer_id, "ids": list(ids)}
    cursor = await raw.execute(_WITH_IDS, parameters)
    return [FeedEntry(0, *row) for row in await cursor.fetchall()]


Position = tuple[datetime, int]  # create_time of a notification and its position in the feed
Between = tuple[datetime | None, datetime | None]  # a time from its start to just before its end; None: without one


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    wanted: NotificationFilter,
    *,
    between: Between = (None, None),
    after: Position | None = None,
    limit: int,
    most_examined: int | None = None,
) -> BoundedPage[FeedEntry, Position]:
    """Up to `limit` notifications that were created in that time, the newest first.

    most_examined: notifications that are read at most; by default MAX_EXAMINED of `bounded_pages`. When there are
    more, a page may have fewer than `limit`.
    """
    scan = _scan(organization_id, wanted, between)
    if on_cluster(await driver(connection)):
        scan = replace(scan, lateral=_REST_JOINED)
    return await bounded_pages.read(
        connection, organization_id, scan, _entry, after=after, limit=limit, most_examined=most_examined
    )


_COLUMNS = ("place", "notification_id", "customer_id", "alert_id", "event_type", "condition_type", "create_time")

# What a notification has beside its entry. The limit keeps PostgreSQL from reading all notifications for one join.
_REST = """
CROSS JOIN LATERAL (
    SELECT n.sequence, n.body FROM notification n
    WHERE n.organization_id = %(organization_id)s AND n.customer_id = page.customer_id
        AND n.notification_id = page.notification_id
    LIMIT 1
) AS rest
"""
# On a cluster, the page is read before, and sent to the nodes of the notifications.
_REST_JOINED = """
JOIN notification rest ON rest.organization_id = %(organization_id)s AND rest.customer_id = page.customer_id
    AND rest.notification_id = page.notification_id
"""


def _scan(organization_id: int, wanted: NotificationFilter, between: Between) -> ListScan:
    parameters: dict[str, Any] = {"organization_id": organization_id}
    common = ["organization_id = %(organization_id)s"]
    for name, value, sign in zip(("start_time", "end_time"), between, (">=", "<"), strict=True):
        if value is not None:
            common.append(f"create_time {sign} %({name})s")
            parameters[name] = value
    ranges, checked = [" AND ".join(common)], list[str]()
    # Of each customer, or otherwise of each alert, an index has the notifications in order.
    for column, values, has_index in (
        ("customer_id", wanted.customer_ids, True),
        ("alert_id", wanted.alert_ids, not wanted.customer_ids),
        ("condition_type", wanted.condition_types, False),
        ("event_type", wanted.event_types, False),
    ):
        if has_index and values:
            each = {f"{column}_{number}": value for number, value in enumerate(sorted(set(values)))}
            ranges = [" AND ".join([*common, f"{column} = %({name})s"]) for name in each]
            parameters |= each
        elif values:
            checked.append(f"{column} = ANY(%({column}s)s)")
            parameters[f"{column}s"] = list(values)
    return ListScan(
        table="feed_entry",
        columns=_COLUMNS,
        order=("create_time", "place"),
        ranges=ranges,
        filters=checked,
        parameters=parameters,
        newest_first=True,
        lateral=_REST,
        also=("rest.sequence", "rest.body"),
    )


def _entry(row: Mapping[str, Any]) -> FeedEntry:
    return FeedEntry(position=row["place"], **{name: row[name] for name in (*_COLUMNS[1:], "sequence", "body")})


# Deletes the oldest entries, and records up to which position. In order of position, not of time: the remaining feed
# has no gaps, so that one number (forgotten_place) describes what is deleted.
_DELETE_BEFORE = text("""
WITH gone AS (
    DELETE FROM feed_entry
    WHERE organization_id = :organization_id AND place IN (
        SELECT place FROM feed_entry
        WHERE organization_id = :organization_id AND high_time < :before
        ORDER BY high_time, place LIMIT :limit
    )
    RETURNING place, customer_id, notification_id
), last AS (
    SELECT count(*) AS number, max(place) AS place, CAST(array_agg(customer_id) AS text) AS customers,
           CAST(array_agg(notification_id) AS text) AS notifications
    FROM gone
)
UPDATE feed SET forgotten_place = last.place
FROM last WHERE organization_id = :organization_id AND last.number > 0
RETURNING last.number, last.customers, last.notifications
""")

# A statement of its own: the notifications may lie on other nodes than the feed.
_DELETE_NOTIFICATIONS = text("""
DELETE FROM notification n
USING unnest(CAST(:customers AS text[]), CAST(:notifications AS text[])) AS gone (customer_id, notification_id)
WHERE n.organization_id = :organization_id AND n.customer_id = gone.customer_id
  AND n.notification_id = gone.notification_id
""")


async def delete_before(connection: AsyncConnection, organization_id: int, before: datetime, limit: int) -> int:
    """Deletes up to `limit` notifications that were created before that time; returns how many.

    They have positions, so feed_pending has no rows of them.
    """
    # The lock that assigns positions: without it, two servers would try to delete the same entries.
    await connection.execute(
        select(feed.c.last_place).where(feed.c.organization_id == organization_id).with_for_update()
    )
    parameters = {"organization_id": organization_id, "before": before, "limit": limit}
    gone = (await connection.execute(_DELETE_BEFORE, parameters)).one_or_none()
    if gone is None:
        return 0
    await connection.execute(
        _DELETE_NOTIFICATIONS,
        {"organization_id": organization_id, "customers": gone.customers, "notifications": gone.notifications},
    )
    return int(gone.number)


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

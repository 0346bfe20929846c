"""The feed of an organization: its notifications in one order, which everybody sees grow only at its end.

A transaction that writes notifications leaves them in feed_pending, with numbers that are handed out before it
commits; so a low number may appear after a higher one has been read. Whoever wants to read the feed therefore gives
a place to what has been committed first, one transaction of an organization at a time. Of one gauge the order is that
of its evaluations: the later one takes its number after the earlier one has committed, and whoever sees the later
one sees the earlier one too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables.feed import feed, feed_entry
from store.tables.notifications import notification

PLACE_LIMIT = 1_000  # notifications that one transaction gives a place to


@dataclass(frozen=True, slots=True)
class Entry:
    """A notification and its place in its organization's feed. body: the webhook's body, byte for byte."""

    place: int
    notification_id: str
    customer_id: str
    alert_id: str
    event_type: str
    condition_type: str
    sequence: int
    create_time: datetime
    body: str


@dataclass(frozen=True)
class Wanted:
    """Which notifications; what is empty narrows nothing."""

    customer_ids: tuple[str, ...] = ()
    alert_ids: tuple[str, ...] = ()
    condition_types: tuple[str, ...] = ()
    event_types: tuple[str, ...] = ()

    def has(self, entry: Entry) -> bool:
        """Whether the notification is one of them."""
        return (
            (not self.customer_ids or entry.customer_id in self.customer_ids)
            and (not self.alert_ids or entry.alert_id in self.alert_ids)
            and (not self.condition_types or entry.condition_type in self.condition_types)
            and (not self.event_types or entry.event_type in self.event_types)
        )


@dataclass(frozen=True)
class Extent:
    """Which places a feed has: those after `forgotten_place`, up to `last_place`."""

    last_place: int = 0
    forgotten_place: int = 0


class Forgotten(Exception):
    """What was to be read is older than notifications are kept."""


_HAS_PENDING = text("SELECT EXISTS (SELECT FROM feed_pending WHERE organization_id = :organization_id)")

_BEGIN = text("""
INSERT INTO feed (organization_id, last_place, high_time) VALUES (:organization_id, 0, 'epoch') ON CONFLICT DO NOTHING
""")

# A server that froze while it holds this lock would stop the whole feed; PostgreSQL ends its session instead.
_LOCK = text("""
SELECT last_place, set_config('idle_in_transaction_session_timeout', '10s', true)
FROM feed WHERE organization_id = :organization_id FOR UPDATE
""")

_PLACE = text("""
WITH taken AS (
    DELETE FROM feed_pending
    WHERE organization_id = :organization_id AND arrival IN (
        SELECT arrival FROM feed_pending WHERE organization_id = :organization_id ORDER BY arrival LIMIT :limit
    )
    RETURNING organization_id, arrival, customer_id, notification_id
), placed AS (
    INSERT INTO feed_entry (
        organization_id, place, notification_id, customer_id, alert_id, event_type, condition_type, create_time,
        high_time
    )
    SELECT organization_id, f.last_place + row_number() OVER in_order, notification_id, customer_id, n.alert_id,
           n.event_type, n.condition_type, n.create_time, greatest(f.high_time, max(n.create_time) OVER in_order)
    FROM taken
    JOIN notification n USING (organization_id, customer_id, notification_id)
    JOIN feed f USING (organization_id)
    WINDOW in_order AS (ORDER BY arrival)
    RETURNING place, high_time
), last AS (
    SELECT count(*) AS number, max(place) AS place, max(high_time) AS high_time FROM placed
)
UPDATE feed SET last_place = last.place, high_time = last.high_time
FROM last WHERE organization_id = :organization_id AND last.number > 0
RETURNING last.number
""")


async def place(connection: AsyncConnection, organization_id: int, limit: int = PLACE_LIMIT) -> int:
    """Gives a place to up to `limit` notifications that have been committed; returns how many had none before.

    Waits while another transaction does the same. When fewer than `limit` are returned, everything that was
    committed before the call has its place.
    """
    parameters = {"organization_id": organization_id}
    if not await connection.scalar(_HAS_PENDING, parameters):
        return 0
    if (await connection.execute(_LOCK, parameters)).one_or_none() is None:
        await connection.execute(_BEGIN, parameters)
        await connection.execute(_LOCK, parameters)
    # A statement of its own: its snapshot has to be younger than the lock.
    return int(await connection.scalar(_PLACE, parameters | {"limit": limit}) or 0)


_NEWS = text("""
SELECT organization_id
FROM unnest(CAST(:organizations AS bigint[]), CAST(:places AS bigint[])) AS seen (organization_id, place)
LEFT JOIN feed USING (organization_id)
WHERE feed.last_place > seen.place
   OR EXISTS (SELECT FROM feed_pending p WHERE p.organization_id = seen.organization_id)
""")


async def with_news(connection: AsyncConnection, seen: dict[int, int]) -> set[int]:
    """The organizations, of those in `seen`, whose feed has or is about to have more than that place."""
    rows = await connection.scalars(
        _NEWS, {"organizations": list(seen), "places": [seen[organization_id] for organization_id in seen]}
    )
    return set(rows)


async def with_pending(connection: AsyncConnection) -> list[int]:
    """The organizations that have notifications without a place."""
    return list(await connection.scalars(text("SELECT DISTINCT organization_id FROM feed_pending ORDER BY 1")))


async def extent(connection: AsyncConnection, organization_id: int) -> Extent:
    """Which places the feed has."""
    found = await connection.execute(
        select(feed.c.last_place, feed.c.forgotten_place).where(feed.c.organization_id == organization_id)
    )
    row = found.one_or_none()
    return Extent() if row is None else Extent(row.last_place, row.forgotten_place)


async def place_before(connection: AsyncConnection, organization_id: int, time: datetime) -> int:
    """The place after which everything stands that was made at `time` or later; the last one when nothing was."""
    first = await connection.scalar(
        select(feed_entry.c.place)
        .where(feed_entry.c.organization_id == organization_id, feed_entry.c.high_time >= time)
        .order_by(feed_entry.c.high_time, feed_entry.c.place)
        .limit(1)
    )
    return (await extent(connection, organization_id)).last_place if first is None else int(first) - 1


async def read(
    connection: AsyncConnection,
    organization_id: int,
    *,
    after: int,
    limit: int,
    until: int | None = None,
    wanted: Wanted | None = None,
) -> list[Entry]:
    """Up to `limit` entries with places above `after`, and not above `until`, in their order.

    Raises Forgotten when some that stood there are deleted.
    """
    statement = entries(organization_id, wanted or Wanted()).where(feed_entry.c.place > after)
    if until is not None:
        statement = statement.where(feed_entry.c.place <= until)
    rows = (await connection.execute(statement.order_by(feed_entry.c.place).limit(limit))).all()
    # After the rows: what was deleted before they were read shows here.
    if (await extent(connection, organization_id)).forgotten_place > after:
        raise Forgotten
    return [Entry(*row) for row in rows]


def entries(organization_id: int, wanted: Wanted) -> Select[Any]:
    """Selects the columns of Entry, of an organization's entries that are wanted."""
    statement = (
        select(
            feed_entry.c.place,
            feed_entry.c.notification_id,
            feed_entry.c.customer_id,
            feed_entry.c.alert_id,
            feed_entry.c.event_type,
            feed_entry.c.condition_type,
            notification.c.sequence,
            feed_entry.c.create_time,
            notification.c.body,
        )
        .join(
            notification,
            and_(
                notification.c.organization_id == feed_entry.c.organization_id,
                notification.c.customer_id == feed_entry.c.customer_id,
                notification.c.notification_id == feed_entry.c.notification_id,
            ),
        )
        .where(feed_entry.c.organization_id == organization_id)
    )
    filters: tuple[tuple[Any, Sequence[str]], ...] = (
        (feed_entry.c.customer_id, wanted.customer_ids),
        (feed_entry.c.alert_id, wanted.alert_ids),
        (feed_entry.c.condition_type, wanted.condition_types),
        (feed_entry.c.event_type, wanted.event_types),
    )
    for column, values in filters:
        if len(values) == 1:  # by equality, which an index that goes on with the order serves in order
            statement = statement.where(column == values[0])
        elif values:
            statement = statement.where(column.in_(values))
    return statement

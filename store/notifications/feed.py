"""The feed of an organization: its notifications in one order, the same for all subscribers, which only grows.

The transaction of an evaluation leaves its notifications in feed_pending, numbered by a sequence. The numbers are
taken before the commit, so a lower number can become visible after a higher one was read; they are no order for
subscribers. Each reader therefore first assigns positions to what is committed (`store.notifications.placing`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, and_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.notifications.cluster_placing import organizations_with_pending
from store.postgres.database import driver
from store.postgres.distributed import on_cluster
from store.tables.feed import feed, feed_entry
from store.tables.notifications import notification


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """A notification and its position in the feed of its organization. body: as webhooks carry it, byte for byte."""

    position: int
    notification_id: str
    customer_id: str
    alert_id: str
    event_type: str
    condition_type: str
    sequence: int
    create_time: datetime
    body: str


@dataclass(frozen=True)
class NotificationFilter:
    """Which notifications a list or a stream contains. An empty tuple does not restrict."""

    customer_ids: tuple[str, ...] = ()
    alert_ids: tuple[str, ...] = ()
    condition_types: tuple[str, ...] = ()
    event_types: tuple[str, ...] = ()

    def matches(self, entry: FeedEntry) -> bool:
        """Whether the notification passes the filter."""
        return (
            (not self.customer_ids or entry.customer_id in self.customer_ids)
            and (not self.alert_ids or entry.alert_id in self.alert_ids)
            and (not self.condition_types or entry.condition_type in self.condition_types)
            and (not self.event_types or entry.event_type in self.event_types)
        )


@dataclass(frozen=True)
class Extent:
    """The positions that a feed has: those after `deleted_position`, up to `last_position`."""

    last_position: int = 0
    deleted_position: int = 0


class EntriesDeleted(Exception):
    """Entries that were to be read are older than the retention and are deleted."""


# Of some organizations, those that have entries or pending notifications after a position.
_WITH_LATER_ENTRIES = text("""
SELECT organization_id
FROM unnest(CAST(:organizations AS bigint[]), CAST(:places AS bigint[])) AS seen (organization_id, place)
LEFT JOIN feed USING (organization_id)
WHERE feed.last_place > seen.place
   OR EXISTS (SELECT FROM feed_pending p WHERE p.organization_id = seen.organization_id)
""")

_WITH_LATER_POSITIONS = text("""
SELECT organization_id
FROM unnest(CAST(:organizations AS bigint[]), CAST(:places AS bigint[])) AS seen (organization_id, place)
JOIN feed USING (organization_id)
WHERE feed.last_place > seen.place
""")

# The organizations that have notifications without a position.
_WITH_PENDING_ENTRIES = text("SELECT DISTINCT organization_id FROM feed_pending ORDER BY 1")


async def with_later_entries(
    connection: AsyncConnection, seen: dict[int, int], *, all_nodes: bool = True
) -> set[int]:
    """The organizations whose feed has, or will have, entries after the position that `seen` gives for them.

    all_nodes: where notifications without a position lie on the nodes of a cluster, reads those, too. That costs a
    statement on each shard.
    """
    is_apart = on_cluster(await driver(connection))
    rows = await connection.scalars(
        _WITH_LATER_POSITIONS if is_apart else _WITH_LATER_ENTRIES,
        {"organizations": list(seen), "places": [seen[organization_id] for organization_id in seen]},
    )
    found = set(rows)
    if is_apart and all_nodes:
        found |= seen.keys() & set(await organizations_with_pending(connection))
    return found


# Organizations without a feed get one: their subscribers may have tokens, too.
_SKIP_POSITIONS = text("""
INSERT INTO feed (organization_id, last_place, high_time)
SELECT organization_id, :number, 'epoch' FROM organization
ON CONFLICT (organization_id) DO UPDATE SET last_place = feed.last_place + :number
""")


async def skip_positions(connection: AsyncConnection, number: int) -> int:
    """Leaves out that many positions in the feed of every organization; returns how many feeds there are."""
    return (await connection.execute(_SKIP_POSITIONS, {"number": number})).rowcount


async def with_pending_entries(connection: AsyncConnection) -> list[int]:
    """The organizations that have rows in feed_pending."""
    if on_cluster(await driver(connection)):
        return await organizations_with_pending(connection)
    return list(await connection.scalars(_WITH_PENDING_ENTRIES))


async def extent(connection: AsyncConnection, organization_id: int) -> Extent:
    """The positions that the feed has."""
    found = await connection.execute(
        select(feed.c.last_place, feed.c.forgotten_place).where(feed.c.organization_id == organization_id)
    )
    row = found.one_or_none()
    return Extent() if row is None else Extent(row.last_place, row.forgotten_place)


async def position_before(connection: AsyncConnection, organization_id: int, time: datetime) -> int:
    """The position after which all notifications of `time` or later follow; the last one if there are none."""
    # Read before the entries: in the other order, an entry that comes between the two statements is missed.
    last = (await extent(connection, organization_id)).last_position
    first = await connection.scalar(
        select(feed_entry.c.place)
        .where(feed_entry.c.organization_id == organization_id, feed_entry.c.high_time >= time)
        .order_by(feed_entry.c.high_time, feed_entry.c.place)
        .limit(1)
    )
    return last if first is None else int(first) - 1


async def read(
    connection: AsyncConnection,
    organization_id: int,
    *,
    after: int,
    limit: int,
    until: int | None = None,
    wanted: NotificationFilter | None = None,
) -> list[FeedEntry]:
    """Up to `limit` entries with positions above `after`, and not above `until`, in order of position.

    Raises EntriesDeleted if entries after `after` are deleted.
    """
    between = [feed_entry.c.place > after]
    if until is not None:
        between.append(feed_entry.c.place <= until)
    if on_cluster(await driver(connection)):
        where = _conditions(organization_id, wanted or NotificationFilter(), *between)
        found = await _page_on_cluster(connection, organization_id, where, limit)
    else:
        statement = select_entries(organization_id, wanted or NotificationFilter(), *between)
        rows = await connection.execute(statement.order_by("place").limit(limit))
        found = [FeedEntry(*row) for row in rows]
    # Read after the rows: in the other order, entries that are deleted between the two statements are missed.
    if (await extent(connection, organization_id)).deleted_position > after:
        raise EntriesDeleted
    return found


# The customers name the shards: with a join, each shard would get the whole page, and a node that does not answer
# would stop the streams that need none of its notifications.
_OF_CUSTOMERS = text("""
SELECT notification_id, sequence, body FROM notification
WHERE organization_id = :organization_id AND customer_id = ANY(CAST(:customers AS text[]))
  AND notification_id = ANY(CAST(:notifications AS text[]))
""")


async def _page_on_cluster(
    connection: AsyncConnection, organization_id: int, where: Sequence[ColumnElement[bool]], limit: int
) -> list[FeedEntry]:
    entries = (
        await connection.execute(select(feed_entry).where(*where).order_by(feed_entry.c.place).limit(limit))
    ).all()
    if not entries:
        return []
    parameters = {
        "organization_id": organization_id,
        "customers": sorted({entry.customer_id for entry in entries}),
        "notifications": [entry.notification_id for entry in entries],
    }
    rows = {row.notification_id: row for row in await connection.execute(_OF_CUSTOMERS, parameters)}
    return [
        FeedEntry(
            entry.place,
            entry.notification_id,
            entry.customer_id,
            entry.alert_id,
            entry.event_type,
            entry.condition_type,
            row.sequence,
            entry.create_time,
            row.body,
        )
        for entry in entries
        if (row := rows.get(entry.notification_id)) is not None
    ]


def select_entries(organization_id: int, wanted: NotificationFilter, *conditions: ColumnElement[bool]) -> Select[Any]:
    """A statement that selects the columns of FeedEntry, of those entries of an organization that pass the filter.

    conditions: on `feed_entry`.
    """
    return _with_notifications(feed_entry).where(*_conditions(organization_id, wanted, *conditions))


def _conditions(
    organization_id: int, wanted: NotificationFilter, *conditions: ColumnElement[bool]
) -> list[ColumnElement[bool]]:
    where = [feed_entry.c.organization_id == organization_id, *conditions]
    filters: tuple[tuple[Any, Sequence[str]], ...] = (
        (feed_entry.c.customer_id, wanted.customer_ids),
        (feed_entry.c.alert_id, wanted.alert_ids),
        (feed_entry.c.condition_type, wanted.condition_types),
        (feed_entry.c.event_type, wanted.event_types),
    )
    for column, values in filters:
        if len(values) == 1:  # with =, an index on the column and the order returns the rows in order
            where.append(column == values[0])
        elif values:
            where.append(column.in_(values))
    return where


def _with_notifications(entry: FromClause) -> Select[Any]:
    return select(
        entry.c.place,
        entry.c.notification_id,
        entry.c.customer_id,
        entry.c.alert_id,
        entry.c.event_type,
        entry.c.condition_type,
        notification.c.sequence,
        entry.c.create_time,
        notification.c.body,
    ).join_from(
        entry,
        notification,
        and_(
            notification.c.organization_id == entry.c.organization_id,
            notification.c.customer_id == entry.c.customer_id,
            notification.c.notification_id == entry.c.notification_id,
        ),
    )

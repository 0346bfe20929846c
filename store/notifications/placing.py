"""Placing: gives the notifications of an organization their positions in its feed, after their commits.

One transaction of an organization at a time does it. The notifications of one gauge keep the order of their
evaluations: the later evaluation takes its number (`arrival`) after the commit of the earlier one, and a transaction
that sees the row of the later one in feed_pending sees that of the earlier one too.

A commit need not become visible in one moment: where the tables lie on several nodes, feed_pending shows a commit
milliseconds before notification does. So positions are given only up to the first notification that does not show.
Nothing overtakes it, and it is not lost. `store.notifications.unseen` says how readers wait for it.

Three statements, because no statement may change tables of one node and read those of another: what waits, what shows
of it, and the change. The rows go through this process as arrays in text form, which it does not parse.
"""

from dataclasses import dataclass
from typing import LiteralString

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.postgres.database import Cursor, Row, driver

ASSIGN_LIMIT = 1_000  # notifications to which one transaction assigns a position
# Up to so many rows, the statement names the customers of the notifications once more: a cluster then asks only the
# nodes of these. Of more rows, it asks about all nodes anyway, and PostgreSQL would sort the list for each row.
NAMED = 16


@dataclass(frozen=True, slots=True)
class PendingRow:
    """A notification without a position, as feed_pending has it."""

    arrival: int
    customer_id: str
    notification_id: str


@dataclass(frozen=True, slots=True)
class Placed:
    """What one transaction has placed.

    number: of positions that it assigned. unseen: the first notification that does not show yet, and for which all
    later ones wait; None if everything that was committed before has its position, or `number` is the limit.
    """

    number: int
    unseen: PendingRow | None = None


# Whether an organization has notifications without a position.
_HAS_PENDING = text("SELECT EXISTS (SELECT FROM feed_pending WHERE organization_id = :organization_id)")

# Creates the row of a feed.
_CREATE_FEED = text("""
INSERT INTO feed (organization_id, last_place, high_time) VALUES (:organization_id, 0, 'epoch') ON CONFLICT DO NOTHING
""")

# Locks the row of a feed. A server that freezes while it holds this lock would stop the feed for all servers, so
# PostgreSQL ends its session after 10 s.
_LOCK_FEED = text("""
SELECT last_place, set_config('idle_in_transaction_session_timeout', '10s', true)
FROM feed WHERE organization_id = :organization_id FOR UPDATE
""")

_PENDING = """
SELECT count(*), CAST(array_agg(arrival) AS text), CAST(array_agg(customer_id) AS text),
       CAST(array_agg(notification_id) AS text)
FROM (
    SELECT arrival, customer_id, notification_id FROM feed_pending
    WHERE organization_id = %(organization_id)s ORDER BY arrival LIMIT %(limit)s
) AS first
"""

_SHOWN: LiteralString = """
SELECT count(*), CAST(array_agg(wanted.arrival) AS text), CAST(array_agg(n.customer_id) AS text),
       CAST(array_agg(n.notification_id) AS text), CAST(array_agg(n.alert_id) AS text),
       CAST(array_agg(n.event_type) AS text), CAST(array_agg(n.condition_type) AS text),
       CAST(array_agg(n.create_time) AS text)
FROM unnest(
    CAST(%(arrivals)s AS bigint[]), CAST(%(customers)s AS text[]), CAST(%(notifications)s AS text[])
) AS wanted (arrival, customer_id, notification_id)
JOIN notification n ON n.organization_id = %(organization_id)s AND n.customer_id = wanted.customer_id
    AND n.notification_id = wanted.notification_id
"""
_SHOWN_OF_NAMED: LiteralString = _SHOWN + "WHERE n.customer_id = ANY (CAST(%(customers)s AS text[]))"

# The first that does not show. It is asked for only when the counts differ.
_FIRST_UNSEEN = """
SELECT arrival, customer_id, notification_id
FROM unnest(
    CAST(%(arrivals)s AS bigint[]), CAST(%(customers)s AS text[]), CAST(%(notifications)s AS text[])
) AS wanted (arrival, customer_id, notification_id)
WHERE arrival <> ALL (coalesce(CAST(%(shown)s AS bigint[]), '{}'))
ORDER BY arrival LIMIT 1
"""

# Gives those up to before `until` the positions that follow the last one, and deletes exactly their rows.
_PLACE = """
WITH placed AS (
    INSERT INTO feed_entry (
        organization_id, place, notification_id, customer_id, alert_id, event_type, condition_type, create_time,
        high_time
    )
    SELECT f.organization_id, f.last_place + row_number() OVER in_order, notification_id, customer_id, alert_id,
           event_type, condition_type, create_time, greatest(f.high_time, max(create_time) OVER in_order)
    FROM unnest(
        CAST(%(arrivals)s AS bigint[]), CAST(%(customers)s AS text[]), CAST(%(notifications)s AS text[]),
        CAST(%(alerts)s AS text[]), CAST(%(event_types)s AS text[]), CAST(%(condition_types)s AS text[]),
        CAST(%(create_times)s AS timestamptz[])
    ) AS shown (arrival, customer_id, notification_id, alert_id, event_type, condition_type, create_time)
    JOIN feed f ON f.organization_id = %(organization_id)s
    WHERE arrival < coalesce(%(until)s, arrival + 1)
    WINDOW in_order AS (ORDER BY arrival)
    RETURNING place, high_time
), gone AS (
    DELETE FROM feed_pending
    WHERE organization_id = %(organization_id)s AND arrival = ANY (CAST(%(arrivals)s AS bigint[]))
      AND arrival < coalesce(%(until)s, arrival + 1)
), last AS (
    SELECT count(*) AS number, max(place) AS place, max(high_time) AS high_time FROM placed
)
UPDATE feed SET last_place = last.place, high_time = last.high_time
FROM last WHERE organization_id = %(organization_id)s AND last.number > 0
RETURNING last.number
"""


async def assign_positions(connection: AsyncConnection, organization_id: int, limit: int = ASSIGN_LIMIT) -> Placed:
    """Assigns positions to up to `limit` committed notifications that have none.

    Waits while another transaction does the same, and never for a notification that does not show.
    """
    parameters = {"organization_id": organization_id}
    if not await connection.scalar(_HAS_PENDING, parameters):
        return Placed(0)
    await lock_feed(connection, organization_id)
    # Separate statements: their snapshots must be newer than the lock, or they miss what was committed meanwhile.
    raw = await driver(connection)
    number, arrivals, customers, notifications = await _row(
        await raw.execute(_PENDING, {"organization_id": organization_id, "limit": limit})
    )
    if not number:
        return Placed(0)
    waiting = {
        "organization_id": organization_id,
        "arrivals": arrivals,
        "customers": customers,
        "notifications": notifications,
    }
    shown, *columns = await _row(await raw.execute(_SHOWN_OF_NAMED if number <= NAMED else _SHOWN, waiting))
    unseen = None
    if shown < number:
        unseen = PendingRow(*await _row(await raw.execute(_FIRST_UNSEEN, {**waiting, "shown": columns[0]})))
    if not shown:
        return Placed(0, unseen)
    names = ("arrivals", "customers", "notifications", "alerts", "event_types", "condition_types", "create_times")
    values = dict(zip(names, columns, strict=True))
    until = None if unseen is None else unseen.arrival
    cursor = await raw.execute(_PLACE, {"organization_id": organization_id, "until": until, **values})
    placed = await cursor.fetchone()
    return Placed(0 if placed is None else int(placed[0]), unseen)


async def lock_feed(connection: AsyncConnection, organization_id: int) -> None:
    """Locks the feed of an organization until the transaction ends: no other one places or deletes its entries."""
    parameters = {"organization_id": organization_id}
    if (await connection.execute(_LOCK_FEED, parameters)).one_or_none() is None:
        await connection.execute(_CREATE_FEED, parameters)
        await connection.execute(_LOCK_FEED, parameters)


async def _row(cursor: Cursor) -> Row:
    found = await cursor.fetchone()
    assert found is not None, "aggregates, and a row that is missing, have one row"
    return found

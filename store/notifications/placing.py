"""Placing: gives the notifications of an organization their positions in its feed, after their commits.

One transaction of an organization at a time does it. The notifications of one gauge keep the order of their
evaluations: the later evaluation takes its number (`arrival`) after the commit of the earlier one, and a transaction
that sees the row of the later one in feed_pending sees that of the earlier one too.

Nothing here trusts that a commit becomes visible in one moment: feed_pending may show it before notification does. So
positions are given only up to the first notification that does not show. Nothing overtakes it, and it is not lost.
`store.notifications.unseen` says how readers wait for it.

Three statements: what waits, what shows of it, and the change. The rows go through this process as arrays in text
form, which it does not parse. On a cluster, `cluster_placing` does it.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.notifications import cluster_placing
from store.notifications.placed import PendingRow, Placed, lock_feed
from store.postgres.database import Cursor, Row, driver
from store.postgres.distributed import on_cluster

ASSIGN_LIMIT = 1_000  # notifications to which one transaction assigns a position

# Whether an organization has notifications without a position.
_HAS_PENDING = text("SELECT EXISTS (SELECT FROM feed_pending WHERE organization_id = :organization_id)")

_PENDING = """
SELECT count(*), CAST(array_agg(arrival) AS text), CAST(array_agg(customer_id) AS text),
       CAST(array_agg(notification_id) AS text)
FROM (
    SELECT arrival, customer_id, notification_id FROM feed_pending
    WHERE organization_id = %(organization_id)s ORDER BY arrival LIMIT %(limit)s
) AS first
"""

_SHOWN = """
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
    if on_cluster(await driver(connection)):
        return await cluster_placing.assign_positions(connection, organization_id, limit)
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
    shown, *columns = await _row(await raw.execute(_SHOWN, waiting))
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
    placed_number = 0 if placed is None else int(placed[0])
    return Placed(placed_number, unseen, more=placed_number == limit)


async def _row(cursor: Cursor) -> Row:
    found = await cursor.fetchone()
    assert found is not None, "aggregates, and a row that is missing, have one row"
    return found

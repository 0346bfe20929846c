"""The work that waits in the database, and for how long its oldest part has waited.

Each answer reads the first row of an index, and counts at most COUNTED rows.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from evaluator.enforcement.reservations import GRACE
from store.deliveries.outbox import OLDEST_TIME
from store.deliveries.queue import DUE_ENDPOINTS, OPEN, SETTINGS
from store.postgres.database import DriverConnection, Row

COUNTED = 10_000  # rows at most


@dataclass(frozen=True)
class Waiting:
    """What waits. number: of rows, up to COUNTED; age: of the oldest; what: its name, where it has one."""

    number: int
    age: timedelta
    what: str = ""


async def heartbeat_age(connection: DriverConnection) -> timedelta | None:
    """How long ago a server or a notifier wrote its heartbeat last; None if none ever did."""
    cursor = await connection.execute("SELECT clock_timestamp() - max(beat_time) FROM heartbeat")
    row = await cursor.fetchone()
    found: timedelta | None = None if row is None else row[0]
    return found


async def processes(connection: DriverConnection) -> int:
    """How many servers and notifiers have sessions of their main pools now."""
    cursor = await connection.execute(
        "SELECT count(DISTINCT substring(application_name FROM '[^ ]+$')) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'tidemark %'"
        " AND application_name NOT LIKE 'tidemark doctor %'"
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


_OUTBOX = """
SELECT clock_timestamp() - ({oldest}), (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT %(counted)s) AS o)
"""
# Timers are in wallets and in recharge policies.
_TIMERS = """
SELECT %(now)s - least((SELECT min(due_time) FROM wallet), (SELECT min(due_time) FROM recharge_policy)),
    (SELECT count(*) FROM (
        (SELECT organization_id, customer_id FROM wallet WHERE due_time <= %(now)s LIMIT %(counted)s)
        UNION
        (SELECT organization_id, customer_id FROM recharge_policy WHERE due_time <= %(now)s LIMIT %(counted)s)
    ) AS due)
"""
_RESERVATIONS = """
SELECT %(now)s - min(expire_time), count(*) FROM (
    SELECT expire_time FROM reservation WHERE state = 'OPEN' AND expire_time <= %(now)s
    ORDER BY expire_time LIMIT %(counted)s
) AS r
"""
_RECHARGES = """
SELECT %(now)s - min(create_time), count(*) FROM (
    SELECT create_time FROM recharge WHERE state = 'REQUESTED' ORDER BY create_time LIMIT %(counted)s
) AS r
"""
_DISABLED_POLICIES = """
SELECT interval '0', count(*) FROM (SELECT 1 FROM recharge_policy WHERE state = 'DISABLED' LIMIT %(counted)s) AS p
"""
_ERASURES = """
SELECT clock_timestamp() - min(create_time), count(*) FROM (
    SELECT create_time FROM erasure_job WHERE state = 'RUNNING' ORDER BY create_time LIMIT %(counted)s
) AS j
"""
_REDELIVERIES = _ERASURES.replace("erasure_job", "redelivery_job")
# Backfills have no time of their own: that of the last change of the alert stands for it.
_BACKFILLS = """
SELECT %(now)s - min(update_time), count(*) FROM (
    SELECT update_time FROM alert WHERE visit_after IS NOT NULL LIMIT %(counted)s
) AS a
"""
_EVALUATIONS = """
SELECT clock_timestamp() - min(due_time), count(*) FROM (
    SELECT due_time FROM customer_evaluation WHERE due_time < clock_timestamp() LIMIT %(counted)s
) AS e
"""


async def outbox(connection: DriverConnection) -> Waiting | None:
    """The notifications that wait for the fan-out of a notifier."""
    return await _waiting(connection, _OUTBOX.format(oldest=OLDEST_TIME.on(connection).decode()))


async def timers(connection: DriverConnection, now: datetime) -> Waiting | None:
    """The timers of customers that are due. now: of the clock of servers, which sets them."""
    found = await _waiting(connection, _TIMERS, now)
    return None if found is None or found.age < timedelta() else found


async def overdue_reservations(connection: DriverConnection, now: datetime) -> Waiting | None:
    """The reservations whose grace has ended, and that still hold something. now: of the clock of servers."""
    return await _waiting(connection, _RESERVATIONS, now - GRACE)


async def recharges(connection: DriverConnection, now: datetime) -> Waiting | None:
    """The recharges that wait for a report. now: of the clock of servers, which request them."""
    return await _waiting(connection, _RECHARGES, now)


async def disabled_recharge_policies(connection: DriverConnection) -> int:
    """How many recharge policies have switched themselves off."""
    found = await _waiting(connection, _DISABLED_POLICIES)
    return 0 if found is None else found.number


async def erasures(connection: DriverConnection) -> Waiting | None:
    """The customers that are being erased."""
    return await _waiting(connection, _ERASURES)


async def redeliveries(connection: DriverConnection) -> Waiting | None:
    """The redelivery jobs that run."""
    return await _waiting(connection, _REDELIVERIES)


async def backfills(connection: DriverConnection, now: datetime) -> Waiting | None:
    """The alerts that are not evaluated yet on what existed before them. now: of the clock of servers."""
    return await _waiting(connection, _BACKFILLS, now)


async def evaluations(connection: DriverConnection) -> Waiting | None:
    """The customers whose changed facts are not evaluated yet, although any process may do that."""
    return await _waiting(connection, _EVALUATIONS)


async def _waiting(connection: DriverConnection, query: str, now: datetime | None = None) -> Waiting | None:
    cursor = await connection.execute(query.encode(), {"counted": COUNTED, "now": now})
    row = await cursor.fetchone()
    return None if row is None or row[0] is None else Waiting(row[1], row[0])


# The oldest due delivery of each endpoint that may get one now. The plan follows the index of waiting rows from
# endpoint to endpoint, as the claims do.
_DELIVERIES = f"""
WITH RECURSIVE {DUE_ENDPOINTS}
SELECT clock_timestamp() - min(next_attempt_time), count(*),
    (array_agg(endpoint_id ORDER BY next_attempt_time))[1]
FROM first_waiting JOIN due_endpoint USING (organization_id, endpoint_id)
JOIN endpoint USING (organization_id, endpoint_id)
WHERE {OPEN}
"""
_LEASES = """
SELECT clock_timestamp() - lease_expire_time FROM delivery_live
WHERE lease_token IS NOT NULL ORDER BY lease_expire_time LIMIT 1
"""


async def due_deliveries(connection: DriverConnection) -> Waiting | None:
    """The deliveries that are due and could be sent: `number` endpoints have some, `what` has the oldest."""
    row = await _of_queue(connection, _DELIVERIES)
    return None if row is None or row[0] is None else Waiting(row[1], row[0], row[2])


async def expired_lease(connection: DriverConnection) -> timedelta | None:
    """For how long the oldest lease of a delivery has been over; None or negative: none is."""
    row = await _of_queue(connection, _LEASES)
    return None if row is None else row[0]


async def _of_queue(connection: DriverConnection, query: str) -> Row | None:
    """The first row of a query about the delivery queue, which runs with the settings of the queue's statements."""
    async with connection.transaction():
        await connection.execute(SETTINGS)
        return await (await connection.execute(query.encode())).fetchone()


_FEED = """
SELECT organization_id, count(*) FROM (SELECT organization_id FROM feed_pending LIMIT %(counted)s) AS p
GROUP BY organization_id ORDER BY 2 DESC LIMIT 1
"""


async def unplaced_notifications(connection: DriverConnection) -> int:
    """The most notifications of one organization that have no position in its feed, of the first COUNTED of all."""
    cursor = await connection.execute(_FEED, {"counted": COUNTED})
    row = await cursor.fetchone()
    return 0 if row is None else int(row[1])


# The first notification of each feed, and those of them that show. Two statements: the tables may lie apart.
_FIRST_UNPLACED = """
SELECT DISTINCT ON (organization_id) organization_id, customer_id, notification_id
FROM (SELECT * FROM feed_pending ORDER BY organization_id, arrival LIMIT %(counted)s) AS p
ORDER BY organization_id, arrival
"""
_SHOWING = """
SELECT wanted.organization_id, wanted.notification_id
FROM unnest(%(organizations)s::bigint[], %(customers)s::text[], %(notifications)s::text[])
    AS wanted (organization_id, customer_id, notification_id)
JOIN notification n ON n.organization_id = wanted.organization_id AND n.customer_id = wanted.customer_id
    AND n.notification_id = wanted.notification_id
"""


async def unseen_notifications(connection: DriverConnection) -> set[tuple[int, str]]:
    """The notifications for which a feed waits, because they do not show: organization and notification."""
    first = await (await connection.execute(_FIRST_UNPLACED, {"counted": COUNTED})).fetchall()
    if not first:
        return set()
    organizations, customers, notifications = zip(*first, strict=True)
    cursor = await connection.execute(
        _SHOWING,
        {
            "organizations": list(organizations),
            "customers": list(customers),
            "notifications": list(notifications),
        },
    )
    wanted = set(zip(organizations, notifications, strict=True))
    return wanted - {(organization_id, notification_id) async for organization_id, notification_id in cursor}

"""The queue of deliveries: which are due, and who gets which under a lease.

Who is served next is decided when rows are claimed: the endpoints that have something due, the one that was
served longest ago first, and no more of each than its share of deliveries in flight. A flood for one endpoint
thus delays nobody else, and a hanging endpoint holds no more than its share.

All due times come from PostgreSQL's clock. What becomes of a claim is in `store.delivery_results`.
"""

import uuid
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

ENDPOINT_IN_FLIGHT_LIMIT = 4  # deliveries to one endpoint at a time, over all notifiers


@dataclass(frozen=True)
class Claim:
    """A delivery that this notifier may attempt until its lease ends."""

    organization_id: int
    delivery_id: str
    endpoint_id: str
    notification_id: str
    lease_token: uuid.UUID
    attempt_count: int  # attempts recorded so far
    age: timedelta  # since the delivery was created
    url: str
    body: str | None  # None: the notification is not there, which is our fault
    secrets: tuple[str, ...] = field(repr=False)  # newest first


@dataclass(frozen=True)
class Waiting:
    """Which kinds of work wait at this moment."""

    outbox: bool
    due: bool
    expired: bool


# The settings of every transaction of the queue, results included.
#
# Its commits do not wait for the disk. A crash of the database server can then lose the last moments of the
# queue, each transaction as a whole, and so only repeats work: outbox rows are fanned out again, deliveries are
# attempted again under the same ids. To wait would cost every notification two flushes on its way.
#
# Every row is reached by an index. The tables swing between empty and full, their statistics are always late, and
# a plan that was made while they were small reads all that was ever delivered, again and again.
SETTINGS = text("""
SELECT set_config('synchronous_commit', 'off', true), set_config('enable_seqscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)
""")

# The order makes the planner take the index of waiting rows; a plain EXISTS may walk through finished ones.
_FIRST_DUE = """
    SELECT FROM delivery_live AS delivery
    WHERE delivery.organization_id = endpoint.organization_id
      AND delivery.endpoint_id = endpoint.endpoint_id
      AND delivery.next_attempt_time <= now()
    ORDER BY delivery.next_attempt_time
    LIMIT 1
"""

_WAITING = text(f"""
SELECT EXISTS (SELECT FROM outbox) AS outbox,
       EXISTS (SELECT FROM endpoint CROSS JOIN LATERAL ({_FIRST_DUE}) AS first_due
               WHERE endpoint.state = 'ENABLED' AND endpoint.in_flight < :share) AS due,
       coalesce((SELECT lease_expire_time < now() FROM delivery_live
                 WHERE lease_token IS NOT NULL
                 ORDER BY lease_expire_time
                 LIMIT 1), false) AS expired
""")

# in_flight is a counter on the endpoint's row, not a count of leased rows: under the row's lock it is
# current, whereas a count would use the snapshot from before the lock and let two notifiers exceed the share.
_CLAIM = text(f"""
WITH open_endpoint AS MATERIALIZED (
    SELECT endpoint.organization_id, endpoint.endpoint_id, endpoint.url, endpoint.in_flight
    FROM endpoint CROSS JOIN LATERAL ({_FIRST_DUE}) AS first_due
    WHERE endpoint.state = 'ENABLED' AND endpoint.in_flight < :share
    ORDER BY endpoint.last_claim_time, endpoint.organization_id, endpoint.endpoint_id
    LIMIT :limit
    FOR NO KEY UPDATE OF endpoint SKIP LOCKED
), due AS MATERIALIZED (
    SELECT waiting.organization_id, waiting.delivery_id, open_endpoint.url
    FROM open_endpoint
    CROSS JOIN LATERAL (
        SELECT organization_id, delivery_id
        FROM delivery_live AS delivery
        WHERE delivery.organization_id = open_endpoint.organization_id
          AND delivery.endpoint_id = open_endpoint.endpoint_id
          AND delivery.next_attempt_time <= now()
        ORDER BY delivery.next_attempt_time
        LIMIT :share - open_endpoint.in_flight
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS waiting
    LIMIT :limit
), claimed AS (
    UPDATE delivery_live AS delivery
    SET next_attempt_time = NULL, lease_token = :token, lease_expire_time = now() + :lease
    FROM due
    WHERE delivery.organization_id = due.organization_id AND delivery.delivery_id = due.delivery_id
    RETURNING delivery.organization_id, delivery.delivery_id, delivery.endpoint_id, delivery.notification_id,
              delivery.customer_id, delivery.attempt_count, delivery.create_time, due.url
), counted AS (
    UPDATE endpoint
    SET in_flight = endpoint.in_flight + claims.number, last_claim_time = clock_timestamp()
    FROM (
        SELECT organization_id, endpoint_id, count(*) AS number
        FROM claimed
        GROUP BY organization_id, endpoint_id
    ) AS claims
    WHERE endpoint.organization_id = claims.organization_id AND endpoint.endpoint_id = claims.endpoint_id
)
SELECT claimed.organization_id, claimed.delivery_id, claimed.endpoint_id, claimed.notification_id,
       claimed.customer_id, claimed.attempt_count, now() - claimed.create_time AS age, claimed.url,
       ARRAY(
           SELECT secret FROM endpoint_secret
           WHERE endpoint_secret.organization_id = claimed.organization_id
             AND endpoint_secret.endpoint_id = claimed.endpoint_id
           ORDER BY sequence DESC
       ) AS secrets
FROM claimed
""")

# A statement of its own, since the notifications may live on other nodes than the queue.
_BODIES = text("""
SELECT organization_id, notification_id, body
FROM notification
JOIN unnest(CAST(:organizations AS bigint[]), CAST(:customers AS text[]), CAST(:notifications AS text[]))
    AS wanted (organization_id, customer_id, notification_id)
USING (organization_id, customer_id, notification_id)
""")


async def waiting(connection: AsyncConnection) -> Waiting:
    """Which kinds of work wait; the one question of an idle notifier."""
    row = (await connection.execute(_WAITING, {"share": ENDPOINT_IN_FLIGHT_LIMIT})).one()
    return Waiting(outbox=row.outbox, due=row.due, expired=row.expired)


async def claim(connection: AsyncConnection, *, limit: int, lease: timedelta) -> list[Claim]:
    """Claims up to `limit` due deliveries, fairly over endpoints, for the time of `lease`."""
    await connection.execute(SETTINGS)
    token = uuid.uuid4()
    parameters = {"limit": limit, "share": ENDPOINT_IN_FLIGHT_LIMIT, "token": token, "lease": lease}
    rows = (await connection.execute(_CLAIM, parameters)).all()
    if not rows:
        return []
    bodies = await connection.execute(
        _BODIES,
        {
            "organizations": [row.organization_id for row in rows],
            "customers": [row.customer_id for row in rows],
            "notifications": [row.notification_id for row in rows],
        },
    )
    body_of = {(row.organization_id, row.notification_id): row.body for row in bodies}
    return [
        Claim(
            organization_id=row.organization_id,
            delivery_id=row.delivery_id,
            endpoint_id=row.endpoint_id,
            notification_id=row.notification_id,
            lease_token=token,
            attempt_count=row.attempt_count,
            age=row.age,
            url=row.url,
            body=body_of.get((row.organization_id, row.notification_id)),
            secrets=tuple(row.secrets),
        )
        for row in rows
    ]

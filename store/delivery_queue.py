"""The queue of deliveries: claims under a lease, results, and leases that ran out.

Who is served next is decided when rows are claimed: the endpoints that have something due, the one that was
served longest ago first, and no more of each than its share of deliveries in flight. A flood for one endpoint
thus delays nobody else, and a hanging endpoint holds no more than its share.

Every transaction here locks endpoint rows before delivery rows, and several endpoint rows in the order of
their keys, or skips those that are locked: so none can wait for another in a circle. All due times come from
PostgreSQL's clock.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.deliveries import DeliveryStatus, Outcome
from store.endpoints import EndpointState, disable

ENDPOINT_IN_FLIGHT_LIMIT = 4  # deliveries to one endpoint at a time, over all notifiers
EXPIRED_LIMIT = 500  # leases given back in one transaction


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
class AttemptRecord:
    """What an attempt came to, and what becomes of its delivery."""

    claim: Claim
    start_time: datetime
    duration: timedelta
    outcome: Outcome
    http_status: int | None
    response_excerpt: str
    error: str
    status: DeliveryStatus
    delay: timedelta | None  # until the next attempt; set exactly while the status is PENDING
    disable_endpoint: bool = False


@dataclass(frozen=True)
class Waiting:
    """Which kinds of work wait at this moment."""

    outbox: bool
    due: bool
    expired: bool


# The settings of every transaction of the queue.
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
    SELECT FROM delivery
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
       coalesce((SELECT lease_expire_time < now() FROM delivery
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
        FROM delivery
        WHERE delivery.organization_id = open_endpoint.organization_id
          AND delivery.endpoint_id = open_endpoint.endpoint_id
          AND delivery.next_attempt_time <= now()
        ORDER BY delivery.next_attempt_time
        LIMIT :share - open_endpoint.in_flight
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS waiting
    LIMIT :limit
), claimed AS (
    UPDATE delivery
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

_LOCK_ENDPOINTS = """
SELECT organization_id, endpoint_id, state
FROM endpoint
JOIN unnest(CAST(:organizations AS bigint[]), CAST(:endpoints AS text[]))
    AS wanted (organization_id, endpoint_id)
USING (organization_id, endpoint_id)
ORDER BY organization_id, endpoint_id
FOR {strength} OF endpoint
"""
_LOCK = text(_LOCK_ENDPOINTS.format(strength="NO KEY UPDATE"))
# Keeps a fan-out from adding rows for an endpoint that is being disabled; see store.endpoints.
_LOCK_AGAINST_FAN_OUT = text(_LOCK_ENDPOINTS.format(strength="UPDATE"))

# The token fences off a notifier whose lease was taken over while it was paused: its late result matches
# no row.
_FINISH = text("""
UPDATE delivery
SET status = result.status,
    attempt_count = attempt_count + CASE WHEN result.attempted THEN 1 ELSE 0 END,
    next_attempt_time = CASE WHEN result.status = 'PENDING' THEN now() + result.delay END,
    finish_time = CASE WHEN result.status <> 'PENDING' THEN now() END,
    lease_token = NULL,
    lease_expire_time = NULL
FROM unnest(
    CAST(:organizations AS bigint[]), CAST(:deliveries AS text[]), CAST(:tokens AS uuid[]),
    CAST(:statuses AS text[]), CAST(:delays AS interval[]), CAST(:attempted AS boolean[])
) AS result (organization_id, delivery_id, lease_token, status, delay, attempted)
WHERE delivery.organization_id = result.organization_id
  AND delivery.delivery_id = result.delivery_id
  AND delivery.lease_token = result.lease_token
RETURNING delivery.organization_id, delivery.delivery_id, delivery.endpoint_id, delivery.attempt_count
""")

_ADD_ATTEMPTS = text("""
INSERT INTO attempt (organization_id, delivery_id, attempt_number, start_time, duration, outcome, http_status,
                     response_excerpt, error)
SELECT * FROM unnest(
    CAST(:organizations AS bigint[]), CAST(:deliveries AS text[]), CAST(:numbers AS integer[]),
    CAST(:start_times AS timestamptz[]), CAST(:durations AS interval[]), CAST(:outcomes AS text[]),
    CAST(:http_statuses AS integer[]), CAST(:response_excerpts AS text[]), CAST(:errors AS text[])
)
""")

_GIVE_SLOTS_BACK = text("""
UPDATE endpoint
SET in_flight = in_flight - slots.number
FROM unnest(CAST(:organizations AS bigint[]), CAST(:endpoints AS text[]), CAST(:numbers AS integer[]))
    AS slots (organization_id, endpoint_id, number)
WHERE endpoint.organization_id = slots.organization_id AND endpoint.endpoint_id = slots.endpoint_id
""")

_EXPIRED = text("""
SELECT organization_id, delivery_id, endpoint_id, lease_token
FROM delivery
WHERE lease_token IS NOT NULL AND lease_expire_time < now()
ORDER BY lease_expire_time
LIMIT :limit
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


async def record(connection: AsyncConnection, records: Sequence[AttemptRecord]) -> list[AttemptRecord]:
    """Writes the results of attempts; returns those that counted.

    A result whose lease has been taken over changes nothing and is left out. A delivery that would be tried
    again is cancelled instead when its endpoint is no longer enabled.
    """
    await connection.execute(SETTINGS)
    disables = any(record.disable_endpoint for record in records)
    enabled = await _lock_endpoints(connection, [record.claim for record in records], against_fan_out=disables)
    results = []
    for record in records:
        status = record.status
        goes_on = _endpoint_key(record.claim) in enabled
        if status is DeliveryStatus.PENDING and not goes_on:
            status = DeliveryStatus.CANCELLED
        results.append(_Result(record.claim, status, record.delay, attempted=True))
    numbers = await _finish(connection, results)
    written = [record for record in records if _delivery_key(record.claim) in numbers]
    await connection.execute(
        _ADD_ATTEMPTS,
        {
            "organizations": [record.claim.organization_id for record in written],
            "deliveries": [record.claim.delivery_id for record in written],
            "numbers": [numbers[_delivery_key(record.claim)] for record in written],
            "start_times": [record.start_time for record in written],
            "durations": [record.duration for record in written],
            "outcomes": [record.outcome for record in written],
            "http_statuses": [record.http_status for record in written],
            "response_excerpts": [record.response_excerpt for record in written],
            "errors": [record.error for record in written],
        },
    )
    for organization_id, endpoint_id in {
        _endpoint_key(record.claim) for record in written if record.disable_endpoint
    } & enabled:
        await disable(connection, organization_id, endpoint_id)
    return written


async def release(connection: AsyncConnection, claims: Sequence[Claim], *, delay: timedelta) -> int:
    """Gives claimed deliveries back without an attempt, due again after `delay`; returns how many."""
    await connection.execute(SETTINGS)
    return await _give_back(connection, claims, delay)


async def release_expired(connection: AsyncConnection) -> int:
    """Makes the deliveries due again whose lease ran out, because their notifier died; returns how many."""
    await connection.execute(SETTINGS)
    rows = await connection.execute(_EXPIRED, {"limit": EXPIRED_LIMIT})
    expired = [_Lease(*row) for row in rows]
    return await _give_back(connection, expired, timedelta()) if expired else 0


@dataclass(frozen=True)
class _Lease:
    """What identifies a lease; a Claim has the same fields and more."""

    organization_id: int
    delivery_id: str
    endpoint_id: str
    lease_token: uuid.UUID


@dataclass(frozen=True)
class _Result:
    lease: _Lease | Claim
    status: DeliveryStatus
    delay: timedelta | None
    attempted: bool


def _endpoint_key(lease: _Lease | Claim) -> tuple[int, str]:
    return lease.organization_id, lease.endpoint_id


def _delivery_key(lease: _Lease | Claim) -> tuple[int, str]:
    return lease.organization_id, lease.delivery_id


async def _give_back(
    connection: AsyncConnection, leases: Sequence[_Lease] | Sequence[Claim], delay: timedelta
) -> int:
    enabled = await _lock_endpoints(connection, leases)
    results = [
        _Result(lease, DeliveryStatus.PENDING, delay, attempted=False)
        if _endpoint_key(lease) in enabled
        else _Result(lease, DeliveryStatus.CANCELLED, None, attempted=False)
        for lease in leases
    ]
    return len(await _finish(connection, results))


async def _lock_endpoints(
    connection: AsyncConnection, leases: Sequence[_Lease | Claim], *, against_fan_out: bool = False
) -> set[tuple[int, str]]:
    """Locks the endpoints of `leases` in the order of their keys; returns those that are enabled."""
    keys = sorted({_endpoint_key(lease) for lease in leases})
    rows = await connection.execute(
        _LOCK_AGAINST_FAN_OUT if against_fan_out else _LOCK,
        {"organizations": [key[0] for key in keys], "endpoints": [key[1] for key in keys]},
    )
    return {(row.organization_id, row.endpoint_id) for row in rows if row.state == EndpointState.ENABLED}


async def _finish(connection: AsyncConnection, results: Sequence[_Result]) -> dict[tuple[int, str], int]:
    """Ends leases that still stand, and frees their slots; returns the attempt count of each delivery."""
    rows = (
        await connection.execute(
            _FINISH,
            {
                "organizations": [result.lease.organization_id for result in results],
                "deliveries": [result.lease.delivery_id for result in results],
                "tokens": [result.lease.lease_token for result in results],
                "statuses": [result.status for result in results],
                "delays": [result.delay for result in results],
                "attempted": [result.attempted for result in results],
            },
        )
    ).all()
    slots = Counter((row.organization_id, row.endpoint_id) for row in rows)
    await connection.execute(
        _GIVE_SLOTS_BACK,
        {
            "organizations": [key[0] for key in slots],
            "endpoints": [key[1] for key in slots],
            "numbers": list(slots.values()),
        },
    )
    return {(row.organization_id, row.delivery_id): row.attempt_count for row in rows}

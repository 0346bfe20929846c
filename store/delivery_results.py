"""What becomes of claimed deliveries: results of attempts, claims given back, and leases that ran out.

Every transaction of the queue locks endpoint rows before delivery rows, and several endpoint rows in the order of
their keys, or skips those that are locked: so none can wait for another in a circle.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.deliveries import DeliveryStatus, Outcome
from store.delivery_queue import SETTINGS, Claim
from store.endpoints import EndpointState, disable

EXPIRED_LIMIT = 500  # leases given back in one transaction


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
#
# What is finished moves to the partition of today by a delete and an insert. An UPDATE could move it too, but then a
# claim with an older snapshot that comes across the row fails instead of passing it by.
_FINISH = text("""
WITH result AS MATERIALIZED (
    SELECT * FROM unnest(
        CAST(:organizations AS bigint[]), CAST(:deliveries AS text[]), CAST(:tokens AS uuid[]),
        CAST(:statuses AS text[]), CAST(:delays AS interval[]), CAST(:steps AS integer[]),
        CAST(:attempts AS integer[])
    ) AS result (organization_id, delivery_id, lease_token, status, delay, steps, attempts)
), waits AS (
    UPDATE delivery_live AS delivery
    SET attempt_count = delivery.attempt_count + result.attempts,
        schedule_step = delivery.schedule_step + result.steps,
        next_attempt_time = now() + result.delay,
        lease_token = NULL,
        lease_expire_time = NULL
    FROM result
    WHERE result.status = 'PENDING'
      AND delivery.organization_id = result.organization_id
      AND delivery.delivery_id = result.delivery_id
      AND delivery.lease_token = result.lease_token
    RETURNING delivery.organization_id, delivery.delivery_id, delivery.endpoint_id, delivery.attempt_count
), taken AS (
    DELETE FROM delivery_live AS delivery
    USING result
    WHERE result.status <> 'PENDING'
      AND delivery.organization_id = result.organization_id
      AND delivery.delivery_id = result.delivery_id
      AND delivery.lease_token = result.lease_token
    RETURNING delivery.organization_id, delivery.delivery_id, delivery.endpoint_id, delivery.notification_id,
              delivery.customer_id, delivery.event_type, result.status, delivery.trigger, delivery.idempotency_key,
              delivery.attempt_count + result.attempts AS attempt_count,
              delivery.schedule_step + result.steps AS schedule_step, delivery.create_time
), finished AS (
    INSERT INTO delivery (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type,
                          status, trigger, idempotency_key, attempt_count, schedule_step, create_time,
                          finish_time, finish_day)
    SELECT taken.*, now(), current_date FROM taken
    ON CONFLICT DO NOTHING
)
SELECT organization_id, delivery_id, endpoint_id, attempt_count FROM waits
UNION ALL
SELECT organization_id, delivery_id, endpoint_id, attempt_count FROM taken
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
FROM delivery_live
WHERE lease_token IS NOT NULL AND lease_expire_time < now()
ORDER BY lease_expire_time
LIMIT :limit
""")


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
                "steps": [int(result.attempted) for result in results],
                "attempts": [int(result.attempted) for result in results],
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

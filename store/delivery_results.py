"""What becomes of claimed deliveries: results of attempts, claims given back, and leases that ran out.

Every transaction of the queue locks endpoint rows before delivery rows, and several endpoint rows in the order of
their keys, or skips those that are locked: so none can wait for another in a circle. A lock that has to become
stronger, because its endpoint is disabled, does so in that order too.
"""

import random
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store import operator_events
from store.deliveries import DeliveryStatus, Outcome
from store.delivery_queue import SETTINGS, Claim
from store.endpoint_health import BreakerState, Finding, Health, Verdict
from store.endpoints import EndpointState, disable
from store.operator_events import OperatorEvent

EXPIRED_LIMIT = 500  # leases given back in one transaction
AUTOMATIC = "AUTOMATIC"  # the trigger of deliveries that nobody asked for


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
    verdict: Verdict  # on the endpoint
    retry_after: timedelta | None = None  # what the receiver asked for
    remote_address: str = ""
    secret_sequences: tuple[int, ...] = ()  # which of the endpoint's secrets signed it

    @property
    def finding(self) -> Finding:
        """What it says about the endpoint."""
        exhausted = self.status is DeliveryStatus.FAILED and self.verdict is Verdict.FAILED
        about = {
            "delivery_id": self.claim.delivery_id,
            "notification_id": self.claim.notification_id,
            "attempt_count": self.claim.attempt_count + 1,
        }
        return Finding(
            self.verdict,
            automatic=self.claim.trigger == AUTOMATIC,
            exhausted=exhausted,
            retry_after=self.retry_after,
            delivery=about if exhausted else {},
        )


_LOCK_ENDPOINTS = """
SELECT organization_id, endpoint_id, state, max_in_flight, not_before, throttle_count, breaker_state, breaker_until,
       breaker_failures, breaker_openings, breaker_window, failing_since, failure_count, last_success_time,
       warned_percent, exhaustion_noted, now() AS now
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
        -- What somebody asked for was one try; the schedule goes on by itself, and so do its effects on health.
        trigger = CASE WHEN result.steps > 0 AND delivery.trigger <> 'TEST' THEN 'AUTOMATIC'
                       ELSE delivery.trigger END,
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
INSERT INTO attempt (organization_id, delivery_id, attempt_number, trigger, start_time, duration, outcome,
                     http_status, remote_address, response_excerpt, error, secret_sequences)
SELECT organization_id, delivery_id, attempt_number, trigger, start_time, duration, outcome, http_status,
       remote_address, response_excerpt, error, string_to_array(secret_sequences, ',')::integer[]
FROM unnest(
    CAST(:organizations AS bigint[]), CAST(:deliveries AS text[]), CAST(:numbers AS integer[]),
    CAST(:triggers AS text[]), CAST(:start_times AS timestamptz[]), CAST(:durations AS interval[]),
    CAST(:outcomes AS text[]), CAST(:http_statuses AS integer[]), CAST(:remote_addresses AS text[]),
    CAST(:response_excerpts AS text[]), CAST(:errors AS text[]), CAST(:secret_sequences AS text[])
) AS fresh (organization_id, delivery_id, attempt_number, trigger, start_time, duration, outcome, http_status,
            remote_address, response_excerpt, error, secret_sequences)
ON CONFLICT DO NOTHING
""")

_GIVE_SLOTS_BACK = text("""
UPDATE endpoint
SET in_flight = in_flight - slots.number
FROM unnest(CAST(:organizations AS bigint[]), CAST(:endpoints AS text[]), CAST(:numbers AS integer[]))
    AS slots (organization_id, endpoint_id, number)
WHERE endpoint.organization_id = slots.organization_id AND endpoint.endpoint_id = slots.endpoint_id
""")

_SET_HEALTH = text("""
UPDATE endpoint
SET not_before = health.not_before,
    throttle_count = health.throttle_count,
    breaker_state = health.breaker_state,
    breaker_until = health.breaker_until,
    breaker_failures = health.breaker_failures,
    breaker_openings = health.breaker_openings,
    breaker_window = health.breaker_window,
    failing_since = health.failing_since,
    failure_count = health.failure_count,
    last_success_time = health.last_success_time,
    warned_percent = health.warned_percent,
    exhaustion_noted = health.exhaustion_noted
FROM unnest(
    CAST(:organizations AS bigint[]), CAST(:endpoints AS text[]), CAST(:not_before AS timestamptz[]),
    CAST(:throttle_count AS integer[]), CAST(:breaker_state AS text[]), CAST(:breaker_until AS timestamptz[]),
    CAST(:breaker_failures AS integer[]), CAST(:breaker_openings AS integer[]), CAST(:breaker_window AS integer[]),
    CAST(:failing_since AS timestamptz[]), CAST(:failure_count AS integer[]),
    CAST(:last_success_time AS timestamptz[]), CAST(:warned_percent AS integer[]),
    CAST(:exhaustion_noted AS boolean[])
) AS health (organization_id, endpoint_id, not_before, throttle_count, breaker_state, breaker_until,
             breaker_failures, breaker_openings, breaker_window, failing_since, failure_count, last_success_time,
             warned_percent, exhaustion_noted)
WHERE endpoint.organization_id = health.organization_id AND endpoint.endpoint_id = health.endpoint_id
""")
# What _SET_HEALTH writes; the owner's limit is only read, and disabling is another statement's matter.
_HEALTH_COLUMNS = [field.name for field in fields(Health) if field.name not in ("max_in_flight", "disable_reason")]

_EXPIRED = text("""
SELECT organization_id, delivery_id, endpoint_id, lease_token
FROM delivery_live
WHERE lease_token IS NOT NULL AND lease_expire_time < now()
ORDER BY lease_expire_time
LIMIT :limit
""")


_Endpoints = dict[tuple[int, str], Row[Any]]  # by key: what _LOCK found


async def record(
    connection: AsyncConnection, records: Sequence[AttemptRecord], randomness: random.Random | None = None
) -> list[AttemptRecord]:
    """Writes the results of attempts; returns those that counted.

    A result whose lease has been taken over changes nothing and is left out. A delivery that would be tried
    again is cancelled instead when its endpoint is no longer enabled. The health of the endpoints follows, and
    operators are told of what it comes to.
    """
    await connection.execute(SETTINGS)
    endpoints = await _lock_endpoints(connection, [_endpoint_key(record.claim) for record in records])
    results = []
    for record in records:
        status = record.status
        if status is DeliveryStatus.PENDING and not _is_enabled(endpoints, record.claim):
            status = DeliveryStatus.CANCELLED
        # Back-pressure is recorded as an attempt, but the schedule does not count it.
        step = 0 if record.verdict is Verdict.THROTTLED else 1
        results.append(_Result(record.claim, status, record.delay, attempts=1, steps=step))
    numbers = await _finish(connection, results)
    written = [record for record in records if _delivery_key(record.claim) in numbers]
    if not written:
        return []
    await connection.execute(
        _ADD_ATTEMPTS,
        {
            "organizations": [record.claim.organization_id for record in written],
            "deliveries": [record.claim.delivery_id for record in written],
            "numbers": [numbers[_delivery_key(record.claim)] for record in written],
            "triggers": [record.claim.trigger for record in written],
            "start_times": [record.start_time for record in written],
            "durations": [record.duration for record in written],
            "outcomes": [record.outcome for record in written],
            "http_statuses": [record.http_status for record in written],
            "remote_addresses": [record.remote_address for record in written],
            "response_excerpts": [record.response_excerpt for record in written],
            "errors": [record.error for record in written],
            "secret_sequences": [",".join(map(str, record.secret_sequences)) for record in written],
        },
    )
    await _judge(connection, endpoints, written, randomness or random.Random())
    return written


async def _judge(
    connection: AsyncConnection,
    endpoints: _Endpoints,
    written: Sequence[AttemptRecord],
    randomness: random.Random,
) -> None:
    """Brings the health of the endpoints up to date; disables those that have to be."""
    judged: dict[tuple[int, str], Health] = {}
    events = []
    for record in sorted(written, key=lambda record: record.start_time):
        key = _endpoint_key(record.claim)
        if not _is_enabled(endpoints, record.claim):
            continue
        row = endpoints[key]
        health = judged.get(key) or _health(row)
        judged[key], notices = health.after(record.finding, row.now, randomness)
        events += [OperatorEvent(record.claim.organization_id, record.claim.endpoint_id, one) for one in notices]
    changed = {key: health for key, health in sorted(judged.items()) if health != _health(endpoints[key])}
    if changed:
        await connection.execute(
            _SET_HEALTH,
            {
                "organizations": [key[0] for key in changed],
                "endpoints": [key[1] for key in changed],
                **{name: [getattr(health, name) for health in changed.values()] for name in _HEALTH_COLUMNS},
            },
        )
    disabled = {key: health for key, health in changed.items() if health.disable_reason is not None}
    if disabled:
        await _lock_endpoints(connection, disabled, against_fan_out=True)
        for (organization_id, endpoint_id), health in disabled.items():
            assert health.disable_reason is not None
            await disable(connection, organization_id, endpoint_id, reason=health.disable_reason)
    if events:
        await operator_events.add(connection, events, next(iter(endpoints.values())).now)


def _health(row: Row[Any]) -> Health:
    columns = {name: getattr(row, name) for name in _HEALTH_COLUMNS}
    return Health(max_in_flight=row.max_in_flight, **{**columns, "breaker_state": BreakerState(row.breaker_state)})


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
    attempts: int = 0  # that were made
    steps: int = 0  # that the schedule counts


def _endpoint_key(lease: _Lease | Claim) -> tuple[int, str]:
    return lease.organization_id, lease.endpoint_id


def _delivery_key(lease: _Lease | Claim) -> tuple[int, str]:
    return lease.organization_id, lease.delivery_id


def _is_enabled(endpoints: _Endpoints, lease: _Lease | Claim) -> bool:
    row = endpoints.get(_endpoint_key(lease))
    return row is not None and row.state == EndpointState.ENABLED


async def _give_back(
    connection: AsyncConnection, leases: Sequence[_Lease] | Sequence[Claim], delay: timedelta
) -> int:
    endpoints = await _lock_endpoints(connection, [_endpoint_key(lease) for lease in leases])
    results = [
        _Result(lease, DeliveryStatus.PENDING, delay)
        if _is_enabled(endpoints, lease)
        else _Result(lease, DeliveryStatus.CANCELLED, None)
        for lease in leases
    ]
    return len(await _finish(connection, results))


async def _lock_endpoints(
    connection: AsyncConnection, keys: Iterable[tuple[int, str]], *, against_fan_out: bool = False
) -> _Endpoints:
    """Locks endpoints in the order of their keys; returns what is known about them."""
    ordered = sorted(set(keys))
    rows = await connection.execute(
        _LOCK_AGAINST_FAN_OUT if against_fan_out else _LOCK,
        {"organizations": [key[0] for key in ordered], "endpoints": [key[1] for key in ordered]},
    )
    return {(row.organization_id, row.endpoint_id): row for row in rows}


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
                "steps": [result.steps for result in results],
                "attempts": [result.attempts for result in results],
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

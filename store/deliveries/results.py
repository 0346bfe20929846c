"""What becomes of claimed deliveries: results of attempts, claims given back, and leases that ran out.

Endpoint rows are locked first, see `store.endpoints.locks`; leases are given and ended only under that lock.
"""

import random
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, cast

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.deliveries import queue as delivery_queue
from store.deliveries.queue import SETTINGS, Claim, Order, Ordered
from store.endpoints import locks as endpoint_locks
from store.postgres.channels import announce_due_deliveries
from store.postgres.database import driver
from webhooks.deliveries import DeliveryStatus, Outcome
from webhooks.health import Finding, Verdict

RELEASE_LIMIT = 500  # leases given back in one transaction
AUTOMATIC = "AUTOMATIC"  # the trigger of deliveries that nobody asked for


@dataclass(slots=True, eq=False)
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


# The token fences off a notifier whose lease was taken over while it was paused: its late result matches
# no row.
#
# Rows are found by their keys one by one, and then named by their places. Leases change under the endpoint's lock
# only, so a row stays where it was found; and there is no other way to reach it that the planner could prefer.
#
# What is finished moves to the partition of today by a delete and an insert. An UPDATE could move it too, but then a
# claim with an older snapshot that comes across the row fails instead of passing it by.
#
# A delivery that would be tried again is cancelled when its endpoint is no longer enabled; the endpoints are locked.
_FINISH = """
WITH result AS MATERIALIZED (
    SELECT given.*,
           given.status = 'PENDING' AND coalesce(endpoint.state = 'ENABLED', false) AS goes_on,
           CASE given.status WHEN 'PENDING' THEN 'CANCELLED' ELSE given.status END AS last_status
    FROM json_to_recordset(%(results)s::json) AS given (
        organization_id bigint, delivery_id text, endpoint_id text, lease_token uuid, status text, delay_us bigint,
        steps integer, attempts integer, trigger text, start_time timestamptz, duration_us bigint, outcome text,
        http_status integer, remote_address text, response_excerpt text, error text, secret_sequences integer[]
    )
    LEFT JOIN endpoint USING (organization_id, endpoint_id)
), held AS MATERIALIZED (
    SELECT result.*, live.place
    FROM result
    CROSS JOIN LATERAL (
        SELECT delivery.ctid AS place
        FROM delivery_live AS delivery
        WHERE delivery.organization_id = result.organization_id
          AND delivery.delivery_id BETWEEN result.delivery_id AND result.delivery_id
          AND delivery.lease_token IS NOT DISTINCT FROM result.lease_token
        ORDER BY delivery.delivery_id
        LIMIT 1
    ) AS live
), goes_on AS (
    UPDATE delivery_live AS delivery
    SET attempt_count = delivery.attempt_count + held.attempts,
        schedule_step = delivery.schedule_step + held.steps,
        next_attempt_time = now() + held.delay_us * interval '1 microsecond',
        -- What somebody asked for was one try; the schedule goes on by itself, and so do its effects on health.
        trigger = CASE WHEN held.steps > 0 AND delivery.trigger <> 'TEST' THEN 'AUTOMATIC'
                       ELSE delivery.trigger END,
        lease_token = NULL,
        lease_expire_time = NULL
    FROM held
    WHERE held.goes_on
      AND delivery.ctid = held.place
    RETURNING held.*, delivery.attempt_count AS attempt_number
), taken AS (
    DELETE FROM delivery_live AS delivery
    USING held
    WHERE NOT held.goes_on
      AND delivery.ctid = held.place
    RETURNING held.*, delivery.attempt_count + held.attempts AS attempt_number, delivery.notification_id,
              delivery.customer_id, delivery.event_type, delivery.trigger AS last_trigger,
              delivery.idempotency_key, delivery.schedule_step + held.steps AS schedule_step, delivery.create_time
), finished AS (
    INSERT INTO delivery (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type,
                          status, trigger, idempotency_key, attempt_count, schedule_step, create_time,
                          finish_time, finish_day)
    SELECT organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type,
           last_status, last_trigger, idempotency_key, attempt_number, schedule_step, create_time,
           now(), current_date
    FROM taken
    ON CONFLICT DO NOTHING
), ended AS (
    SELECT organization_id, delivery_id, endpoint_id, attempts, attempt_number, trigger, start_time, duration_us,
           outcome, http_status, remote_address, response_excerpt, error, secret_sequences
    FROM goes_on
    UNION ALL
    SELECT organization_id, delivery_id, endpoint_id, attempts, attempt_number, trigger, start_time, duration_us,
           outcome, http_status, remote_address, response_excerpt, error, secret_sequences
    FROM taken
), tried AS (
    INSERT INTO attempt (organization_id, delivery_id, attempt_number, trigger, start_time, duration, outcome,
                         http_status, remote_address, response_excerpt, error, secret_sequences)
    SELECT organization_id, delivery_id, attempt_number, trigger, start_time,
           duration_us * interval '1 microsecond', outcome, http_status, remote_address, response_excerpt, error,
           secret_sequences
    FROM ended
    WHERE attempts > 0
    ON CONFLICT DO NOTHING
), slots_given_back AS (
    UPDATE endpoint
    SET in_flight = in_flight - slots.number
    FROM (
        SELECT organization_id, endpoint_id, count(*) AS number FROM ended GROUP BY organization_id, endpoint_id
    ) AS slots
    WHERE endpoint.organization_id = slots.organization_id AND endpoint.endpoint_id = slots.endpoint_id
)
SELECT organization_id, delivery_id FROM ended
"""

_EXPIRED = text("""
SELECT organization_id, delivery_id, endpoint_id, lease_token
FROM delivery_live
WHERE lease_token IS NOT NULL AND lease_expire_time < now()
ORDER BY lease_expire_time
LIMIT :limit
""")

# Reads every leased row, since no index has the tokens. The order is that of the index of leased rows, as in
# _EXPIRED: the planner can take no other index.
_LEASED = text("""
SELECT organization_id, delivery_id, endpoint_id, lease_token
FROM delivery_live
WHERE lease_token IS NOT NULL
  AND lease_token >= :first_token AND lease_token < :end_token
  AND lease_token <> ALL (CAST(:open_tokens AS uuid[]))
ORDER BY lease_expire_time
""")

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Recorded:
    """Which results counted, and what was claimed with them; claims is None when that was not asked for."""

    written: list[AttemptRecord]
    claims: list[Claim] | None = None


@dataclass(frozen=True)
class Holdings:
    """What a notifier knows of its leases.

    Its tokens are those from `first_token` to before `end_token`. open_tokens: of claims that are being made.
    claims: those whose result is not written.
    """

    first_token: uuid.UUID
    end_token: uuid.UUID
    open_tokens: Collection[uuid.UUID]
    claims: Collection[Claim]


async def record(
    connection: AsyncConnection,
    records: Sequence[AttemptRecord],
    randomness: random.Random | None = None,
    order: Order | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Recorded:
    """Writes the results of attempts, and then claims what is ordered; `meanwhile` is called as PostgreSQL does so.

    A result whose lease has been taken over changes nothing and is left out. A delivery that would be tried
    again is cancelled instead when its endpoint is no longer enabled. The health of the endpoints follows, and
    operators are told of what it comes to.
    """
    # A success closes no endpoint, so that the claim need not wait for the judgement, and travels with the results.
    together = order if all(record.verdict is Verdict.SUCCEEDED for record in records) else None
    results = [_result(record) for record in records]
    endpoints, ended, ordered = await _finish(connection, results, together, meanwhile)
    written = [record for record in records if (record.claim.organization_id, record.claim.delivery_id) in ended]
    findings = [
        ((record.claim.organization_id, record.claim.endpoint_id), record.finding)
        for record in sorted(written, key=lambda record: record.start_time)
    ]
    await endpoint_locks.judge(connection, endpoints, findings, randomness or random.Random())
    if ordered is not None:
        return Recorded(written, await delivery_queue.claims_of(await driver(connection), ordered))
    return Recorded(written, None if order is None else await delivery_queue.claim(connection, order))


async def release(connection: AsyncConnection, claims: Sequence[Claim], *, delay: timedelta) -> int:
    """Gives claimed deliveries back without an attempt, due again after `delay`; returns how many."""
    number = await _give_back(connection, [_lease(claim) for claim in claims], delay)
    if number and not delay:
        await announce_due_deliveries(connection)
    return number


async def release_expired(connection: AsyncConnection) -> int:
    """Makes the deliveries due again whose lease ran out, because their notifier died; returns how many."""
    await connection.execute(text(SETTINGS))
    rows = await connection.execute(_EXPIRED, {"limit": RELEASE_LIMIT})
    return await _give_back_all(connection, [_Lease(*row) for row in rows])


async def release_orphaned(connection: AsyncConnection, holdings: Holdings) -> int:
    """Makes the deliveries due again that are leased under a notifier's tokens, but that it does not know.

    Returns how many, at most RELEASE_LIMIT.
    """
    await connection.execute(text(SETTINGS))
    rows = await connection.execute(
        _LEASED,
        {
            "first_token": holdings.first_token,
            "end_token": holdings.end_token,
            "open_tokens": list(holdings.open_tokens),
        },
    )
    known = {_lease(claim) for claim in holdings.claims}
    orphaned = [lease for row in rows if (lease := _Lease(*row)) not in known]
    number = await _give_back_all(connection, orphaned[:RELEASE_LIMIT])
    if number:
        await announce_due_deliveries(connection)
    return number


class _Lease(NamedTuple):
    """What identifies a lease."""

    organization_id: int
    delivery_id: str
    endpoint_id: str
    lease_token: uuid.UUID


def _lease(claim: Claim) -> _Lease:
    return _Lease(claim.organization_id, claim.delivery_id, claim.endpoint_id, claim.lease_token)


_Result = dict[str, object]  # an element of the statement's input


def _result(record: AttemptRecord) -> _Result:
    claim = record.claim
    return {
        "organization_id": claim.organization_id,
        "delivery_id": claim.delivery_id,
        "endpoint_id": claim.endpoint_id,
        "lease_token": claim.lease_token,
        "status": record.status,
        "delay_us": None if record.delay is None else record.delay // _MICROSECOND,
        "attempts": 1,
        # Back-pressure is recorded as an attempt, but the schedule does not count it.
        "steps": 0 if record.verdict is Verdict.THROTTLED else 1,
        "trigger": claim.trigger,
        "start_time": record.start_time,
        "duration_us": record.duration // _MICROSECOND,
        "outcome": record.outcome,
        "http_status": record.http_status,
        "remote_address": record.remote_address,
        "response_excerpt": record.response_excerpt,
        "error": record.error,
        "secret_sequences": record.secret_sequences,
    }


async def _give_back_all(connection: AsyncConnection, leases: Sequence[_Lease]) -> int:
    """Gives back what was found, in the order of the keys, in which the recorder writes results, too."""
    return await _give_back(connection, sorted(leases), timedelta()) if leases else 0


async def _give_back(connection: AsyncConnection, leases: Sequence[_Lease], delay: timedelta) -> int:
    returned: _Result = {
        "status": DeliveryStatus.PENDING,
        "delay_us": delay // _MICROSECOND,
        "attempts": 0,
        "steps": 0,
    }
    _, ended, _ = await _finish(connection, [lease._asdict() | returned for lease in leases])
    return len(ended)


async def _finish(
    connection: AsyncConnection,
    results: Sequence[_Result],
    order: Order | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> tuple[endpoint_locks.Locked, set[tuple[int, str]], Ordered | None]:
    """Locks the endpoints, ends leases that still stand and frees their slots.

    Returns the endpoints, the keys of the deliveries whose leases stood, and the claim if one was ordered.
    """
    raw = await driver(connection)
    keys = {(cast(int, result["organization_id"]), cast(str, result["endpoint_id"])) for result in results}
    # Nothing here needs an answer before the next statement, so they travel together.
    async with raw.pipeline():
        await raw.execute(SETTINGS)
        lock = await endpoint_locks.lock(raw, keys)
        finish = await raw.execute(_FINISH, {"results": orjson.dumps(results).decode()})
        ordered = None if order is None else await delivery_queue.place(raw, order)
        meanwhile()  # all of it has been sent
        endpoints = await endpoint_locks.locked(lock)
        ended = set(await finish.fetchall())
    return endpoints, cast(set[tuple[int, str]], ended), ordered

"""The end of claims, in one statement: leases end, attempts are stored, finished deliveries move to their day.

`results` ends claims with the result of an attempt, `leases` without one. Endpoint rows are locked first, see
`store.endpoints.locks`; leases begin and end only under that lock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import orjson
import psycopg

from store.deliveries.queue import SETTINGS
from store.endpoints import locks as endpoint_locks
from store.endpoints.locks import LockedRows
from store.postgres.database import DriverConnection

MICROSECOND = timedelta(microseconds=1)

Ending = Mapping[str, object]  # the end of one claim: an element of the JSON that _RESULT takes apart

# The ends of claims as rows. A delivery that would be attempted again is cancelled when its endpoint is no longer
# enabled; the endpoint is locked.
_RESULT = """
result AS MATERIALIZED (
    SELECT given.*,
           given.status = 'PENDING' AND coalesce(endpoint.state = 'ENABLED', false) AS goes_on,
           CASE given.status WHEN 'PENDING' THEN 'CANCELLED' ELSE given.status END AS last_status
    FROM json_to_recordset(%(results)s::json) AS given (
        organization_id bigint, delivery_id text, endpoint_id text, lease_token uuid, status text, delay_us bigint,
        steps integer, attempts integer, trigger text, start_time timestamptz, duration_us bigint, outcome text,
        http_status integer, remote_address text, response_excerpt text, error text, secret_sequences integer[]
    )
    LEFT JOIN endpoint USING (organization_id, endpoint_id)
)
"""

# Those whose lease still stands. The token fences off a notifier whose lease was taken over while it was paused: its
# late result matches no row.
#
# Rows are found by their keys one by one, and are then named by their ctid. Leases change only under the lock of the
# endpoint, so a row stays where it was found; and the planner can choose no other way to it.
_HELD = """
held AS MATERIALIZED (
    SELECT result.*, live.row_ctid
    FROM result
    CROSS JOIN LATERAL (
        SELECT delivery.ctid AS row_ctid
        FROM delivery_live AS delivery
        WHERE delivery.organization_id = result.organization_id
          AND delivery.delivery_id BETWEEN result.delivery_id AND result.delivery_id
          AND delivery.lease_token IS NOT DISTINCT FROM result.lease_token
        ORDER BY delivery.delivery_id
        LIMIT 1
    ) AS live
)
"""

# Deliveries that are attempted again. A person asked for one attempt only: after it the schedule continues on its
# own, and so do its effects on the endpoint's health.
_GOES_ON = """
goes_on AS (
    UPDATE delivery_live AS delivery
    SET attempt_count = delivery.attempt_count + held.attempts,
        schedule_step = delivery.schedule_step + held.steps,
        next_attempt_time = now() + held.delay_us * interval '1 microsecond',
        trigger = CASE WHEN held.steps > 0 AND delivery.trigger <> 'TEST' THEN 'AUTOMATIC'
                       ELSE delivery.trigger END,
        lease_token = NULL,
        lease_expire_time = NULL
    FROM held
    WHERE held.goes_on
      AND delivery.ctid = held.row_ctid
    RETURNING held.*, delivery.attempt_count AS attempt_number
)
"""

# Deliveries that are finished move to the partition of today, by a delete and an insert. An UPDATE could move them,
# too, but a claim with an older snapshot that met such a row would fail instead of skipping it.
_TAKEN = """
taken AS (
    DELETE FROM delivery_live AS delivery
    USING held
    WHERE NOT held.goes_on
      AND delivery.ctid = held.row_ctid
    RETURNING held.*, delivery.attempt_count + held.attempts AS attempt_number, delivery.notification_id,
              delivery.customer_id, delivery.event_type, delivery.trigger AS last_trigger,
              delivery.idempotency_key, delivery.schedule_step + held.steps AS schedule_step, delivery.create_time
)
"""

_FINISHED = """
finished AS (
    INSERT INTO delivery (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type,
                          status, trigger, idempotency_key, attempt_count, schedule_step, create_time,
                          finish_time, finish_day)
    SELECT organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type,
           last_status, last_trigger, idempotency_key, attempt_number, schedule_step, create_time,
           now(), current_date
    FROM taken
    ON CONFLICT DO NOTHING
)
"""

# Both kinds: all claims that ended here.
_ENDED_COLUMNS = """
    organization_id, delivery_id, endpoint_id, attempts, attempt_number, trigger, start_time, duration_us,
    outcome, http_status, remote_address, response_excerpt, error, secret_sequences
"""
_ENDED = f"""
ended AS (
    SELECT {_ENDED_COLUMNS}
    FROM goes_on
    UNION ALL
    SELECT {_ENDED_COLUMNS}
    FROM taken
)
"""

# Their attempts; a claim that was given back has none.
_TRIED = """
tried AS (
    INSERT INTO attempt (organization_id, delivery_id, attempt_number, trigger, start_time, duration, outcome,
                         http_status, remote_address, response_excerpt, error, secret_sequences)
    SELECT organization_id, delivery_id, attempt_number, trigger, start_time,
           duration_us * interval '1 microsecond', outcome, http_status, remote_address, response_excerpt, error,
           secret_sequences
    FROM ended
    WHERE attempts > 0
    ON CONFLICT DO NOTHING
)
"""

# Their places in the share of their endpoints.
_SLOTS_GIVEN_BACK = """
slots_given_back AS (
    UPDATE endpoint
    SET in_flight = in_flight - slots.number
    FROM (
        SELECT organization_id, endpoint_id, count(*) AS number FROM ended GROUP BY organization_id, endpoint_id
    ) AS slots
    WHERE endpoint.organization_id = slots.organization_id AND endpoint.endpoint_id = slots.endpoint_id
)
"""

_FINISH = f"""
WITH {_RESULT}, {_HELD}, {_GOES_ON}, {_TAKEN}, {_FINISHED}, {_ENDED}, {_TRIED}, {_SLOTS_GIVEN_BACK}
SELECT organization_id, delivery_id FROM ended
""".encode()


@dataclass(frozen=True)
class SentEndings:
    """Ends of claims that have been sent to PostgreSQL, and whose answers can be read."""

    lock: psycopg.AsyncCursor[Any]
    finish: psycopg.AsyncCursor[Any]


@dataclass(frozen=True)
class Ended:
    """The claims whose lease stood and has ended: organization_id and delivery_id. endpoints: the locked rows."""

    endpoints: LockedRows
    deliveries: set[tuple[int, str]]


async def send_endings(connection: DriverConnection, endings: Sequence[Ending]) -> SentEndings:
    """Sends, within a pipeline, what locks the endpoints, ends the leases and frees their slots."""
    keys = {(cast(int, ending["organization_id"]), cast(str, ending["endpoint_id"])) for ending in endings}
    await connection.execute(SETTINGS)
    lock = await endpoint_locks.lock(connection, keys)
    finish = await connection.execute(_FINISH, {"results": orjson.dumps(endings).decode()})
    return SentEndings(lock, finish)


async def read_ended(sent: SentEndings) -> Ended:
    """Reads the answers of `send_endings`."""
    endpoints = await endpoint_locks.locked_rows(sent.lock)
    return Ended(endpoints, cast(set[tuple[int, str]], set(await sent.finish.fetchall())))

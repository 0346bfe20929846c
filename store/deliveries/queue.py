"""The queue of deliveries: which are due, and who gets which under a lease.

Who is served next is decided when rows are claimed, on two levels: organizations take turns, and so do the endpoints
of each; whoever was served longest ago comes first. No endpoint gets more than its share of deliveries in flight, nor
more than its rate, nor any while it asked for a pause or its breaker is open. A flood for one endpoint thus delays
nobody else, and a hanging endpoint holds no more than its share.

All due times come from PostgreSQL's clock. What becomes of a claim is in `store.deliveries.results`.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, LiteralString

import orjson
import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.postgres.database import DriverConnection, driver

ENDPOINT_IN_FLIGHT_LIMIT = 4  # deliveries to one endpoint at a time, over all notifiers, unless it says otherwise
BURST_SECONDS = 1  # of its rate that an endpoint may get at once


@dataclass(frozen=True)
class StoredSecret:
    """A signing secret as the table holds it: in plain text from before there was encryption, or sealed."""

    sequence: int
    kind: str  # v1 or v1a
    plain: str | None = field(repr=False)
    sealed: bytes | None = field(repr=False)


@dataclass(frozen=True)
class Target:
    """An endpoint as it is when deliveries to it are claimed, which share this. Equal ones are sent to alike."""

    organization_id: int
    endpoint_id: str
    url: str
    secrets: tuple[StoredSecret, ...] = field(repr=False)  # newest first
    headers: tuple[tuple[str, str], ...] = field(repr=False)  # the endpoint's own
    credentials: bytes | None = field(repr=False)  # sealed


# Not frozen, like other values of which every delivery has one: to make a frozen one takes several times as long.
@dataclass(slots=True, eq=False)
class Claim:
    """A delivery that this notifier may attempt until its lease ends."""

    target: Target
    delivery_id: str
    notification_id: str
    lease_token: uuid.UUID
    trigger: str
    attempt_count: int  # attempts recorded so far
    schedule_step: int  # those of them that the schedule counts
    age: timedelta  # since the delivery was created
    body: str | None  # None: the notification is not there, which is our fault

    @property
    def organization_id(self) -> int:
        """Whose delivery it is."""
        return self.target.organization_id

    @property
    def endpoint_id(self) -> str:
        """Where it goes."""
        return self.target.endpoint_id


@dataclass(frozen=True)
class Order:
    """What one claim takes: up to `limit` deliveries for the time of `lease`, none of `full_organizations`.

    The token is made before the claim is sent, so that a caller knows its leases even when it does not learn whether
    the claim was committed: see `store.delivery_results.release_orphaned`.
    """

    limit: int
    lease: timedelta
    full_organizations: Collection[int] = ()
    lease_token: uuid.UUID = field(default_factory=uuid.uuid4)  # of every lease of this claim, and of no other


@dataclass(frozen=True)
class Ordered:
    """A claim that is on its way; its answer may be read later."""

    cursor: psycopg.AsyncCursor[Any]
    lease_token: uuid.UUID


@dataclass(frozen=True)
class Waiting:
    """Which kinds of work wait at this moment."""

    outbox: bool
    due: bool
    expired: bool
    due_in: timedelta | None  # until more becomes due, if that is within the time that was asked about


# The settings of every transaction of the queue, results included.
#
# Its commits do not wait for the disk. A crash of the database server can then lose the last moments of the
# queue, each transaction as a whole, and so only repeats work: outbox rows are fanned out again, deliveries are
# attempted again under the same ids. A lost result also brings its lease back, which `release_orphaned` ends. To wait
# would cost every notification two flushes on its way.
#
# A notifier that is paused in the middle of a transaction loses it after a while, and with it the locks that the
# others wait for.
#
# Every row is reached by an index. The tables swing between empty and full, their statistics are always late, and
# a plan that was made while they were small reads all that was ever delivered, again and again. For the same reason
# rows are found one by one in a lateral query whose order only the right index has (nothing is sorted that need not
# be), and then named by their places (ctid), which do not change while the endpoint is locked: joined by their keys,
# a table that seemed empty would be read once for each of them.
#
# Until PostgreSQL 17 a plan that cannot do without a sort costs 10^10 when sorts are off, so it would be compiled to
# machine code each time, where PostgreSQL is built with that: a second or two for a claim of 20 ms.
SETTINGS = """
SELECT set_config('synchronous_commit', 'off', true), set_config('enable_seqscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
       set_config('enable_sort', 'off', true), set_config('enable_incremental_sort', 'off', true),
       set_config('jit', 'off', true), set_config('idle_in_transaction_session_timeout', '10s', true)
"""

# The endpoints with something due, found by steps through the index of waiting rows from the first row of one
# endpoint to the first of the next: it costs as much as endpoints wait for something, however many there are.
_DUE_ENDPOINTS = """
    first_waiting AS (
        (
            SELECT organization_id, endpoint_id, next_attempt_time
            FROM delivery_live
            WHERE next_attempt_time IS NOT NULL
            ORDER BY organization_id, endpoint_id, next_attempt_time
            LIMIT 1
        )
        UNION ALL
        SELECT following.*
        FROM first_waiting
        CROSS JOIN LATERAL (
            SELECT organization_id, endpoint_id, next_attempt_time
            FROM delivery_live
            WHERE next_attempt_time IS NOT NULL
              AND (organization_id, endpoint_id) > (first_waiting.organization_id, first_waiting.endpoint_id)
            ORDER BY organization_id, endpoint_id, next_attempt_time
            LIMIT 1
        ) AS following
    ), due_endpoint AS MATERIALIZED (
        SELECT organization_id, endpoint_id FROM first_waiting WHERE next_attempt_time <= now()
    )
"""

# How many more deliveries an endpoint may have in flight. While its breaker is not closed that is one, the probe.
_ROOM = """
    (CASE WHEN endpoint.breaker_state = 'CLOSED'
          THEN least(endpoint.max_in_flight, endpoint.breaker_window) ELSE 1 END - endpoint.in_flight)
"""

# What is in the bucket by now; null without a rate, which every comparison below lets pass. The bucket holds at
# least one, or else a rate below one a second would never send anything.
_TOKENS = f"""
    least(CASE WHEN endpoint.rate_per_second * {BURST_SECONDS} < 1 THEN 1
               ELSE endpoint.rate_per_second * {BURST_SECONDS} END,
          endpoint.tokens
              + endpoint.rate_per_second * greatest(extract(epoch FROM now() - endpoint.token_time), 0))
"""

_MISSING_TOKENS = f"greatest(1 - {_TOKENS}, 0)"

_OPEN = f"""
    endpoint.state = 'ENABLED'
    AND {_ROOM} > 0
    AND coalesce(endpoint.not_before <= now(), true)
    AND (endpoint.breaker_state <> 'OPEN' OR endpoint.breaker_until <= now())
    AND (endpoint.rate_per_second IS NULL OR {_TOKENS} >= 1)
"""

_WAITING = text(f"""
WITH RECURSIVE {_DUE_ENDPOINTS}
SELECT EXISTS (SELECT FROM outbox) AS outbox,
       EXISTS (SELECT FROM due_endpoint JOIN endpoint USING (organization_id, endpoint_id) WHERE {_OPEN}) AS due,
       coalesce((SELECT lease_expire_time < now() FROM delivery_live
                 WHERE lease_token IS NOT NULL
                 ORDER BY lease_expire_time
                 LIMIT 1), false) AS expired,
       -- When the first of those endpoints that are not open yet has something due and is open.
       (SELECT min(opening.time) - now()
        FROM first_waiting
        JOIN endpoint USING (organization_id, endpoint_id)
        CROSS JOIN LATERAL (SELECT greatest(
            first_waiting.next_attempt_time,
            endpoint.not_before,
            CASE WHEN endpoint.breaker_state = 'OPEN' THEN endpoint.breaker_until END,
            now() + CAST(({_MISSING_TOKENS}) / endpoint.rate_per_second AS double precision) * interval '1 second'
        )) AS opening (time)
        WHERE first_waiting.next_attempt_time <= now() + :horizon
          AND endpoint.state = 'ENABLED'
          AND {_ROOM} > 0
          AND opening.time > now()
          AND opening.time <= now() + :horizon) AS due_in
""")

# in_flight is a counter on the endpoint's row, not a count of leased rows: under the row's lock it is
# current, whereas a count would use the snapshot from before the lock and let two notifiers exceed the share.
#
# The candidates are ranked before any lock is taken; open_endpoint asks again under the lock whether each is open.
_CLAIM = f"""
WITH RECURSIVE {_DUE_ENDPOINTS}, organization_turn AS MATERIALIZED (
    -- Over all endpoints, not only over those that wait: the turn is the organization's.
    SELECT due_organization.organization_id, latest.claim_time
    FROM (SELECT DISTINCT organization_id FROM due_endpoint) AS due_organization
    CROSS JOIN LATERAL (
        SELECT max(last_claim_time) AS claim_time
        FROM endpoint
        WHERE endpoint.organization_id = due_organization.organization_id AND state = 'ENABLED'
    ) AS latest
    WHERE due_organization.organization_id <> ALL (CAST(%(full_organizations)s AS bigint[]))
), candidate AS MATERIALIZED (
    SELECT organization_id, endpoint_id, organization_turn.claim_time AS organization_claim_time,
           count(*) OVER () AS candidates,
           row_number() OVER (PARTITION BY organization_id ORDER BY last_claim_time, endpoint_id) AS turn
    FROM due_endpoint
    JOIN organization_turn USING (organization_id)
    JOIN endpoint USING (organization_id, endpoint_id)
    WHERE {_OPEN}
), open_endpoint AS MATERIALIZED (
    SELECT endpoint.organization_id, endpoint.endpoint_id, candidate.turn, candidate.organization_claim_time,
           {_TOKENS} AS tokens,
           least({_ROOM}, floor({_TOKENS}),
                 greatest({ENDPOINT_IN_FLIGHT_LIMIT}, %(limit)s / candidate.candidates)) AS room
    FROM candidate
    JOIN endpoint USING (organization_id, endpoint_id)
    WHERE {_OPEN}
    ORDER BY candidate.turn, candidate.organization_claim_time, endpoint.organization_id
    LIMIT %(limit)s
    FOR NO KEY UPDATE OF endpoint SKIP LOCKED
), due AS MATERIALIZED (
    SELECT waiting.place, open_endpoint.tokens
    FROM open_endpoint
    CROSS JOIN LATERAL (
        SELECT delivery.ctid AS place
        FROM delivery_live AS delivery
        WHERE delivery.organization_id = open_endpoint.organization_id
          AND delivery.endpoint_id = open_endpoint.endpoint_id
          AND delivery.next_attempt_time <= now()
        ORDER BY delivery.next_attempt_time
        LIMIT open_endpoint.room
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS waiting
    LIMIT %(limit)s
), claimed AS (
    UPDATE delivery_live AS delivery
    SET next_attempt_time = NULL, lease_token = %(token)s, lease_expire_time = now() + %(lease)s
    FROM due
    WHERE delivery.ctid = due.place
    RETURNING delivery.organization_id, delivery.endpoint_id, due.tokens,
              json_build_array(
                  delivery.delivery_id, delivery.notification_id, delivery.customer_id, delivery.trigger,
                  delivery.attempt_count, delivery.schedule_step,
                  CAST(extract(epoch FROM now() - delivery.create_time) * 1000000 AS bigint)
              ) AS what
), of_endpoint AS MATERIALIZED (
    -- One row an endpoint, with its deliveries as JSON, which costs both sides a fraction of a row each.
    SELECT organization_id, endpoint_id, count(*) AS number, max(tokens) AS tokens,
           CAST(json_agg(what) AS text) AS deliveries
    FROM claimed
    GROUP BY organization_id, endpoint_id
), counted AS (
    UPDATE endpoint
    SET in_flight = endpoint.in_flight + of_endpoint.number,
        last_claim_time = clock_timestamp(),
        breaker_state = CASE WHEN endpoint.breaker_state = 'OPEN' THEN 'HALF_OPEN' ELSE endpoint.breaker_state END,
        tokens = coalesce(of_endpoint.tokens - of_endpoint.number, endpoint.tokens),
        token_time = CASE WHEN of_endpoint.tokens IS NULL THEN endpoint.token_time ELSE now() END
    FROM of_endpoint
    WHERE endpoint.organization_id = of_endpoint.organization_id AND endpoint.endpoint_id = of_endpoint.endpoint_id
    RETURNING endpoint.organization_id, endpoint.endpoint_id, endpoint.url, endpoint.headers, endpoint.credentials,
              of_endpoint.deliveries
)
SELECT counted.*, secret.sequences, secret.kinds, secret.plains, secret.sealeds
FROM counted
CROSS JOIN LATERAL (
    SELECT array_agg(sequence ORDER BY sequence DESC) AS sequences,
           array_agg(kind ORDER BY sequence DESC) AS kinds,
           array_agg(endpoint_secret.secret ORDER BY sequence DESC) AS plains,
           array_agg(ciphertext ORDER BY sequence DESC) AS sealeds
    FROM endpoint_secret
    WHERE endpoint_secret.organization_id = counted.organization_id
      AND endpoint_secret.endpoint_id = counted.endpoint_id
      AND coalesce(endpoint_secret.not_after > now(), true)
) AS secret
""".encode()

# A statement of its own, since the notifications may live on other nodes than the queue. Ids come as text with tabs
# between them, which no id contains; the driver would write arrays value by value.
_BODIES = """
SELECT wanted.organization_id, wanted.notification_id, found.body
FROM unnest(string_to_array(%(organizations)s, E'\t')::bigint[], string_to_array(%(customers)s, E'\t'),
            string_to_array(%(notifications)s, E'\t')) AS wanted (organization_id, customer_id, notification_id)
CROSS JOIN LATERAL (
    SELECT body
    FROM notification
    WHERE notification.organization_id = wanted.organization_id
      AND notification.customer_id = wanted.customer_id
      AND notification.notification_id BETWEEN wanted.notification_id AND wanted.notification_id
    ORDER BY notification.notification_id
    LIMIT 1
) AS found
"""

# What has no notification is an operator event, or one of the operators' own making.
_OTHER_BODIES = """
SELECT wanted.organization_id, wanted.event_id, found.body
FROM unnest(string_to_array(%(organizations)s, E'\t')::bigint[], string_to_array(%(notifications)s, E'\t'))
    AS wanted (organization_id, event_id)
CROSS JOIN LATERAL (
    SELECT body
    FROM operator_event
    WHERE operator_event.organization_id = wanted.organization_id
      AND operator_event.event_id BETWEEN wanted.event_id AND wanted.event_id
    ORDER BY operator_event.event_id
    LIMIT 1
) AS found
"""


async def waiting(connection: AsyncConnection, horizon: timedelta = timedelta()) -> Waiting:
    """Which kinds of work wait, and what becomes due within `horizon`; the one question of an idle notifier."""
    row = (await connection.execute(_WAITING, {"horizon": horizon})).one()
    return Waiting(outbox=row.outbox, due=row.due, expired=row.expired, due_in=row.due_in)


async def claim(connection: AsyncConnection, order: Order) -> list[Claim]:
    """Claims due deliveries, fairly over organizations and their endpoints."""
    raw = await driver(connection)
    async with raw.pipeline():
        await raw.execute(SETTINGS)
        ordered = await place(raw, order)
    return await claims_of(raw, ordered)


async def place(connection: DriverConnection, order: Order) -> Ordered:
    """Sends a claim, within a pipeline and with SETTINGS; `claims_of` reads the answer."""
    cursor = connection.cursor(row_factory=namedtuple_row)
    await cursor.execute(
        _CLAIM,
        {
            "limit": order.limit,
            "token": order.lease_token,
            "lease": order.lease,
            "full_organizations": list(order.full_organizations),
        },
    )
    return Ordered(cursor, order.lease_token)


async def claims_of(connection: DriverConnection, ordered: Ordered) -> list[Claim]:
    """What was claimed, with the bodies."""
    found = [(_target(row), orjson.loads(row.deliveries)) for row in await ordered.cursor.fetchall()]
    if not found:
        return []
    body_of = await _bodies(
        connection,
        {
            (target.organization_id, customer_id, notification_id)
            for target, deliveries in found
            for _, notification_id, customer_id, *_ in deliveries
        },
    )
    return [
        Claim(
            target,
            delivery_id,
            notification_id,
            ordered.lease_token,
            trigger,
            attempt_count,
            schedule_step,
            timedelta(microseconds=age),
            body_of.get((target.organization_id, notification_id)),
        )
        for target, deliveries in found
        for delivery_id, notification_id, _, trigger, attempt_count, schedule_step, age in deliveries
    ]


def _target(row: Any) -> Target:
    secrets = map(StoredSecret, row.sequences or (), row.kinds or (), row.plains or (), row.sealeds or ())
    headers = tuple(row.headers.items())
    return Target(row.organization_id, row.endpoint_id, row.url, tuple(secrets), headers, row.credentials)


async def _bodies(
    connection: DriverConnection, wanted: Collection[tuple[int, str, str]]
) -> dict[tuple[int, str], str]:
    """The bodies of notifications, named by organization, customer and id; those that are missing are left out."""
    ordered = sorted(wanted)
    found = await _bodies_by(connection, _BODIES, ordered)
    others = [key for key in ordered if (key[0], key[2]) not in found]
    return found | await _bodies_by(connection, _OTHER_BODIES, others) if others else found


async def _bodies_by(
    connection: DriverConnection, statement: LiteralString, wanted: Sequence[tuple[int, str, str]]
) -> dict[tuple[int, str], str]:
    cursor = await connection.execute(
        statement,
        {
            "organizations": "\t".join(str(organization_id) for organization_id, _, _ in wanted),
            "customers": "\t".join(customer_id for _, customer_id, _ in wanted),
            "notifications": "\t".join(notification_id for _, _, notification_id in wanted),
        },
    )
    return {(organization_id, notification_id): body async for organization_id, notification_id, body in cursor}

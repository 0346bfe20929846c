"""Claims: which deliveries a notifier gets next, under a lease.

A claim chooses on two levels: organizations take turns, and so do the endpoints of each organization. The one that
was served longest ago is first. No endpoint gets more than its share of deliveries in flight, more than its rate, or
any delivery during a pause that it asked for or while its breaker is open. So a flood for one endpoint delays no
other endpoint, and an endpoint that hangs holds no more than its share.

`results` and `leases` end a claim.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.tracing.context import TraceContext, of_stored
from store.deliveries.bodies import Body, bodies
from store.deliveries.queue import DUE_ENDPOINTS, OPEN, ROOM, SETTINGS, TOKENS
from store.endpoints.rows import DEFAULT_MAX_IN_FLIGHT
from store.postgres.database import DriverConnection, driver


@dataclass(frozen=True)
class StoredSecret:
    """A signing secret as the table has it: sealed, or in plain text if it is older than the encryption."""

    sequence: int
    kind: str  # v1 or v1a
    plain: str | None = field(repr=False)
    sealed: bytes | None = field(repr=False)


@dataclass(frozen=True)
class ClaimedEndpoint:
    """An endpoint as it is when deliveries to it are claimed; these share it. Equal ones get equal headers."""

    organization_id: int
    endpoint_id: str
    url: str
    secrets: tuple[StoredSecret, ...] = field(repr=False)  # newest first
    headers: tuple[tuple[str, str], ...] = field(repr=False)  # the endpoint's own
    credentials: bytes | None = field(repr=False)  # sealed


# Not frozen, like other values of which each delivery has one: to make a frozen one takes several times as long.
@dataclass(slots=True, eq=False)
class Claim:
    """A delivery that this notifier may attempt until its lease ends."""

    endpoint: ClaimedEndpoint
    delivery_id: str
    notification_id: str
    lease_token: uuid.UUID
    trigger: str  # a webhooks.deliveries.Trigger
    attempt_count: int  # attempts recorded so far
    schedule_step: int  # those of them that the retry schedule counts
    age: timedelta  # since the delivery was created
    body: str | None  # None: the notification does not show (`read_late_bodies`)
    trace: TraceContext | None = None  # of what caused the notification
    customer_id: str = ""  # of the notification; empty for an operator event

    @property
    def organization_id(self) -> int:
        """The organization that the delivery belongs to."""
        return self.endpoint.organization_id

    @property
    def endpoint_id(self) -> str:
        """The endpoint that the delivery goes to."""
        return self.endpoint.endpoint_id

    def log_fields(self) -> dict[str, Any]:
        """The fields of each log line about it."""
        fields = {
            "organization_id": self.organization_id,
            "endpoint_id": self.endpoint_id,
            "delivery_id": self.delivery_id,
            "notification_id": self.notification_id,
        }
        return fields if self.trace is None else {**fields, "trace_id": self.trace.trace_id}


@dataclass(frozen=True)
class ClaimRequest:
    """What one claim takes: up to `limit` deliveries for the time of `lease`, none of `full_organizations`.

    The token is made before the claim is sent, so that a notifier knows its leases even when it does not learn
    whether the claim was committed: see `leases.release_orphaned`.
    """

    limit: int
    lease: timedelta
    full_organizations: Collection[int] = ()
    lease_token: uuid.UUID = field(default_factory=uuid.uuid4)  # of every lease of this claim, and of no other


@dataclass(frozen=True)
class SentClaim:
    """A claim that has been sent to PostgreSQL, and whose answer can be read."""

    cursor: psycopg.AsyncCursor[Any]
    lease_token: uuid.UUID


# When each organization with due deliveries was served last: the latest claim over all of its endpoints, not only
# over those that have work, since the turn is the organization's.
_ORGANIZATION_TURN = """
organization_turn AS MATERIALIZED (
    SELECT due_organization.organization_id, latest.claim_time
    FROM (SELECT DISTINCT organization_id FROM due_endpoint) AS due_organization
    CROSS JOIN LATERAL (
        SELECT max(last_claim_time) AS claim_time
        FROM endpoint
        WHERE endpoint.organization_id = due_organization.organization_id AND state = 'ENABLED'
    ) AS latest
    WHERE due_organization.organization_id <> ALL (CAST(%(full_organizations)s AS bigint[]))
)
"""

# The open endpoints with due deliveries, each with its turn within its organization. No lock is taken yet.
#
# Windows over both kinds of rows, and not a join of the two: without hash joins (see SETTINGS) each endpoint would be
# compared with each organization.
_CANDIDATE = f"""
candidate AS MATERIALIZED (
    SELECT organization_id, endpoint_id, organization_claim_time, candidates, turn
    FROM (
        SELECT organization_id, endpoint_id,
               max(organization_claim_time) OVER (PARTITION BY organization_id) AS organization_claim_time,
               count(endpoint_id) OVER () AS candidates,
               row_number() OVER (PARTITION BY organization_id ORDER BY last_claim_time, endpoint_id) AS turn
        FROM (
            SELECT organization_id, endpoint_id, last_claim_time, NULL AS organization_claim_time
            FROM due_endpoint
            JOIN endpoint USING (organization_id, endpoint_id)
            WHERE {OPEN} AND organization_id <> ALL (CAST(%(full_organizations)s AS bigint[]))
            UNION ALL
            SELECT organization_id, NULL, NULL, claim_time FROM organization_turn
        ) AS both_kinds
    ) AS numbered
    WHERE endpoint_id IS NOT NULL
)
"""

# The candidates that are served, locked. Under its lock each is checked again: another notifier may have claimed for
# it since. room: how many deliveries it gets, by its free slots, its tokens, and an equal part of the claim.
_OPEN_ENDPOINT = f"""
open_endpoint AS MATERIALIZED (
    SELECT endpoint.organization_id, endpoint.endpoint_id, candidate.turn, candidate.organization_claim_time,
           {TOKENS} AS tokens,
           least({ROOM}, floor({TOKENS}),
                 greatest({DEFAULT_MAX_IN_FLIGHT}, %(limit)s / candidate.candidates)) AS room
    FROM candidate
    JOIN endpoint USING (organization_id, endpoint_id)
    WHERE {OPEN}
    ORDER BY candidate.turn, candidate.organization_claim_time, endpoint.organization_id
    LIMIT %(limit)s
    FOR NO KEY UPDATE OF endpoint SKIP LOCKED
)
"""

# The deliveries of these endpoints that have been due for the longest time, locked.
_DUE = """
due AS MATERIALIZED (
    SELECT waiting.row_ctid, open_endpoint.tokens
    FROM open_endpoint
    CROSS JOIN LATERAL (
        SELECT delivery.ctid AS row_ctid
        FROM delivery_live AS delivery
        WHERE delivery.organization_id = open_endpoint.organization_id
          AND delivery.endpoint_id = open_endpoint.endpoint_id
          AND delivery.next_attempt_time <= now()
        ORDER BY delivery.next_attempt_time
        LIMIT open_endpoint.room
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS waiting
    LIMIT %(limit)s
)
"""

# Gives each of them a lease. what: what `read_claims` reads of a delivery.
_CLAIMED = """
claimed AS (
    UPDATE delivery_live AS delivery
    SET next_attempt_time = NULL, lease_token = %(token)s, lease_expire_time = now() + %(lease)s
    FROM due
    WHERE delivery.ctid = due.row_ctid
    RETURNING delivery.organization_id, delivery.endpoint_id, due.tokens,
              json_build_array(
                  delivery.delivery_id, delivery.notification_id, delivery.customer_id, delivery.trigger,
                  delivery.attempt_count, delivery.schedule_step,
                  CAST(extract(epoch FROM now() - delivery.create_time) * 1000000 AS bigint)
              ) AS what
)
"""

# One row for each endpoint, with its deliveries as JSON: that costs PostgreSQL and the driver a fraction of a row
# each.
_OF_ENDPOINT = """
of_endpoint AS MATERIALIZED (
    SELECT organization_id, endpoint_id, count(*) AS number, max(tokens) AS tokens,
           CAST(json_agg(what) AS text) AS deliveries
    FROM claimed
    GROUP BY organization_id, endpoint_id
)
"""

# Counts the new leases on the endpoints, takes their tokens, and begins the probe of a breaker that was open.
#
# in_flight is a counter on the endpoint's row and not a count of leased rows: under the lock of the row it is exact.
# A count would use the snapshot from before the lock, and two notifiers would together exceed the share.
_COUNTED = """
counted AS (
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
"""

# The secrets of an endpoint that sign now, newest first, as arrays.
_SECRET = """
(
    SELECT array_agg(sequence ORDER BY sequence DESC) AS sequences,
           array_agg(kind ORDER BY sequence DESC) AS kinds,
           array_agg(endpoint_secret.secret ORDER BY sequence DESC) AS plains,
           array_agg(ciphertext ORDER BY sequence DESC) AS sealeds
    FROM endpoint_secret
    WHERE endpoint_secret.organization_id = counted.organization_id
      AND endpoint_secret.endpoint_id = counted.endpoint_id
      AND coalesce(endpoint_secret.not_after > now(), true)
) AS secret
"""

_CLAIM = f"""
WITH RECURSIVE {DUE_ENDPOINTS}, {_ORGANIZATION_TURN}, {_CANDIDATE}, {_OPEN_ENDPOINT}, {_DUE}, {_CLAIMED},
{_OF_ENDPOINT}, {_COUNTED}
SELECT counted.*, secret.sequences, secret.kinds, secret.plains, secret.sealeds
FROM counted
CROSS JOIN LATERAL {_SECRET}
""".encode()


async def claim(connection: AsyncConnection, request: ClaimRequest) -> list[Claim]:
    """Claims due deliveries, fairly over organizations and their endpoints."""
    raw = await driver(connection)
    async with raw.pipeline():
        await raw.execute(SETTINGS)
        sent = await send_claim(raw, request)
    return await read_claims(raw, sent)


async def send_claim(connection: DriverConnection, request: ClaimRequest) -> SentClaim:
    """Sends a claim, within a pipeline and with SETTINGS; `read_claims` reads the answer."""
    cursor = connection.cursor(row_factory=namedtuple_row)
    await cursor.execute(
        _CLAIM,
        {
            "limit": request.limit,
            "token": request.lease_token,
            "lease": request.lease,
            "full_organizations": list(request.full_organizations),
        },
    )
    return SentClaim(cursor, request.lease_token)


async def read_claims(connection: DriverConnection, sent: SentClaim) -> list[Claim]:
    """The deliveries that a claim took, with their bodies."""
    found = [(_endpoint(row), orjson.loads(row.deliveries)) for row in await sent.cursor.fetchall()]
    if not found:
        return []
    body_of = await bodies(
        connection,
        {
            (endpoint.organization_id, customer_id, notification_id)
            for endpoint, deliveries in found
            for _, notification_id, customer_id, *_ in deliveries
        },
    )
    return [
        Claim(
            endpoint,
            delivery_id,
            notification_id,
            sent.lease_token,
            trigger,
            attempt_count,
            schedule_step,
            timedelta(microseconds=age),
            *_body_and_trace(body_of.get((endpoint.organization_id, notification_id))),
            customer_id,
        )
        for endpoint, deliveries in found
        for delivery_id, notification_id, customer_id, trigger, attempt_count, schedule_step, age in deliveries
    ]


async def read_late_bodies(connection: AsyncConnection, claims: Collection[Claim]) -> None:
    """Gives those claims their bodies whose notifications show by now."""
    await connection.execute(text(SETTINGS))
    keys = {(claim.organization_id, claim.customer_id, claim.notification_id) for claim in claims}
    body_of = await bodies(await driver(connection), keys)
    for claim in claims:
        if (found := body_of.get((claim.organization_id, claim.notification_id))) is not None:
            claim.body, claim.trace = _body_and_trace(found)


def _body_and_trace(found: Body | None) -> tuple[str | None, TraceContext | None]:
    if found is None:
        return None, None
    body, trace = found
    return body, of_stored(trace) if trace else None


def _endpoint(row: Any) -> ClaimedEndpoint:
    secrets = map(StoredSecret, row.sequences or (), row.kinds or (), row.plains or (), row.sealeds or ())
    headers = tuple(row.headers.items())
    return ClaimedEndpoint(row.organization_id, row.endpoint_id, row.url, tuple(secrets), headers, row.credentials)

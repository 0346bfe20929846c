"""Which work waits in the database for a notifier: outbox rows, deliveries that are due, leases that ran out."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.deliveries.queue import DUE_ENDPOINTS, OPEN, ROOM, TOKENS
from store.postgres.database import driver
from store.postgres.distributed import on_cluster


@dataclass(frozen=True)
class PendingWork:
    """Which kinds of work wait now.

    outbox: None if it lies on the nodes of a cluster, where only a fan-out reads it.
    """

    outbox: bool | None
    due: bool
    expired: bool
    due_in: timedelta | None  # until more becomes due, if that is within the time that was asked about


# Whether a delivery to an open endpoint is due.
_DUE = f"EXISTS (SELECT FROM due_endpoint JOIN endpoint USING (organization_id, endpoint_id) WHERE {OPEN})"

# Whether the oldest lease ran out.
_EXPIRED = """
    coalesce((SELECT lease_expire_time < now() FROM delivery_live
              WHERE lease_token IS NOT NULL
              ORDER BY lease_expire_time
              LIMIT 1), false)
"""

# How many tokens an endpoint with a rate lacks for one delivery.
_MISSING_TOKENS = f"greatest(1 - {TOKENS}, 0)"

# The time until the first endpoint that is not open yet has a due delivery and is open.
_DUE_IN = f"""
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
       AND {ROOM} > 0
       AND opening.time > now()
       AND opening.time <= now() + :horizon)
"""

_READ = """
WITH RECURSIVE {due_endpoints}
SELECT {outbox} AS outbox, {due} AS due, {expired} AS expired, {due_in} AS due_in
"""
_OF_QUEUE = {"due_endpoints": DUE_ENDPOINTS, "due": _DUE, "expired": _EXPIRED, "due_in": _DUE_IN}
_PENDING_WORK = text(_READ.format(outbox="EXISTS (SELECT FROM outbox)", **_OF_QUEUE))
_WITHOUT_OUTBOX = text(_READ.format(outbox="CAST(NULL AS boolean)", **_OF_QUEUE))


async def pending_work(connection: AsyncConnection, horizon: timedelta = timedelta()) -> PendingWork:
    """Which kinds of work wait, and what becomes due within `horizon`: the only query of an idle notifier."""
    statement = _WITHOUT_OUTBOX if on_cluster(await driver(connection)) else _PENDING_WORK
    row = (await connection.execute(statement, {"horizon": horizon})).one()
    return PendingWork(outbox=row.outbox, due=row.due, expired=row.expired, due_in=row.due_in)

"""Which work waits in the database for a notifier: outbox rows, deliveries that are due, leases that ran out."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.deliveries.queue import DUE_ENDPOINTS, OPEN, ROOM, TOKENS


@dataclass(frozen=True)
class PendingWork:
    """Which kinds of work wait now."""

    outbox: bool
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

_PENDING_WORK = text(f"""
WITH RECURSIVE {DUE_ENDPOINTS}
SELECT EXISTS (SELECT FROM outbox) AS outbox, {_DUE} AS due, {_EXPIRED} AS expired, {_DUE_IN} AS due_in
""")


async def pending_work(connection: AsyncConnection, horizon: timedelta = timedelta()) -> PendingWork:
    """Which kinds of work wait, and what becomes due within `horizon`: the only query of an idle notifier."""
    row = (await connection.execute(_PENDING_WORK, {"horizon": horizon})).one()
    return PendingWork(outbox=row.outbox, due=row.due, expired=row.expired, due_in=row.due_in)

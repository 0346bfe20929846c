"""Sending again: deliveries to one endpoint become due now, whatever became of them before."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.deliveries.deliveries import delivery_id
from store.postgres.channels import announce_due_deliveries
from store.tables.webhooks import delivery
from webhooks.deliveries import Trigger


@dataclass(frozen=True)
class Wanted:
    """A notification that is to be sent again, or an operator event; those have an empty customer_id."""

    notification_id: str
    customer_id: str
    event_type: str


@dataclass(frozen=True)
class Rearmed:
    """What became due: the ids of its deliveries. Those that are being attempted at this moment are left alone."""

    delivery_ids: frozenset[str]


# The pending automatic try is replaced: the row waits in one place only. A row that is leased has no due time.
_WAITING = text("""
UPDATE delivery_live
SET next_attempt_time = now(), trigger = :trigger, idempotency_key = :idempotency_key
WHERE organization_id = :organization_id AND delivery_id = ANY (CAST(:deliveries AS text[]))
  AND next_attempt_time IS NOT NULL
RETURNING delivery_id
""")

# Moved by a delete and an insert, as the notifier moves it the other way. The conflict is with a live row.
_FINISHED = text("""
WITH taken AS (
    DELETE FROM delivery
    WHERE organization_id = :organization_id AND delivery_id = ANY (CAST(:deliveries AS text[]))
      AND finish_day < 'infinity'
    RETURNING organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type, attempt_count,
              schedule_step, create_time
), latest AS (
    SELECT DISTINCT ON (delivery_id) * FROM taken ORDER BY delivery_id, attempt_count DESC
)
INSERT INTO delivery_live (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type,
                           status, trigger, idempotency_key, attempt_count, schedule_step, create_time,
                           next_attempt_time)
SELECT organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type, 'PENDING',
       :trigger, :idempotency_key, attempt_count, CASE WHEN :whole_schedule THEN 0 ELSE schedule_step END,
       create_time, now()
FROM latest
ON CONFLICT DO NOTHING
RETURNING delivery_id
""")

_MISSING = text("""
INSERT INTO delivery_live (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type,
                           status, trigger, idempotency_key, create_time, next_attempt_time)
SELECT :organization_id, delivery_id, :endpoint_id, notification_id, customer_id, event_type, 'PENDING',
       :trigger, :idempotency_key, now(), now()
FROM unnest(
    CAST(:deliveries AS text[]), CAST(:notifications AS text[]), CAST(:customers AS text[]),
    CAST(:event_types AS text[])
) AS wanted (delivery_id, notification_id, customer_id, event_type)
ON CONFLICT DO NOTHING
RETURNING delivery_id
""")


async def rearm(
    connection: AsyncConnection,
    organization_id: int,
    endpoint_id: str,
    wanted: Sequence[Wanted],
    *,
    trigger: Trigger,
    idempotency_key: str | None = None,
) -> Rearmed:
    """Makes the deliveries of `wanted` to an endpoint due now, and adds those that were never made.

    A recovery begins the schedule anew; a manual try of what is finished is one more try, after which the schedule
    goes on where it was. The caller holds the endpoint's row (`store.endpoints.switches.lock`) and knows that it is
    enabled.
    """
    ids = {delivery_id(organization_id, endpoint_id, one.notification_id): one for one in wanted}
    parameters = {
        "organization_id": organization_id,
        "endpoint_id": endpoint_id,
        "deliveries": list(ids),
        "trigger": trigger,
        "idempotency_key": idempotency_key,
    }
    due = set(await connection.scalars(_WAITING, parameters))
    due |= set(await connection.scalars(_FINISHED, parameters | {"whole_schedule": trigger is Trigger.RECOVERY}))
    rest = {key: one for key, one in ids.items() if key not in due}
    if rest:
        # Whatever is leased at this moment is in conflict, and stays as it is.
        added = await connection.scalars(
            _MISSING,
            parameters
            | {
                "deliveries": list(rest),
                "notifications": [one.notification_id for one in rest.values()],
                "customers": [one.customer_id for one in rest.values()],
                "event_types": [one.event_type for one in rest.values()],
            },
        )
        due |= set(added)
    if due:
        await announce_due_deliveries(connection)
    return Rearmed(frozenset(due))


async def known(connection: AsyncConnection, organization_id: int, notification_id: str) -> Wanted | None:
    """A notification, or an operator event, that has been handed to some endpoint; None for one that was not."""
    row = (
        await connection.execute(
            select(delivery.c.customer_id, delivery.c.event_type)
            .where(
                delivery.c.organization_id == organization_id,
                delivery.c.notification_id == notification_id,
            )
            .limit(1)
        )
    ).one_or_none()
    return None if row is None else Wanted(notification_id, row.customer_id, row.event_type)

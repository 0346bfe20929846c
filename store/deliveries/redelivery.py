"""Redelivery: deliveries to one endpoint become due now, whatever their status is."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.deliveries.deliveries import delivery_id
from store.postgres.channels import announce_due_deliveries
from store.tables.webhooks import delivery
from webhooks.deliveries import Trigger


@dataclass(frozen=True)
class Redeliverable:
    """A notification or an operator event that can be delivered again. An operator event has an empty customer_id."""

    notification_id: str
    customer_id: str
    event_type: str


# Deliveries that wait for their next attempt: it is made now instead. A leased row has no due time, and stays as it
# is.
_WAITING = text("""
UPDATE delivery_live
SET next_attempt_time = now(), trigger = :trigger, idempotency_key = :idempotency_key
WHERE organization_id = :organization_id AND delivery_id = ANY (CAST(:deliveries AS text[]))
  AND next_attempt_time IS NOT NULL
RETURNING delivery_id
""")

# Finished deliveries, moved by a delete and an insert like those that a notifier finishes. The conflict is with a
# live row.
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

# Deliveries that were never made. A delivery that is leased now is in conflict, and stays as it is.
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


async def make_due(
    connection: AsyncConnection,
    organization_id: int,
    endpoint_id: str,
    events: Sequence[Redeliverable],
    *,
    trigger: Trigger,
    idempotency_key: str | None = None,
) -> int:
    """Makes the deliveries of `events` to an endpoint due now, and adds those that were never made.

    Returns how many became due; deliveries that are being attempted now do not. A recovery begins the retry schedule
    again. A manual redelivery of a finished delivery is one more attempt, after which the schedule continues where it
    was. The caller holds the lock of the endpoint's row (`store.endpoints.lifecycle.lock`), and the endpoint is
    enabled.
    """
    ids = {delivery_id(organization_id, endpoint_id, event.notification_id): event for event in events}
    parameters = {
        "organization_id": organization_id,
        "endpoint_id": endpoint_id,
        "deliveries": list(ids),
        "trigger": trigger,
        "idempotency_key": idempotency_key,
    }
    due = set(await connection.scalars(_WAITING, parameters))
    due |= set(await connection.scalars(_FINISHED, parameters | {"whole_schedule": trigger is Trigger.RECOVERY}))
    rest = {key: event for key, event in ids.items() if key not in due}
    if rest:
        added = await connection.scalars(
            _MISSING,
            parameters
            | {
                "deliveries": list(rest),
                "notifications": [event.notification_id for event in rest.values()],
                "customers": [event.customer_id for event in rest.values()],
                "event_types": [event.event_type for event in rest.values()],
            },
        )
        due |= set(added)
    if due:
        await announce_due_deliveries(connection)
    return len(due)


async def known(connection: AsyncConnection, organization_id: int, notification_id: str) -> Redeliverable | None:
    """The notification or operator event of that id; None when no endpoint has ever had a delivery of it."""
    row = (
        await connection.execute(
            select(delivery.c.customer_id, delivery.c.event_type)
            .where(
                delivery.c.organization_id == organization_id,
                delivery.c.notification_id == notification_id,
            )
            .limit(1)
            # An erasure that deletes this delivery waits, and then finds the one that is made now.
            .with_for_update(read=True, key_share=True)
        )
    ).one_or_none()
    return None if row is None else Redeliverable(notification_id, row.customer_id, row.event_type)

"""The steps of an erasure that delete notifications and operator events, with their deliveries and attempts."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.erasures.jobs import ErasureJob, StepResult
from store.notifications.operator_events import NO_CUSTOMER
from store.notifications.placed import lock_feed

NOTIFICATIONS_AT_ONCE = 200  # each may have deliveries to all endpoints

# A recovery locks the notifications that it makes deliveries of, and skips those that are locked here: no delivery is
# made of a notification that is deleted.
_NOTIFICATIONS = text("""
SELECT notification_id FROM notification
WHERE organization_id = :organization_id AND customer_id = :customer_id
ORDER BY notification_id LIMIT :limit FOR UPDATE SKIP LOCKED
""")

_ANY_NOTIFICATION = text("""
SELECT EXISTS (
    SELECT 1 FROM notification WHERE organization_id = :organization_id AND customer_id = :customer_id
)
""")

# Leases begin and end only under the locks of their endpoints. A fan-out of these has ended, since the rows of the
# outbox are deleted before.
_LOCK_ENDPOINTS = text("""
SELECT endpoint_id FROM endpoint
WHERE organization_id = :organization_id AND endpoint_id IN (
    SELECT endpoint_id FROM delivery
    WHERE organization_id = :organization_id AND notification_id = ANY(:notification_ids)
)
ORDER BY endpoint_id FOR UPDATE
""")

_DELETE_DELIVERIES = text("""
WITH gone AS (
    DELETE FROM delivery
    WHERE organization_id = :organization_id AND notification_id = ANY(:notification_ids) AND lease_token IS NULL
    RETURNING delivery_id
), attempts AS (
    DELETE FROM attempt WHERE organization_id = :organization_id AND delivery_id IN (SELECT delivery_id FROM gone)
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM attempts)
""")

_IN_FLIGHT = text("""
SELECT DISTINCT notification_id FROM delivery
WHERE organization_id = :organization_id AND notification_id = ANY(:notification_ids)
""")

# With their places in the feed, and what waits for one: an evaluation may have committed after the step of
# feed_pending, and the feed would wait for a notification that never shows. Two statements: the tables can lie apart.
_DELETE_PLACES = text("""
DELETE FROM feed_entry WHERE organization_id = :organization_id AND notification_id = ANY(:notification_ids)
""")
_DELETE_PENDING = text("""
DELETE FROM feed_pending
WHERE organization_id = :organization_id AND customer_id = :customer_id AND notification_id = ANY(:notification_ids)
""")

_DELETE_NOTIFICATIONS = text("""
DELETE FROM notification
WHERE organization_id = :organization_id AND customer_id = :customer_id AND notification_id = ANY(:notification_ids)
""")

_OPERATOR_EVENTS = text("""
SELECT event_id FROM operator_event
WHERE organization_id = :organization_id AND event_type IN ('evaluation.failed', 'limit.refused')
  AND body::jsonb #>> '{data,customer_id}' = :customer_id
ORDER BY event_id LIMIT :limit
""")

# Before their deliveries: a fan-out that has taken a row holds it until its deliveries are committed.
_DELETE_OUTBOX_OF_EVENTS = text("""
DELETE FROM outbox
WHERE organization_id = :organization_id AND customer_id = :no_customer AND notification_id = ANY(:notification_ids)
""")

_DELETE_OPERATOR_EVENTS = text("""
DELETE FROM operator_event WHERE organization_id = :organization_id AND event_id = ANY(:notification_ids)
""")


async def delete_notifications(connection: AsyncConnection, job: ErasureJob, limit: int) -> StepResult:
    """Deletes notifications with their deliveries and attempts; one whose attempt is being made waits for its end."""
    scope = {"organization_id": job.organization_id, "customer_id": job.customer_id}
    # First, as the retention does. With it no notification gets a position between the statements below.
    await lock_feed(connection, job.organization_id)
    ids = list(await connection.scalars(_NOTIFICATIONS, {**scope, "limit": min(limit, NOTIFICATIONS_AT_ONCE)}))
    if not ids:
        in_use = bool(await connection.scalar(_ANY_NOTIFICATION, scope))
        return StepResult(complete=not in_use, waits=in_use)
    deleted, free = await _delete_deliveries(connection, job, ids)
    if free:
        of_these = {**scope, "notification_ids": free}
        of_organization = {"organization_id": job.organization_id, "notification_ids": free}
        deleted += int((await connection.execute(_DELETE_PLACES, of_organization)).rowcount)
        deleted += int((await connection.execute(_DELETE_PENDING, of_these)).rowcount)
        deleted += int((await connection.execute(_DELETE_NOTIFICATIONS, of_these)).rowcount)
    return StepResult(deleted=deleted, waits=not free)


async def delete_operator_events(connection: AsyncConnection, job: ErasureJob, limit: int) -> StepResult:
    """Deletes operator events about the customer with their deliveries, like `delete_notifications`."""
    scope, most = {"organization_id": job.organization_id}, min(limit, NOTIFICATIONS_AT_ONCE)
    of_customer = {**scope, "customer_id": job.customer_id, "limit": most}
    ids = list(await connection.scalars(_OPERATOR_EVENTS, of_customer))
    if not ids:
        return StepResult(complete=True)
    of_events = {**scope, "no_customer": NO_CUSTOMER, "notification_ids": ids}
    deleted = int((await connection.execute(_DELETE_OUTBOX_OF_EVENTS, of_events)).rowcount)
    of_deliveries, free = await _delete_deliveries(connection, job, ids)
    deleted += of_deliveries
    if free:
        of_these = {**scope, "notification_ids": free}
        deleted += int((await connection.execute(_DELETE_OPERATOR_EVENTS, of_these)).rowcount)
    return StepResult(deleted=deleted, waits=not free)


async def _delete_deliveries(connection: AsyncConnection, job: ErasureJob, ids: list[str]) -> tuple[int, list[str]]:
    """Deletes deliveries of notifications or operator events; returns how many rows, and the ids that have none left.

    A delivery whose attempt is being made stays.
    """
    of_these = {"organization_id": job.organization_id, "notification_ids": ids}
    await connection.execute(_LOCK_ENDPOINTS, of_these)
    deleted = int(await connection.scalar(_DELETE_DELIVERIES, of_these) or 0)
    in_flight = set(await connection.scalars(_IN_FLIGHT, of_these))
    return deleted, [one for one in ids if one not in in_flight]

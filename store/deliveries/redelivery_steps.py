"""The steps of redelivery jobs: each is one small transaction, on any server.

A server that dies in a step leaves the job where the step before ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store.deliveries.redelivery import Redeliverable, make_due
from store.deliveries.redelivery_jobs import COLUMNS, JobKind, JobState, RedeliveryJob, job_from
from store.endpoints import lifecycle
from store.endpoints.rows import Endpoint, EndpointState
from store.postgres.database import DriverConnection, driver
from store.postgres.distributed import on_cluster
from store.postgres.pipelines import fetched_each
from store.tables.notifications import notification, outbox
from store.tables.redelivery import redelivery_job
from store.tables.webhooks import delivery
from webhooks.deliveries import DeliveryStatus, Trigger
from webhooks.operator_events import is_operator_event

STEP_LIMIT = 500  # rows that one step reads
# Deliveries of one endpoint that may be due before a job adds more. A new notification waits behind no more than
# these.
DUE_LIMIT = 500

_DUE = text("""
SELECT count(*) FROM (
    SELECT FROM delivery_live
    WHERE organization_id = :organization_id AND endpoint_id = :endpoint_id AND next_attempt_time <= now()
    LIMIT :limit
) AS due
""")

_DELIVERED = (DeliveryStatus.DELIVERED,)


async def step(
    connection: AsyncConnection,
    organization_id: int,
    job_id: str,
    now: datetime,
    *,
    step_limit: int = STEP_LIMIT,
    due_limit: int = DUE_LIMIT,
) -> bool:
    """Takes the next step of a job, in the caller's transaction; returns whether the job progressed.

    It does not while another server takes a step of it, or while `due_limit` deliveries to its endpoint are due.
    step_limit: rows that it reads.
    """
    found = await connection.execute(
        select(*COLUMNS)
        .where(
            redelivery_job.c.organization_id == organization_id,
            redelivery_job.c.job_id == job_id,
            redelivery_job.c.state == JobState.RUNNING,
        )
        .with_for_update(skip_locked=True)
    )
    row = found.mappings().one_or_none()
    if row is None:
        return False
    job = job_from(row)
    endpoint = await lifecycle.lock(connection, organization_id, job.endpoint_id)
    if endpoint is None or endpoint.state is not EndpointState.ENABLED:
        await _advance(connection, job, (), 0, JobState.STOPPED, now)
        return True
    where = {"organization_id": organization_id, "endpoint_id": job.endpoint_id, "limit": due_limit}
    if (await connection.scalar(_DUE, where) or 0) >= due_limit:
        return False
    examined = await (_notifications if job.kind is JobKind.RECOVERY else _deliveries)(connection, job, step_limit)
    events = [row.event for row in examined if _wants(endpoint, row)]
    if job.kind is JobKind.RECOVERY and events:
        events = await _missed(connection, job, events)
    redelivered = await make_due(connection, organization_id, job.endpoint_id, events, trigger=Trigger.RECOVERY)
    state = JobState.RUNNING if len(examined) == step_limit else JobState.DONE
    await _advance(connection, job, examined, redelivered, state, now)
    return True


@dataclass(frozen=True)
class _Examined:
    """A row that a step read. condition_type: only of notifications. is_left_out: an erasure has locked it."""

    create_time: datetime
    row_id: str
    event: Redeliverable
    condition_type: str | None = None
    is_left_out: bool = False


def _wants(endpoint: Endpoint, row: _Examined) -> bool:
    """Whether the endpoint's filters let a notification pass; a delivery has passed them before."""
    if row.is_left_out:
        return False
    if row.condition_type is None:
        return True
    types, conditions = endpoint.event_types, endpoint.condition_types
    wants_type = row.event.event_type in types if types else not is_operator_event(row.event.event_type)
    return wants_type and (not conditions or row.condition_type in conditions)


async def _notifications(connection: AsyncConnection, job: RedeliveryJob, limit: int) -> list[_Examined]:
    key = tuple_(notification.c.create_time, notification.c.notification_id)
    statement = (
        select(
            notification.c.create_time,
            notification.c.notification_id,
            notification.c.customer_id,
            notification.c.event_type,
            notification.c.condition_type,
        )
        .where(
            notification.c.organization_id == job.organization_id,
            notification.c.create_time >= (job.after_time or job.start_time),
            notification.c.create_time < job.end_time,
        )
        .order_by(notification.c.create_time, notification.c.notification_id)
        .limit(limit)
    )
    if job.after_time is not None:
        statement = statement.where(key > tuple_(job.after_time, job.after_id))
    raw = await driver(connection)
    # An erasure deletes only what it has locked itself, and what it has locked is not to be sent any more.
    if not on_cluster(raw):
        statement = statement.with_for_update(read=True, key_share=True, skip_locked=True)
    rows = (await connection.execute(statement)).all()
    ids = {row.notification_id for row in rows}
    if on_cluster(raw):
        ids = await _locked(raw, job.organization_id, [(row.customer_id, row.notification_id) for row in rows])
    return [
        _Examined(
            row.create_time,
            row.notification_id,
            Redeliverable(row.notification_id, row.customer_id, row.event_type),
            row.condition_type,
            is_left_out=row.notification_id not in ids,
        )
        for row in rows
    ]


# On a cluster, a lock of rows names their customer.
_LOCK = b"""
SELECT notification_id FROM notification
WHERE organization_id = %(organization_id)s AND customer_id = %(customer_id)s AND notification_id = ANY(%(ids)s)
FOR KEY SHARE SKIP LOCKED
"""


async def _locked(connection: DriverConnection, organization_id: int, keys: Sequence[tuple[str, str]]) -> set[str]:
    """The ids of those of the notifications (customer id, id) that no other transaction has locked."""
    by_customer = dict[str, list[str]]()
    for customer_id, notification_id in keys:
        by_customer.setdefault(customer_id, []).append(notification_id)
    each = (
        {"organization_id": organization_id, "customer_id": customer_id, "ids": ids}
        for customer_id, ids in sorted(by_customer.items())
    )
    return {row[0] for row in await fetched_each(connection, _LOCK, each)}


async def _deliveries(connection: AsyncConnection, job: RedeliveryJob, limit: int) -> list[_Examined]:
    key = tuple_(delivery.c.create_time, delivery.c.delivery_id)
    statement = (
        select(
            delivery.c.create_time,
            delivery.c.delivery_id,
            delivery.c.notification_id,
            delivery.c.customer_id,
            delivery.c.event_type,
        )
        .where(
            delivery.c.organization_id == job.organization_id,
            delivery.c.endpoint_id == job.endpoint_id,
            delivery.c.create_time >= (job.after_time or job.start_time),
            delivery.c.create_time < job.end_time,
            delivery.c.status.in_(job.statuses),
        )
        .order_by(delivery.c.create_time, delivery.c.delivery_id)
        .limit(limit)
    )
    if job.event_types:
        statement = statement.where(delivery.c.event_type.in_(job.event_types))
    if job.customer_id is not None:
        statement = statement.where(delivery.c.customer_id == job.customer_id)
    if job.after_time is not None:
        statement = statement.where(key > tuple_(job.after_time, job.after_id))
    return [
        _Examined(
            row.create_time, row.delivery_id, Redeliverable(row.notification_id, row.customer_id, row.event_type)
        )
        for row in await connection.execute(statement)
    ]


async def _missed(
    connection: AsyncConnection, job: RedeliveryJob, events: Sequence[Redeliverable]
) -> list[Redeliverable]:
    """Those of `events` that were not delivered to the endpoint, and that the outbox does not hold."""
    ids = [event.notification_id for event in events]
    delivered = set(
        await connection.scalars(
            select(delivery.c.notification_id).where(
                delivery.c.organization_id == job.organization_id,
                delivery.c.notification_id.in_(ids),
                delivery.c.endpoint_id == job.endpoint_id,
                delivery.c.status.in_(_DELIVERED),
            )
        )
    )
    # The fan-out makes the deliveries of an outbox row. With one made here, too, the notification would be sent
    # twice.
    in_outbox = set(
        await connection.scalars(
            select(outbox.c.notification_id).where(
                outbox.c.organization_id == job.organization_id,
                outbox.c.customer_id.in_({event.customer_id for event in events}),
                outbox.c.notification_id.in_(ids),
            )
        )
    )
    return [event for event in events if event.notification_id not in delivered | in_outbox]


async def _advance(
    connection: AsyncConnection,
    job: RedeliveryJob,
    examined: Sequence[_Examined],
    redelivered: int,
    state: JobState,
    now: datetime,
) -> None:
    last = examined[-1] if examined else None
    await connection.execute(
        update(redelivery_job)
        .where(
            redelivery_job.c.organization_id == job.organization_id,
            redelivery_job.c.job_id == job.job_id,
        )
        .values(
            state=state,
            after_time=last.create_time if last else job.after_time,
            after_id=last.row_id if last else job.after_id,
            examined_count=job.examined_count + len(examined),
            redelivered_count=job.redelivered_count + redelivered,
            finish_time=None if state is JobState.RUNNING else now,
        )
    )

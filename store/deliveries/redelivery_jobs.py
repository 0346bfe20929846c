"""Durable jobs that send many notifications to one endpoint again, a small transaction at a time.

Any server takes any step; one that dies leaves the job where its last transaction ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum

from sqlalchemy import RowMapping, insert, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store.deliveries.redelivery import Wanted, rearm
from store.endpoints import switches as endpoint_switches
from store.endpoints.rows import Endpoint, EndpointState
from store.ids import random_id
from store.tables.notifications import notification, outbox
from store.tables.redelivery import redelivery_job
from store.tables.webhooks import delivery
from webhooks.deliveries import DeliveryStatus, Trigger
from webhooks.operator_events import is_operator_event

JOB_ID_PREFIX = "rdj_"
STEP_LIMIT = 500  # rows that one transaction looks at
# Deliveries of one endpoint that may be due before a job adds more. A fresh alert waits behind no more than these.
DUE_LIMIT = 500


class JobKind(StrEnum):
    """What a job goes through."""

    RECOVERY = "RECOVERY"  # notifications; those that the endpoint has not got are sent
    SELECTION = "SELECTION"  # deliveries that a filter selects


class JobState(StrEnum):
    """How far a job has come."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    STOPPED = "STOPPED"  # its endpoint was disabled or deleted


@dataclass(frozen=True)
class Selection:
    """What a job covers: what was made in [start_time, end_time), and, of deliveries, what the filter selects."""

    start_time: datetime
    end_time: datetime
    statuses: tuple[DeliveryStatus, ...] = ()
    event_type: str | None = None
    customer_id: str | None = None


@dataclass(frozen=True)
class Job:
    """A job and how far it has come. examined_count: rows looked at; redelivered_count: those made due."""

    organization_id: int
    job_id: str
    endpoint_id: str
    kind: JobKind
    state: JobState
    start_time: datetime
    end_time: datetime
    statuses: tuple[DeliveryStatus, ...]
    event_type: str | None
    customer_id: str | None
    after_time: datetime | None
    after_id: str | None
    examined_count: int
    redelivered_count: int
    create_time: datetime
    finish_time: datetime | None


_COLUMNS = tuple(redelivery_job.c[field.name] for field in fields(Job))

_DUE = text("""
SELECT count(*) FROM (
    SELECT FROM delivery_live
    WHERE organization_id = :organization_id AND endpoint_id = :endpoint_id AND next_attempt_time <= now()
    LIMIT :limit
) AS due
""")

_DELIVERED = (DeliveryStatus.DELIVERED,)


async def create(
    connection: AsyncConnection,
    organization_id: int,
    endpoint_id: str,
    kind: JobKind,
    selection: Selection,
    *,
    now: datetime,
) -> Job:
    """Saves a job, which any server then carries out."""
    saved = await connection.execute(
        insert(redelivery_job)
        .values(
            organization_id=organization_id,
            job_id=random_id(JOB_ID_PREFIX),
            endpoint_id=endpoint_id,
            kind=kind,
            state=JobState.RUNNING,
            start_time=selection.start_time,
            end_time=selection.end_time,
            statuses=list(selection.statuses),
            event_type=selection.event_type,
            customer_id=selection.customer_id,
            create_time=now,
        )
        .returning(*_COLUMNS)
    )
    return _job(saved.mappings().one())


async def get(connection: AsyncConnection, organization_id: int, job_id: str) -> Job | None:
    """The job of that id; None when there is none."""
    found = await connection.execute(
        select(*_COLUMNS).where(
            redelivery_job.c.organization_id == organization_id, redelivery_job.c.job_id == job_id
        )
    )
    row = found.mappings().one_or_none()
    return None if row is None else _job(row)


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    *,
    endpoint_id: str | None,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[Job]:
    """Up to `limit` jobs, newest first; `after` is the create_time and id of the last one seen."""
    key = tuple_(redelivery_job.c.create_time, redelivery_job.c.job_id)
    statement = (
        select(*_COLUMNS)
        .where(redelivery_job.c.organization_id == organization_id)
        .order_by(redelivery_job.c.create_time.desc(), redelivery_job.c.job_id.desc())
        .limit(limit)
    )
    if endpoint_id is not None:
        statement = statement.where(redelivery_job.c.endpoint_id == endpoint_id)
    if after is not None:
        statement = statement.where(key < tuple_(*after))
    return [_job(row) for row in (await connection.execute(statement)).mappings()]


async def running(connection: AsyncConnection, limit: int) -> list[Job]:
    """Up to `limit` jobs of any organization that are not at their end, the oldest first."""
    rows = await connection.execute(
        select(*_COLUMNS)
        .where(redelivery_job.c.state == JobState.RUNNING)
        .order_by(redelivery_job.c.create_time)
        .limit(limit)
    )
    return [_job(row) for row in rows.mappings()]


async def step(connection: AsyncConnection, organization_id: int, job_id: str, now: datetime) -> bool:
    """Takes the next step of a job, in the caller's transaction; returns whether it moved.

    It does not while another server is at it, nor while its endpoint has enough to do.
    """
    found = await connection.execute(
        select(*_COLUMNS)
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
    job = _job(row)
    endpoint = await endpoint_switches.lock(connection, organization_id, job.endpoint_id)
    if endpoint is None or endpoint.state is not EndpointState.ENABLED:
        await _advance(connection, job, (), 0, JobState.STOPPED, now)
        return True
    where = {"organization_id": organization_id, "endpoint_id": job.endpoint_id, "limit": DUE_LIMIT}
    if (await connection.scalar(_DUE, where) or 0) >= DUE_LIMIT:
        return False
    examined = await (_notifications if job.kind is JobKind.RECOVERY else _deliveries)(connection, job)
    wanted = [row.wanted for row in examined if _asks_for(endpoint, row)]
    if job.kind is JobKind.RECOVERY and wanted:
        wanted = await _missed(connection, job, wanted)
    rearmed = await rearm(connection, organization_id, job.endpoint_id, wanted, trigger=Trigger.RECOVERY)
    state = JobState.RUNNING if len(examined) == STEP_LIMIT else JobState.DONE
    await _advance(connection, job, examined, len(rearmed.delivery_ids), state, now)
    return True


@dataclass(frozen=True)
class _Examined:
    """A row that a job looked at. condition_type: only of notifications."""

    create_time: datetime
    row_id: str
    wanted: Wanted
    condition_type: str | None = None


def _asks_for(endpoint: Endpoint, row: _Examined) -> bool:
    """Whether the endpoint's filters let a notification through; a delivery has passed them before."""
    if row.condition_type is None:
        return True
    types, conditions = endpoint.event_types, endpoint.condition_types
    wants_type = row.wanted.event_type in types if types else not is_operator_event(row.wanted.event_type)
    return wants_type and (not conditions or row.condition_type in conditions)


async def _notifications(connection: AsyncConnection, job: Job) -> list[_Examined]:
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
        .limit(STEP_LIMIT)
    )
    if job.after_time is not None:
        statement = statement.where(key > tuple_(job.after_time, job.after_id))
    return [
        _Examined(
            row.create_time,
            row.notification_id,
            Wanted(row.notification_id, row.customer_id, row.event_type),
            row.condition_type,
        )
        for row in await connection.execute(statement)
    ]


async def _deliveries(connection: AsyncConnection, job: Job) -> list[_Examined]:
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
        .limit(STEP_LIMIT)
    )
    if job.event_type is not None:
        statement = statement.where(delivery.c.event_type == job.event_type)
    if job.customer_id is not None:
        statement = statement.where(delivery.c.customer_id == job.customer_id)
    if job.after_time is not None:
        statement = statement.where(key > tuple_(job.after_time, job.after_id))
    return [
        _Examined(row.create_time, row.delivery_id, Wanted(row.notification_id, row.customer_id, row.event_type))
        for row in await connection.execute(statement)
    ]


async def _missed(connection: AsyncConnection, job: Job, wanted: Sequence[Wanted]) -> list[Wanted]:
    delivered = set(
        await connection.scalars(
            select(delivery.c.notification_id).where(
                delivery.c.organization_id == job.organization_id,
                delivery.c.notification_id.in_([one.notification_id for one in wanted]),
                delivery.c.endpoint_id == job.endpoint_id,
                delivery.c.status.in_(_DELIVERED),
            )
        )
    )
    # What the outbox still holds gets its deliveries from there; with one made here it would be sent twice.
    to_come = set(
        await connection.scalars(
            select(outbox.c.notification_id).where(
                outbox.c.organization_id == job.organization_id,
                outbox.c.notification_id.in_([one.notification_id for one in wanted]),
            )
        )
    )
    return [one for one in wanted if one.notification_id not in delivered | to_come]


async def _advance(
    connection: AsyncConnection,
    job: Job,
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


def _job(row: RowMapping) -> Job:
    return Job(
        **{
            **row,
            "kind": JobKind(row["kind"]),
            "state": JobState(row["state"]),
            "statuses": tuple(DeliveryStatus(status) for status in row["statuses"]),
        }
    )

"""Redelivery jobs: durable, each sends many notifications to one endpoint again. `redelivery_steps` executes them."""

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum

from sqlalchemy import RowMapping, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from store.ids import random_id
from store.tables.redelivery import redelivery_job
from webhooks.deliveries import DeliveryStatus

JOB_ID_PREFIX = "rdj_"


class JobKind(StrEnum):
    """What a job reads."""

    RECOVERY = "RECOVERY"  # notifications; it sends those that were not delivered to the endpoint
    SELECTION = "SELECTION"  # deliveries; it sends those that a filter selects


class JobState(StrEnum):
    """How far a job has come."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    STOPPED = "STOPPED"  # its endpoint was disabled or deleted


@dataclass(frozen=True)
class Selection:
    """What a job covers: rows created in [start_time, end_time), and of deliveries those that the filter selects."""

    start_time: datetime
    end_time: datetime
    statuses: tuple[DeliveryStatus, ...] = ()
    event_types: tuple[str, ...] = ()  # empty: every type
    customer_id: str | None = None


@dataclass(frozen=True)
class RedeliveryJob:
    """A job and its progress. examined_count: rows that it read; redelivered_count: deliveries that it made due."""

    organization_id: int
    job_id: str
    endpoint_id: str
    kind: JobKind
    state: JobState
    start_time: datetime
    end_time: datetime
    statuses: tuple[DeliveryStatus, ...]
    event_types: tuple[str, ...]  # empty: every type
    customer_id: str | None
    after_time: datetime | None  # create_time and id of the last row that it read
    after_id: str | None
    examined_count: int
    redelivered_count: int
    create_time: datetime
    finish_time: datetime | None


COLUMNS = (*(redelivery_job.c[field.name] for field in fields(RedeliveryJob)), redelivery_job.c.event_type)


async def create(
    connection: AsyncConnection,
    organization_id: int,
    endpoint_id: str,
    kind: JobKind,
    selection: Selection,
    *,
    now: datetime,
) -> RedeliveryJob:
    """Saves a job, which any server then executes."""
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
            event_types=list(selection.event_types),
            event_type=selection.event_types[0] if len(selection.event_types) == 1 else None,
            customer_id=selection.customer_id,
            create_time=now,
        )
        .returning(*COLUMNS)
    )
    return job_from(saved.mappings().one())


async def get(connection: AsyncConnection, organization_id: int, job_id: str) -> RedeliveryJob | None:
    """The job of that id; None when there is none."""
    found = await connection.execute(
        select(*COLUMNS).where(redelivery_job.c.organization_id == organization_id, redelivery_job.c.job_id == job_id)
    )
    row = found.mappings().one_or_none()
    return None if row is None else job_from(row)


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    *,
    endpoint_id: str | None,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[RedeliveryJob]:
    """Up to `limit` jobs, newest first; `after` is the create_time and id of the last one seen."""
    key = tuple_(redelivery_job.c.create_time, redelivery_job.c.job_id)
    statement = (
        select(*COLUMNS)
        .where(redelivery_job.c.organization_id == organization_id)
        .order_by(redelivery_job.c.create_time.desc(), redelivery_job.c.job_id.desc())
        .limit(limit)
    )
    if endpoint_id is not None:
        statement = statement.where(redelivery_job.c.endpoint_id == endpoint_id)
    if after is not None:
        statement = statement.where(key < tuple_(*after))
    return [job_from(row) for row in (await connection.execute(statement)).mappings()]


async def running(connection: AsyncConnection, limit: int) -> list[RedeliveryJob]:
    """Up to `limit` jobs of any organization that are running, the oldest first."""
    rows = await connection.execute(
        select(*COLUMNS)
        .where(redelivery_job.c.state == JobState.RUNNING)
        .order_by(redelivery_job.c.create_time)
        .limit(limit)
    )
    return [job_from(row) for row in rows.mappings()]


def job_from(row: RowMapping) -> RedeliveryJob:
    """The job of a row with COLUMNS."""
    values = dict(row)
    # A job of a version before event_types has its one type here.
    only_type = values.pop("event_type")
    return RedeliveryJob(
        **{
            **values,
            "event_types": tuple(row["event_types"] or filter(None, (only_type,))),
            "kind": JobKind(row["kind"]),
            "state": JobState(row["state"]),
            "statuses": tuple(DeliveryStatus(status) for status in row["statuses"]),
        }
    )

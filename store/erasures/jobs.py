"""Erasure jobs: durable, each deletes everything of one customer. `store.erasures.steps` executes them."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum

from sqlalchemy import RowMapping, and_, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store.erasures import scoped
from store.erasures.customers_above import note_change_below
from store.identity import organizations
from store.ids import random_id
from store.postgres.database import driver
from store.tables.accounts import customer
from store.tables.erasures import erasure_job

JOB_ID_PREFIX = "erj_"
PSEUDONYM_PREFIX = "erased_"


class ErasureState(StrEnum):
    """How far a job has come."""

    RUNNING = "RUNNING"
    DONE = "DONE"


@dataclass(frozen=True)
class ErasureJob:
    """A job and its progress.

    customer_id: None once it is done. pseudonym: the customer id of the ledger rows that are kept. step: how many of
    the steps are complete. deleted_count, pseudonymised_count: rows.
    """

    organization_id: int
    job_id: str
    customer_id: str | None
    pseudonym: str
    state: ErasureState
    step: int
    deleted_count: int
    pseudonymised_count: int
    create_time: datetime
    finish_time: datetime | None


@dataclass(frozen=True)
class StepResult:
    """What one transaction of a step did. waits: what is left is in use, and is tried again later."""

    deleted: int = 0
    pseudonymised: int = 0
    complete: bool = False
    waits: bool = False


# One transaction of a step; the number limits its rows.
Step = Callable[[AsyncConnection, ErasureJob, int], Awaitable[StepResult]]


class CustomerUnknown(Exception):
    """The organization has no such customer."""

    def __init__(self, customer_id: str) -> None:
        super().__init__(customer_id)
        self.customer_id = customer_id


class CustomerBeingErased(Exception):
    """The customer takes no facts and no alerts until its erasure is done."""

    def __init__(self, customer_id: str) -> None:
        super().__init__(customer_id)
        self.customer_id = customer_id


COLUMNS = tuple(erasure_job.c[field.name] for field in fields(ErasureJob))


async def begin(
    connection: AsyncConnection, organization_id: int, customer_id: str, now: datetime
) -> tuple[ErasureJob, bool]:
    """Saves the job of a customer, or returns the one that runs already; from then on the customer takes nothing new.

    Also returns whether the job is new.
    Ends the alerts on the customer alone, and its limits. The transaction holds the organization's lock exclusively
    afterwards, so usage is counted either before the erasure or not at all. Raises CustomerUnknown.
    """
    epoch = await organizations.begin_change(connection, organization_id)
    running = await _of_customer(connection, organization_id, customer_id)
    if running is not None:
        return running, False
    of_customer = and_(customer.c.organization_id == organization_id, customer.c.customer_id == customer_id)
    marked = await connection.execute(
        update(customer).where(of_customer).values(changed_epoch=epoch).returning(customer.c.parent_customer_id)
    )
    row = marked.one_or_none()
    if row is None:
        raise CustomerUnknown(customer_id)
    if row.parent_customer_id is not None:  # from now on its usage counts for none of those above it
        raw = await driver(connection)
        await note_change_below(raw, organization_id, [row.parent_customer_id], epoch, now)
    await scoped.end(connection, organization_id, customer_id, epoch, now)
    job_id = random_id(JOB_ID_PREFIX)
    saved = await connection.execute(
        insert(erasure_job)
        .values(
            organization_id=organization_id,
            job_id=job_id,
            customer_id=customer_id,
            pseudonym=PSEUDONYM_PREFIX + job_id.removeprefix(JOB_ID_PREFIX),
            state=ErasureState.RUNNING,
            create_time=now,
        )
        .returning(*COLUMNS)
    )
    return _job(saved.mappings().one()), True


async def get(connection: AsyncConnection, organization_id: int, job_id: str) -> ErasureJob | None:
    """The job of that id; None when there is none."""
    found = await connection.execute(
        select(*COLUMNS).where(erasure_job.c.organization_id == organization_id, erasure_job.c.job_id == job_id)
    )
    row = found.mappings().one_or_none()
    return None if row is None else _job(row)


async def list_page(
    connection: AsyncConnection, organization_id: int, *, after: tuple[datetime, str] | None, limit: int
) -> list[ErasureJob]:
    """Up to `limit` jobs, newest first; `after` is the create_time and id of the last one seen."""
    statement = (
        select(*COLUMNS)
        .where(erasure_job.c.organization_id == organization_id)
        .order_by(erasure_job.c.create_time.desc(), erasure_job.c.job_id.desc())
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(tuple_(erasure_job.c.create_time, erasure_job.c.job_id) < tuple_(*after))
    return [_job(row) for row in (await connection.execute(statement)).mappings()]


async def running(connection: AsyncConnection, limit: int) -> list[ErasureJob]:
    """Up to `limit` jobs that are running: the oldest of each organization first, then the second of each.

    So an organization that erases many customers does not keep the jobs of others waiting.
    """
    turn = func.row_number().over(partition_by=erasure_job.c.organization_id, order_by=erasure_job.c.create_time)
    rows = await connection.execute(
        select(*COLUMNS)
        .where(erasure_job.c.state == ErasureState.RUNNING)
        .order_by(turn, erasure_job.c.create_time)
        .limit(limit)
    )
    return [_job(row) for row in rows.mappings()]


async def lock(connection: AsyncConnection, organization_id: int, job_id: str) -> ErasureJob | None:
    """The running job, locked until the transaction ends; None if another replica works on it, or it is done."""
    rows = await connection.execute(
        select(*COLUMNS)
        .where(
            erasure_job.c.organization_id == organization_id,
            erasure_job.c.job_id == job_id,
            erasure_job.c.state == ErasureState.RUNNING,
        )
        .with_for_update(skip_locked=True)
    )
    row = rows.mappings().one_or_none()
    return None if row is None else _job(row)


async def advance(connection: AsyncConnection, job: ErasureJob, result: StepResult) -> None:
    """Stores the progress of a locked job: what a transaction of its present step did."""
    await connection.execute(
        update(erasure_job)
        .where(erasure_job.c.organization_id == job.organization_id, erasure_job.c.job_id == job.job_id)
        .values(
            step=job.step + result.complete,
            deleted_count=erasure_job.c.deleted_count + result.deleted,
            pseudonymised_count=erasure_job.c.pseudonymised_count + result.pseudonymised,
        )
    )


async def finish(connection: AsyncConnection, job: ErasureJob, now: datetime) -> None:
    """Ends a locked job, and forgets which customer it erased."""
    await connection.execute(
        update(erasure_job)
        .where(erasure_job.c.organization_id == job.organization_id, erasure_job.c.job_id == job.job_id)
        .values(state=ErasureState.DONE, customer_id=None, finish_time=now)
    )


async def refuse_during(connection: AsyncConnection, organization_id: int, customer_id: str) -> None:
    """Raises CustomerBeingErased if a job erases the customer. The transaction holds the organization's lock."""
    if await being_erased(connection, organization_id, [customer_id]):
        raise CustomerBeingErased(customer_id)


async def being_erased(connection: AsyncConnection, organization_id: int, customer_ids: Collection[str]) -> set[str]:
    """Those of the customers that a job erases. The transaction holds the organization's lock."""
    if not customer_ids:
        return set()
    cursor = await (await driver(connection)).execute(_BEING_ERASED, (organization_id, list(customer_ids)))
    return {row[0] for row in await cursor.fetchall()}


_BEING_ERASED = "SELECT customer_id FROM erasure_job WHERE organization_id = %s AND customer_id = ANY(%s)"


async def _of_customer(connection: AsyncConnection, organization_id: int, customer_id: str) -> ErasureJob | None:
    found = await connection.execute(
        select(*COLUMNS).where(
            erasure_job.c.organization_id == organization_id, erasure_job.c.customer_id == customer_id
        )
    )
    row = found.mappings().one_or_none()
    return None if row is None else _job(row)


def _job(row: RowMapping) -> ErasureJob:
    return ErasureJob(**{**row, "state": ErasureState(row["state"])})

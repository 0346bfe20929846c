"""Plans: the offers that customers and subscriptions are on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping, select, update
from sqlalchemy import delete as sql_delete
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.accounts import uses
from store.accounts.puts import Put, is_newer
from store.accounts.uses import FactInUse
from store.identity import organizations
from store.postgres.counting import bounded_count
from store.tables.plans import plan


@dataclass(frozen=True)
class PlanFact:
    """What the caller states about a plan."""

    plan_id: str
    display_name: str
    custom_fields: Mapping[str, str]
    as_of_time: datetime


@dataclass(frozen=True)
class StoredPlan:
    """A plan as it is stored."""

    organization_id: int
    plan_id: str
    display_name: str
    custom_fields: Mapping[str, str]
    as_of_time: datetime
    create_time: datetime
    update_time: datetime


async def put(connection: AsyncConnection, organization_id: int, fact: PlanFact, now: datetime) -> Put[StoredPlan]:
    """Stores the fact, unless a newer one is stored. No router reads it, so it needs no lock of the organization."""
    stated = {"display_name": fact.display_name, "custom_fields": dict(fact.custom_fields)}
    new = insert(plan).values(
        organization_id=organization_id,
        plan_id=fact.plan_id,
        **stated,
        as_of_time=fact.as_of_time,
        create_time=now,
        update_time=now,
        changed_epoch=0,  # older servers raise the epoch for it; nothing reads it
    )
    while (stored := await get(connection, organization_id, fact.plan_id, locked=True)) is None:
        row = (await connection.execute(new.on_conflict_do_nothing().returning(plan))).mappings().one_or_none()
        if row is not None:  # else it was created between the two statements
            return Put(_plan(row), changed=True)
    if is_newer(stored.as_of_time, fact.as_of_time):
        return Put(stored, superseded=True)
    changed = (stored.display_name, stored.custom_fields) != (fact.display_name, fact.custom_fields)
    rows = await connection.execute(
        update(plan)
        .where(plan.c.organization_id == organization_id, plan.c.plan_id == fact.plan_id)
        .values(**stated, as_of_time=fact.as_of_time, update_time=now if changed else stored.update_time)
        .returning(plan)
    )
    return Put(_plan(rows.mappings().one()), changed=changed, previous=stored)


async def get(
    connection: AsyncConnection, organization_id: int, plan_id: str, *, locked: bool = False
) -> StoredPlan | None:
    """One plan, or None. locked: nothing changes it until the transaction ends."""
    statement = select(plan).where(plan.c.organization_id == organization_id, plan.c.plan_id == plan_id)
    rows = await connection.execute(statement.with_for_update() if locked else statement)
    row = rows.mappings().one_or_none()
    return None if row is None else _plan(row)


async def delete(connection: AsyncConnection, organization_id: int, plan_id: str) -> StoredPlan | None:
    """Removes a plan that nothing uses; returns it, or None if it did not exist. Raises FactInUse.

    Locks the organization until the transaction ends, so that nothing begins to use the plan.
    """
    if await get(connection, organization_id, plan_id) is None:
        return None
    await organizations.begin_change(connection, organization_id)
    if (user := await uses.of_plan(connection, organization_id, plan_id)) is not None:
        raise FactInUse({"plan_id": plan_id}, user)
    removed = sql_delete(plan).where(plan.c.organization_id == organization_id, plan.c.plan_id == plan_id)
    row = (await connection.execute(removed.returning(plan))).mappings().one_or_none()
    return None if row is None else _plan(row)


async def list_page(
    connection: AsyncConnection, organization_id: int, *, after: str | None, limit: int
) -> list[StoredPlan]:
    """Up to `limit` plans after the id `after`, in the order of ids."""
    statement = select(plan).where(plan.c.organization_id == organization_id)
    if after is not None:
        statement = statement.where(plan.c.plan_id > after)
    rows = await connection.execute(statement.order_by(plan.c.plan_id).limit(limit))
    return [_plan(row) for row in rows.mappings()]


async def count(connection: AsyncConnection, organization_id: int) -> int:
    """How many plans were put, see `bounded_count`."""
    return await bounded_count(connection, plan, plan.c.organization_id == organization_id)


def _plan(row: RowMapping) -> StoredPlan:
    return StoredPlan(
        organization_id=row["organization_id"],
        plan_id=row["plan_id"],
        display_name=row["display_name"],
        custom_fields=row["custom_fields"],
        as_of_time=row["as_of_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )

"""Plans: the offers that customers and subscriptions are on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping, and_, case, select
from sqlalchemy import delete as sql_delete
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.accounts import uses
from store.accounts.puts import Put
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
    same = and_(*(plan.c[name] == value for name, value in stated.items()))
    statement = insert(plan).values(
        organization_id=organization_id,
        plan_id=fact.plan_id,
        **stated,
        as_of_time=fact.as_of_time,
        create_time=now,
        update_time=now,
        changed_epoch=0,  # older servers raise the epoch for it; nothing reads it
    )
    changed = {**stated, "as_of_time": fact.as_of_time, "update_time": case((same, plan.c.update_time), else_=now)}
    upsert = statement.on_conflict_do_update(
        index_elements=["organization_id", "plan_id"], set_=changed, where=plan.c.as_of_time <= fact.as_of_time
    ).returning(plan)
    while True:
        row = (await connection.execute(upsert)).mappings().one_or_none()
        if row is not None:
            return Put(_plan(row))
        stored = await get(connection, organization_id, fact.plan_id)
        if stored is not None:  # else it was deleted between the two statements
            return Put(stored, superseded=True)


async def get(connection: AsyncConnection, organization_id: int, plan_id: str) -> StoredPlan | None:
    """One plan, or None."""
    rows = await connection.execute(
        select(plan).where(plan.c.organization_id == organization_id, plan.c.plan_id == plan_id)
    )
    row = rows.mappings().one_or_none()
    return None if row is None else _plan(row)


async def delete(connection: AsyncConnection, organization_id: int, plan_id: str) -> bool:
    """Removes a plan that nothing uses; returns whether it existed. Raises FactInUse.

    Locks the organization until the transaction ends, so that nothing begins to use the plan.
    """
    if await get(connection, organization_id, plan_id) is None:
        return False
    await organizations.begin_change(connection, organization_id)
    if (user := await uses.of_plan(connection, organization_id, plan_id)) is not None:
        raise FactInUse({"plan_id": plan_id}, user)
    removed = sql_delete(plan).where(plan.c.organization_id == organization_id, plan.c.plan_id == plan_id)
    return await connection.scalar(removed.returning(plan.c.plan_id)) is not None


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

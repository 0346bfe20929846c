"""The number of an organization's alerts, without archived ones, which triggers keep (migration 0037)."""

from sqlalchemy import ColumnElement, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.definitions import DefinitionState
from runtime.quotas import QuotaKind
from store.identity.quotas import QuotaReached
from store.tables.alerts import alert
from store.tables.quotas import alert_count


async def kept(connection: AsyncConnection, organization_id: int) -> int | None:
    """The number; None while it is not kept for the organization, because it never had a quota."""
    return await connection.scalar(
        select(alert_count.c.alerts).where(alert_count.c.organization_id == organization_id)
    )


async def current(connection: AsyncConnection, organization_id: int) -> int:
    """The number within a transaction that holds the organization's lock exclusively; it is kept from now on.

    The first time it reads an index entry of each alert.
    """
    known = await kept(connection, organization_id)
    if known is not None:
        return known
    counted = select(literal(organization_id), func.count()).where(*_of(organization_id))
    added = await connection.scalar(
        insert(alert_count).from_select(["organization_id", "alerts"], counted).returning(alert_count.c.alerts)
    )
    assert added is not None
    return int(added)


async def number(connection: AsyncConnection, organization_id: int) -> int:
    """The number, without a lock; where it is not kept yet, it reads an index entry of each alert."""
    known = await kept(connection, organization_id)
    if known is not None:
        return known
    return await connection.scalar(select(func.count()).where(*_of(organization_id))) or 0


def _of(organization_id: int) -> tuple[ColumnElement[bool], ...]:
    not_archived = [state for state in DefinitionState if state is not DefinitionState.ARCHIVED]
    return alert.c.organization_id == organization_id, alert.c.state.in_(not_archived)


async def refuse_reached(connection: AsyncConnection, organization_id: int, quota: int | None) -> None:
    """Raises QuotaReached if no alert can be created now. Takes no lock: what it allows may be refused later."""
    if quota is None:
        return
    known = await kept(connection, organization_id)
    if known is not None and known >= quota:
        raise QuotaReached(QuotaKind.ALERTS, quota)


async def above(connection: AsyncConnection, organization_id: int, quota: int | None) -> int:
    """How many alerts there are above the quota, within a transaction that holds the lock exclusively."""
    return 0 if quota is None else max(await current(connection, organization_id) - quota, 0)

"""The number of an organization's alerts, without archived ones, which triggers keep (migration 0037)."""

from sqlalchemy import func, literal, select
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
    number = await kept(connection, organization_id)
    if number is not None:
        return number
    counted = select(literal(organization_id), func.count()).where(
        alert.c.organization_id == organization_id,
        alert.c.state.in_([state for state in DefinitionState if state is not DefinitionState.ARCHIVED]),
    )
    added = await connection.scalar(
        insert(alert_count).from_select(["organization_id", "alerts"], counted).returning(alert_count.c.alerts)
    )
    assert added is not None
    return added


async def refuse_reached(connection: AsyncConnection, organization_id: int, quota: int | None) -> None:
    """Raises QuotaReached if no alert can be created now; without a lock, so it may allow one that is refused later."""
    if quota is None:
        return
    number = await kept(connection, organization_id)
    if number is not None and number >= quota:
        raise QuotaReached(QuotaKind.ALERTS, quota)


async def above(connection: AsyncConnection, organization_id: int, quota: int | None) -> int:
    """How many alerts there are above the quota, within a transaction that holds the lock exclusively."""
    return 0 if quota is None else max(await current(connection, organization_id) - quota, 0)

"""The number of an organization's alerts, without archived ones, which triggers keep (migration 0037)."""

from sqlalchemy import ColumnElement, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.definitions import DefinitionState
from runtime.quotas import QuotaKind
from store.identity import organizations
from store.identity.quotas import QuotaReached
from store.tables.alerts import alert
from store.tables.quotas import alert_count

MOST_COUNTED = 1_000  # alerts of an organization whose number is not kept, at each call


async def kept(connection: AsyncConnection, organization_id: int) -> int | None:
    """The number; None while it is not kept for the organization, because it never had a quota."""
    return await connection.scalar(
        select(alert_count.c.alerts).where(alert_count.c.organization_id == organization_id)
    )


async def current(connection: AsyncConnection, organization_id: int) -> int:
    """The number within a transaction that holds the organization's lock, also shared; it is kept from now on.

    No alert changes while the lock is held. The first time it reads an index entry of each alert.
    """
    known = await kept(connection, organization_id)
    if known is not None:
        return known
    counted = select(literal(organization_id), func.count()).where(*_of(organization_id))
    # With the lock shared, another transaction may have counted the same at the same time.
    await connection.execute(
        insert(alert_count).from_select(["organization_id", "alerts"], counted).on_conflict_do_nothing()
    )
    added = await kept(connection, organization_id)
    assert added is not None
    return added


async def number(connection: AsyncConnection, organization_id: int) -> int:
    """The number, for a reader. Where it is not kept yet, up to MOST_COUNTED alerts are counted each time.

    The number of more alerts is kept from then on: their first count takes the organization's lock shared, as ingest
    does.
    """
    known = await kept(connection, organization_id)
    if known is not None:
        return known
    some = select(literal(1)).where(*_of(organization_id)).limit(MOST_COUNTED + 1).subquery()
    counted = await connection.scalar(select(func.count()).select_from(some)) or 0
    if counted <= MOST_COUNTED:
        return counted
    await organizations.lock_shared(connection, organization_id)
    return await current(connection, organization_id)


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

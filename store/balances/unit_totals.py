"""What a customer's balances in one unit come to. The transaction must hold the customer's wallet."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.amounts import ZERO
from evaluator.balances import Unit
from store.balances.balances import held_in
from store.tables.balances import balance, balance_segment


async def undrawn_and_held(
    connection: AsyncConnection, organization_id: int, customer_id: str, unit: Unit, now: datetime
) -> tuple[Decimal, Decimal]:
    """What usage has not drawn at `now` of all active segments of the customer's balances in the unit.

    And how much of it open reservations hold.
    """
    segment = balance_segment.c
    rows = await connection.execute(
        select(func.sum(segment.amount + segment.adjusted - segment.drawn), func.sum(segment.held))
        .select_from(balance)
        .join(
            balance_segment,
            and_(*(balance.c[name] == segment[name] for name in ("organization_id", "customer_id", "balance_id"))),
        )
        .where(
            balance.c.organization_id == organization_id,
            balance.c.customer_id == customer_id,
            balance.c.void_time.is_(None),
            held_in(unit),
            segment.removed.is_(False),
            segment.start_time <= now,
            or_(segment.end_time.is_(None), segment.end_time > now),
        )
    )
    undrawn, held = rows.one()
    return (ZERO, ZERO) if undrawn is None else (Decimal(undrawn), Decimal(held))

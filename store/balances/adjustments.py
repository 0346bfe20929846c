"""Adjustments: an amount that is added to one segment of a balance, or taken from it.

The transaction must hold the customer's wallet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balances import Unit
from store.balances import balances
from store.balances import entries as balance_entries
from store.balances.balances import StoredBalance, StoredSegment
from store.balances.changes import BalanceChange, BalanceChangeRefused, BalanceUnknown, BalanceVoided, entry_of
from store.balances.entries import EntryType
from store.balances.unit_totals import undrawn_and_held
from store.balances.writing import write_balance, write_segments
from store.tables.balances import balance_adjustment, balance_decrement


class SegmentUnknown(BalanceChangeRefused):
    """The balance has no segment of that number."""

    def __init__(self, customer_id: str, balance_id: str, segment_number: int) -> None:
        super().__init__(customer_id, balance_id)
        self.segment_number = segment_number


class NoActiveSegment(BalanceChangeRefused):
    """None of the balance's segments is active."""


class AdjustmentConflict(BalanceChangeRefused):
    """The adjustment id belongs to another adjustment, of the balance `balance_id`; empty: of several balances."""

    def __init__(self, customer_id: str, balance_id: str, adjustment_id: str) -> None:
        super().__init__(customer_id, balance_id)
        self.adjustment_id = adjustment_id


@dataclass(frozen=True)
class Adjustment:
    """What the caller adds to a segment, or takes away from it if the amount is negative.

    segment_number: None for the active segment that ends first.
    """

    customer_id: str
    balance_id: str
    adjustment_id: str
    amount: Decimal
    segment_number: int | None
    custom_fields: Mapping[str, str] = field(default_factory=dict)


async def adjust(
    connection: AsyncConnection, organization_id: int, adjustment: Adjustment, now: datetime
) -> BalanceChange:
    """Makes an adjustment, unless it was made before.

    Raises AdjustmentConflict, BalanceUnknown, BalanceVoided, SegmentUnknown and NoActiveSegment.
    """
    made = await _made(connection, organization_id, adjustment)
    stored = await balances.get(connection, organization_id, adjustment.customer_id, adjustment.balance_id)
    if stored is None:
        raise BalanceUnknown(adjustment.customer_id, adjustment.balance_id)
    if made is not None:
        return BalanceChange(stored, changed=False, segment_number=made)
    if stored.void_time is not None:
        raise BalanceVoided(adjustment.customer_id, adjustment.balance_id)
    before = _segment_to_adjust(stored, adjustment.segment_number, now)
    with exact_arithmetic():
        topped_up = before.topped_up + max(adjustment.amount, ZERO)
        adjusted = replace(before, adjusted=before.adjusted + adjustment.amount, topped_up=topped_up)
    segments = tuple(adjusted if segment is before else segment for segment in stored.segments)
    result = replace(stored, segments=segments, update_time=now)
    await write_balance(connection, result)
    await write_segments(connection, result, [adjusted])
    number = adjusted.segment_number
    await _write(connection, organization_id, adjustment, number, now)
    unit = Unit(stored.fact.currency, stored.fact.metric_id)
    undrawn, _ = await undrawn_and_held(connection, organization_id, adjustment.customer_id, unit, now)
    entry = replace(
        entry_of(stored.fact, number, EntryType.ADJUSTMENT, adjustment.amount, adjusted.undrawn),
        adjustment_id=adjustment.adjustment_id,
        custom_fields=adjustment.custom_fields,
        customer_remaining=undrawn,
    )
    await balance_entries.append(connection, organization_id, [entry], now)
    return BalanceChange(result, changed=True, previous=stored, segment_number=number)


def _segment_to_adjust(stored: StoredBalance, segment_number: int | None, now: datetime) -> StoredSegment:
    if segment_number is not None:
        for segment in stored.segments:
            if segment.segment_number == segment_number and not segment.removed:
                return segment
        raise SegmentUnknown(stored.fact.customer_id, stored.fact.balance_id, segment_number)
    active = stored.active(now)
    if not active:
        raise NoActiveSegment(stored.fact.customer_id, stored.fact.balance_id)
    # Segments without an end come last.
    return min(active, key=lambda segment: (segment.fact.end_time is None, segment.fact.end_time or now))


async def _made(connection: AsyncConnection, organization_id: int, adjustment: Adjustment) -> int | None:
    """The number of the segment that the adjustment changed if it was made before. Raises AdjustmentConflict."""
    rows = await connection.execute(
        select(balance_adjustment).where(
            balance_adjustment.c.organization_id == organization_id,
            balance_adjustment.c.customer_id == adjustment.customer_id,
            balance_adjustment.c.adjustment_id == adjustment.adjustment_id,
        )
    )
    made = rows.one_or_none()
    if made is None:
        if await _is_decrement(connection, organization_id, adjustment.customer_id, adjustment.adjustment_id):
            raise AdjustmentConflict(adjustment.customer_id, "", adjustment.adjustment_id)
        return None
    requested = adjustment.balance_id, adjustment.amount, adjustment.segment_number, dict(adjustment.custom_fields)
    if (made.balance_id, made.amount, made.requested_segment_number, made.custom_fields) != requested:
        raise AdjustmentConflict(adjustment.customer_id, made.balance_id, adjustment.adjustment_id)
    return int(made.segment_number)


async def _write(
    connection: AsyncConnection, organization_id: int, adjustment: Adjustment, segment_number: int, now: datetime
) -> None:
    await connection.execute(
        insert(balance_adjustment).values(
            organization_id=organization_id,
            customer_id=adjustment.customer_id,
            adjustment_id=adjustment.adjustment_id,
            balance_id=adjustment.balance_id,
            amount=adjustment.amount,
            requested_segment_number=adjustment.segment_number,
            segment_number=segment_number,
            create_time=now,
            custom_fields=dict(adjustment.custom_fields),
        )
    )


async def _is_decrement(
    connection: AsyncConnection, organization_id: int, customer_id: str, adjustment_id: str
) -> bool:
    """Whether the adjustment id belongs to a decrement of several balances."""
    found = await connection.scalar(
        select(balance_decrement.c.adjustment_id).where(
            balance_decrement.c.organization_id == organization_id,
            balance_decrement.c.customer_id == customer_id,
            balance_decrement.c.adjustment_id == adjustment_id,
        )
    )
    return found is not None

"""Changes of balances: put, adjust and void, each with its entries in the ledger.

The customer's wallet must be held for all of them.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balances import Unit
from store.accounts.puts import Put, is_newer
from store.balances import balances, wallets
from store.balances import entries as balance_entries
from store.balances.balances import Balance, BalanceFact, Segment
from store.balances.entries import EntryType, NewEntry
from store.tables.balances import balance, balance_adjustment, balance_segment

_BALANCE_KEY = ("organization_id", "customer_id", "balance_id")
_SEGMENT_KEY = (*_BALANCE_KEY, "segment_number")


class BalanceFixed(Exception):
    """A balance cannot become something else: what was drawn on it would mean something else."""

    def __init__(self, stored: Balance, field: str) -> None:
        super().__init__(field)
        self.stored = stored
        self.field = field  # kind, access, seat or license_type


class BalanceUnknown(Exception):
    """The customer has no such balance."""


class BalanceVoided(Exception):
    """The balance was voided."""


class SegmentUnknown(Exception):
    """The balance has no segment of that number."""


class NoActiveSegment(Exception):
    """None of the balance's segments is active."""


class AdjustmentConflict(Exception):
    """The id belongs to another adjustment."""

    def __init__(self, balance_id: str, amount: Decimal) -> None:
        super().__init__(balance_id)
        self.balance_id = balance_id
        self.amount = amount


@dataclass(frozen=True)
class BalanceChange:
    """The result of an adjustment or a voiding. changed: false when the same change was made before.

    segment_number: the segment that an adjustment changed, now or the first time. previous: the balance before the
    change.
    """

    balance: Balance
    changed: bool
    previous: Balance | None = None
    segment_number: int = 0


async def put(connection: AsyncConnection, organization_id: int, fact: BalanceFact, now: datetime) -> Put[Balance]:
    """Stores the fact, unless a newer one is stored; adjustments, and what was drawn, stay with their segments.

    Raises BalanceFixed.
    """
    stored = await balances.get(connection, organization_id, fact.customer_id, fact.balance_id)
    if stored is not None and (stored.void_time is not None or is_newer(stored.fact.as_of_time, fact.as_of_time)):
        return Put(stored, superseded=True)
    if stored is not None and (field := _fixed_field(stored.fact, fact)) is not None:
        raise BalanceFixed(stored, field)
    if stored is not None and replace(stored.fact, as_of_time=fact.as_of_time) == fact:
        younger = replace(stored, fact=fact)
        await _write(connection, younger)
        return Put(younger)

    old = {segment.segment_number: segment for segment in stored.segments} if stored is not None else {}
    new = {
        number: replace(old.get(number, Segment(number, segment)), fact=segment, removed=False)
        for number, segment in enumerate(fact.segments, start=1)
    }
    left_out = {number: replace(segment, removed=True) for number, segment in old.items() if number not in new}
    segments = tuple(sorted((new | left_out).values(), key=lambda segment: segment.segment_number))
    create_time = now if stored is None else stored.create_time
    result = Balance(organization_id, fact, segments, None, create_time, now)
    await _write(connection, result)
    different = [segment for segment in segments if old.get(segment.segment_number) != segment]
    await _write_segments(connection, result, different)
    entries = []
    for segment in segments:
        before = old.get(segment.segment_number)
        with exact_arithmetic():
            amount = _counting(segment) - (ZERO if before is None else _counting(before))
        if amount:
            entries.append(_entry(fact, segment.segment_number, EntryType.GRANT, amount, _counting(segment)))
    await balance_entries.append(connection, organization_id, entries, now)
    if fact.draw_down:
        unit, seat_key = Unit(fact.currency, fact.metric_id), fact.seat.key if fact.seat else None
        await wallets.expect_draws(connection, organization_id, fact.customer_id, unit, seat_key)
    return Put(result, changed=True, previous=stored)


async def adjust(
    connection: AsyncConnection,
    organization_id: int,
    customer_id: str,
    balance_id: str,
    adjustment_id: str,
    *,
    amount: Decimal,
    segment_number: int | None,
    now: datetime,
) -> BalanceChange:
    """Grants more, or less, in a segment: the one of that number, or the active one that ends first.

    Nothing changes when the same adjustment was made before. Raises AdjustmentConflict, BalanceUnknown,
    BalanceVoided, SegmentUnknown and NoActiveSegment.
    """
    made = await _made(connection, organization_id, customer_id, adjustment_id)
    wanted = (balance_id, amount, segment_number)
    if made is not None and (made.balance_id, made.amount, made.requested_segment_number) != wanted:
        raise AdjustmentConflict(made.balance_id, made.amount)
    stored = await balances.get(connection, organization_id, customer_id, balance_id)
    if stored is None:
        raise BalanceUnknown
    if made is not None:
        return BalanceChange(stored, changed=False, segment_number=made.segment_number)
    if stored.void_time is not None:
        raise BalanceVoided
    before = _segment_to_adjust(stored, segment_number, now)
    with exact_arithmetic():
        topped_up = before.topped_up + max(amount, ZERO)
        adjusted = replace(before, adjusted=before.adjusted + amount, topped_up=topped_up)
    number = adjusted.segment_number
    segments = tuple(adjusted if segment is before else segment for segment in stored.segments)
    result = replace(stored, segments=segments, update_time=now)
    await _write(connection, result)
    await _write_segments(connection, result, [adjusted])
    await connection.execute(
        insert(balance_adjustment).values(
            organization_id=organization_id,
            customer_id=customer_id,
            adjustment_id=adjustment_id,
            balance_id=balance_id,
            amount=amount,
            requested_segment_number=segment_number,
            segment_number=number,
            create_time=now,
        )
    )
    entry = _entry(stored.fact, number, EntryType.ADJUSTMENT, amount, adjusted.remaining)
    await balance_entries.append(connection, organization_id, [replace(entry, adjustment_id=adjustment_id)], now)
    return BalanceChange(result, changed=True, previous=stored, segment_number=number)


async def void(
    connection: AsyncConnection, organization_id: int, customer_id: str, balance_id: str, now: datetime
) -> BalanceChange:
    """Ends the balance for good; what remains of it counts no more. Raises BalanceUnknown."""
    stored = await balances.get(connection, organization_id, customer_id, balance_id)
    if stored is None:
        raise BalanceUnknown
    if stored.void_time is not None:
        return BalanceChange(stored, changed=False)
    result = replace(stored, void_time=now, update_time=now)
    await _write(connection, result)
    entries = [
        _entry(stored.fact, segment.segment_number, EntryType.VOID, -_counting(segment), ZERO)
        for segment in stored.segments
        if _counting(segment)
    ]
    await balance_entries.append(connection, organization_id, entries, now)
    return BalanceChange(result, changed=True, previous=stored)


def _fixed_field(stored: BalanceFact, fact: BalanceFact) -> str | None:
    """The first field in which a fact is of another balance than the stored one."""
    if stored.kind is not fact.kind:
        return "kind"
    if (stored.currency, stored.metric_id) != (fact.currency, fact.metric_id):
        return "access"
    if stored.seat != fact.seat:
        return "seat"
    return "license_type" if stored.license_type != fact.license_type else None


def _counting(segment: Segment) -> Decimal:
    """What the ledger of a segment adds up to while its balance is not voided."""
    return ZERO if segment.removed else segment.remaining


def _segment_to_adjust(stored: Balance, segment_number: int | None, now: datetime) -> Segment:
    if segment_number is not None:
        for segment in stored.segments:
            if segment.segment_number == segment_number and not segment.removed:
                return segment
        raise SegmentUnknown
    active = stored.active(now)
    if not active:
        raise NoActiveSegment
    # Those without an end come last.
    return min(active, key=lambda segment: (segment.fact.end_time is None, segment.fact.end_time or now))


def _entry(
    fact: BalanceFact, segment_number: int, entry_type: EntryType, amount: Decimal, remaining: Decimal
) -> NewEntry:
    return NewEntry(fact.customer_id, fact.balance_id, segment_number, entry_type, amount, remaining)


async def _made(
    connection: AsyncConnection, organization_id: int, customer_id: str, adjustment_id: str
) -> Any | None:
    """The row of an adjustment that was made before."""
    rows = await connection.execute(
        select(balance_adjustment).where(
            balance_adjustment.c.organization_id == organization_id,
            balance_adjustment.c.customer_id == customer_id,
            balance_adjustment.c.adjustment_id == adjustment_id,
        )
    )
    return rows.one_or_none()


async def _write(connection: AsyncConnection, written: Balance) -> None:
    fact = written.fact
    values = {
        "kind": fact.kind.value,
        "currency": fact.currency,
        "metric_id": fact.metric_id,
        "priority": fact.priority,
        "contract_id": fact.contract_id,
        "contract_custom_fields": dict(fact.contract_custom_fields),
        "custom_fields": dict(fact.custom_fields),
        "credit_grant_type": fact.credit_grant_type,
        "seat_group_key": fact.seat.key if fact.seat else None,
        "seat_group_value": fact.seat.value if fact.seat else None,
        "license_type": fact.license_type,
        "draw_down": fact.draw_down,
        "allow_overage": fact.allow_overage,
        "draw_down_metric_ids": list(fact.draw_down_metric_ids),
        "void_time": written.void_time,
        "as_of_time": fact.as_of_time,
        "create_time": written.create_time,
        "update_time": written.update_time,
    }
    await connection.execute(
        insert(balance)
        .values(**_key(written), **values)
        .on_conflict_do_update(index_elements=_BALANCE_KEY, set_=values)
    )


async def _write_segments(connection: AsyncConnection, written: Balance, segments: list[Segment]) -> None:
    if not segments:
        return
    rows = [
        {
            **_key(written),
            "segment_number": segment.segment_number,
            "amount": segment.fact.amount,
            "adjusted": segment.adjusted,
            "topped_up": segment.topped_up,
            "drawn": segment.drawn,
            "start_time": segment.fact.start_time,
            "end_time": segment.fact.end_time,
            "removed": segment.removed,
        }
        for segment in segments
    ]
    statement = insert(balance_segment)
    new = {name: statement.excluded[name] for name in rows[0] if name not in _SEGMENT_KEY}
    await connection.execute(statement.on_conflict_do_update(index_elements=_SEGMENT_KEY, set_=new), rows)


def _key(written: Balance) -> dict[str, Any]:
    fact = written.fact
    values = (written.organization_id, fact.customer_id, fact.balance_id)
    return dict(zip(_BALANCE_KEY, values, strict=True))

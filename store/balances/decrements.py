"""Decrements: one amount that is taken from several balances of a customer in the draw order.

The transaction must hold the customer's wallet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy import RowMapping, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balances import HoldingSegment, Unit
from evaluator.drawdown import Source, UnitBalances, in_order
from store.balances import balances, drawdown, overages
from store.balances import entries as balance_entries
from store.balances.adjustments import AdjustmentConflict
from store.balances.balances import StoredBalance
from store.balances.changes import BalanceUnknown, BalanceVoided
from store.balances.entries import EntryType, NewEntry, StoredEntry
from store.balances.overages import OverageState
from store.balances.unit_totals import undrawn_and_held
from store.balances.writing import write_balance, write_segments
from store.postgres.database import driver
from store.tables.balances import balance_adjustment, balance_decrement

SegmentKey = tuple[str, int]  # balance id and number


class BalancesInsufficient(Exception):
    """The segments cannot give the amount of a decrement that does not allow an overage. available: what they can."""

    def __init__(self, wanted: "Decrement", available: Decimal) -> None:
        super().__init__(wanted.customer_id, wanted.adjustment_id)
        self.wanted = wanted
        self.available = available


@dataclass(frozen=True)
class Decrement:
    """What the caller takes from balances of a customer.

    balance_ids: sorted; empty for all balances of no seat that are not of some metrics only.
    """

    customer_id: str
    adjustment_id: str
    unit: Unit
    amount: Decimal
    balance_ids: tuple[str, ...] = ()
    allow_overage: bool = False
    custom_fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Decremented:
    """The result of a decrement.

    entries: of the ledger, in the draw order. remaining: in all active segments of the unit, less what is held of
    them. overage: the part of the amount that no segment gave. changed: false if the decrement was made before.
    versions: the balances that it changed, as they were before and after it.
    """

    entries: Sequence[StoredEntry]
    remaining: Decimal
    overage: Decimal
    changed: bool = False
    versions: Sequence[StoredBalance] = ()


async def decrement(
    connection: AsyncConnection, organization_id: int, wanted: Decrement, now: datetime
) -> Decremented:
    """Takes the amount, unless the decrement was made before.

    Raises AdjustmentConflict, BalanceUnknown, BalanceVoided and BalancesInsufficient.
    """
    if (made := await _made(connection, organization_id, wanted)) is not None:
        return made
    held = await _held(connection, organization_id, wanted)
    with exact_arithmetic():
        taken, overage = _take(wanted, held, now)
        before = [one for one in held if any(key[0] == one.fact.balance_id for key in taken)]
        after = [_without(one, taken, now) for one in before]
    for one in after:
        await write_balance(connection, one)
        changed = [part for part in one.segments if (one.fact.balance_id, part.segment_number) in taken]
        await write_segments(connection, one, changed)
    if overage:
        await _add_overage(connection, organization_id, wanted, overage, now)
    undrawn, reserved = await undrawn_and_held(connection, organization_id, wanted.customer_id, wanted.unit, now)
    await balance_entries.append(connection, organization_id, _entries(wanted, taken, after, undrawn), now)
    with exact_arithmetic():
        remaining = undrawn - reserved
    await _write(connection, organization_id, wanted, remaining, overage, now)
    written = await _entries_of(connection, organization_id, wanted)
    return Decremented(written, remaining, overage, changed=True, versions=(*before, *after))


async def _made(connection: AsyncConnection, organization_id: int, wanted: Decrement) -> Decremented | None:
    """The result of the decrement if it was made before. Raises AdjustmentConflict."""
    balance_id = await connection.scalar(
        select(balance_adjustment.c.balance_id).where(
            balance_adjustment.c.organization_id == organization_id,
            balance_adjustment.c.customer_id == wanted.customer_id,
            balance_adjustment.c.adjustment_id == wanted.adjustment_id,
        )
    )
    if balance_id is not None:
        raise AdjustmentConflict(wanted.customer_id, balance_id, wanted.adjustment_id)
    rows = await connection.execute(
        select(balance_decrement).where(
            balance_decrement.c.organization_id == organization_id,
            balance_decrement.c.customer_id == wanted.customer_id,
            balance_decrement.c.adjustment_id == wanted.adjustment_id,
        )
    )
    row = rows.mappings().one_or_none()
    if row is None:
        return None
    if _requested(row) != wanted:
        raise AdjustmentConflict(wanted.customer_id, "", wanted.adjustment_id)
    entries = await _entries_of(connection, organization_id, wanted)
    return Decremented(entries, row["remaining"], row["overage"])


def _requested(row: RowMapping) -> Decrement:
    return Decrement(
        customer_id=row["customer_id"],
        adjustment_id=row["adjustment_id"],
        unit=Unit.from_key(row["unit"]),
        amount=row["amount"],
        balance_ids=tuple(row["balance_ids"]),
        allow_overage=row["allow_overage"],
        custom_fields=row["custom_fields"],
    )


async def _held(connection: AsyncConnection, organization_id: int, wanted: Decrement) -> list[StoredBalance]:
    """The balances to take from. Raises BalanceUnknown and BalanceVoided."""
    held = await balances.of_unit(connection, organization_id, wanted.customer_id, wanted.unit, wanted.balance_ids)
    found = {one.fact.balance_id: one for one in held}
    for balance_id in wanted.balance_ids:
        if balance_id not in found:
            raise BalanceUnknown(wanted.customer_id, balance_id)
        if found[balance_id].void_time is not None:
            raise BalanceVoided(wanted.customer_id, balance_id)
    return held


def _take(
    wanted: Decrement, held: Sequence[StoredBalance], now: datetime
) -> tuple[dict[SegmentKey, Decimal], Decimal]:
    """What each segment gives, in the draw order, and what none of them gives. Raises BalancesInsufficient."""
    sources = [
        Source(
            one.fact.balance_id,
            HoldingSegment(
                part.segment_number, part.granted, part.drawn, part.fact.start_time, part.fact.end_time, part.held
            ),
            one.fact.priority,
            overdraws=wanted.allow_overage and one.fact.allow_overage,
        )
        for one in held
        for part in one.active(now)
    ]
    # The stored overage is left out: a credit from corrections of usage is not a balance that a decrement names.
    unit = UnitBalances(wanted.unit, in_order(sources))
    taken: dict[SegmentKey, Decimal] = {}
    for draw in unit.draw(wanted.amount, now, ""):
        key = draw.source.balance_id, draw.source.segment.number
        taken[key] = taken.get(key, ZERO) + draw.amount
    if unit.overage and not wanted.allow_overage:
        raise BalancesInsufficient(wanted, wanted.amount - unit.overage)
    return taken, unit.overage


def _without(one: StoredBalance, taken: Mapping[SegmentKey, Decimal], now: datetime) -> StoredBalance:
    """The balance after its segments gave what was taken."""
    segments = tuple(
        replace(part, adjusted=part.adjusted - taken.get((one.fact.balance_id, part.segment_number), ZERO))
        for part in one.segments
    )
    return replace(one, segments=segments, update_time=now)


def _entries(
    wanted: Decrement, taken: Mapping[SegmentKey, Decimal], after: Sequence[StoredBalance], undrawn: Decimal
) -> list[NewEntry]:
    """The entries of the ledger, in the draw order. undrawn: of all active segments, after the last entry."""
    left = {(one.fact.balance_id, part.segment_number): part.undrawn for one in after for part in one.segments}
    entries = []
    with exact_arithmetic():
        running = undrawn + sum(taken.values(), ZERO)
        for key, amount in taken.items():
            running -= amount
            entries.append(
                NewEntry(
                    wanted.customer_id,
                    *key,
                    EntryType.ADJUSTMENT,
                    -amount,
                    left[key],
                    adjustment_id=wanted.adjustment_id,
                    custom_fields=wanted.custom_fields,
                    customer_remaining=running,
                )
            )
    return entries


async def _entries_of(connection: AsyncConnection, organization_id: int, wanted: Decrement) -> list[StoredEntry]:
    return await balance_entries.of_adjustment(connection, organization_id, wanted.customer_id, wanted.adjustment_id)


async def _add_overage(
    connection: AsyncConnection, organization_id: int, wanted: Decrement, amount: Decimal, now: datetime
) -> None:
    raw, key = await driver(connection), (wanted.customer_id, wanted.unit.key)
    stored = (await overages.of_customers(raw, organization_id, [wanted.customer_id])).get(key, OverageState())
    with exact_arithmetic():
        after = stored._replace(amount=stored.amount + amount)
        await drawdown.write(raw, organization_id, [], {key: after}, now)


async def _write(
    connection: AsyncConnection,
    organization_id: int,
    wanted: Decrement,
    remaining: Decimal,
    overage: Decimal,
    now: datetime,
) -> None:
    await connection.execute(
        insert(balance_decrement).values(
            organization_id=organization_id,
            customer_id=wanted.customer_id,
            adjustment_id=wanted.adjustment_id,
            unit=wanted.unit.key,
            amount=wanted.amount,
            balance_ids=list(wanted.balance_ids),
            allow_overage=wanted.allow_overage,
            custom_fields=dict(wanted.custom_fields),
            remaining=remaining,
            overage=overage,
            create_time=now,
        )
    )

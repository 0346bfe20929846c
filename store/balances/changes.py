"""Changes of balances: put and void, each with its entries in the ledger. `adjustments` and `decrements` are beside.

The transaction must hold the customer's wallet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balances import Unit
from store.accounts.puts import Put, is_newer
from store.balances import balances, wallets
from store.balances import entries as balance_entries
from store.balances.balances import BalanceFact, StoredBalance, StoredSegment
from store.balances.entries import EntryType, NewEntry
from store.balances.writing import write_balance, write_segments


class BalanceFixed(Exception):
    """A put changes a field that cannot change: what was drawn on the balance would mean something else."""

    def __init__(self, stored: StoredBalance, field: str) -> None:
        super().__init__(field)
        self.stored = stored
        self.field = field  # kind, access, seat or license_type


class BalanceExists(Exception):
    """A put that must be of a new balance names one that exists."""

    def __init__(self, customer_id: str, balance_id: str) -> None:
        super().__init__(customer_id, balance_id)
        self.customer_id = customer_id
        self.balance_id = balance_id


class BalanceChangeRefused(Exception):
    """The balance cannot be changed; the subclasses are the reasons."""

    def __init__(self, customer_id: str, balance_id: str) -> None:
        super().__init__(customer_id, balance_id)
        self.customer_id = customer_id
        self.balance_id = balance_id


class BalanceUnknown(BalanceChangeRefused):
    """The customer has no such balance."""


class BalanceVoided(BalanceChangeRefused):
    """The balance is voided."""


@dataclass(frozen=True)
class BalanceChange:
    """The result of an adjustment or a voiding.

    changed: false if the same change was made before. previous: the balance before the change. segment_number: the
    segment that an adjustment changed, now or when it was made.
    """

    balance: StoredBalance
    changed: bool
    previous: StoredBalance | None = None
    segment_number: int = 0


async def put(
    connection: AsyncConnection, organization_id: int, fact: BalanceFact, now: datetime, *, only_if_new: bool = False
) -> Put[StoredBalance]:
    """Stores the fact, unless a newer one is stored or the balance is voided.

    Segments keep their adjustments, and what was drawn from them and is held of them. Raises BalanceFixed; with
    only_if_new, raises BalanceExists for a balance that exists, voided or not.
    """
    stored = await balances.get(connection, organization_id, fact.customer_id, fact.balance_id)
    if only_if_new and stored is not None:
        raise BalanceExists(fact.customer_id, fact.balance_id)
    if stored is not None and (stored.void_time is not None or is_newer(stored.fact.as_of_time, fact.as_of_time)):
        return Put(stored, superseded=True)
    if stored is not None and (field := _fixed_field(stored.fact, fact)) is not None:
        raise BalanceFixed(stored, field)
    if stored is not None and replace(stored.fact, as_of_time=fact.as_of_time) == fact:
        confirmed = replace(stored, fact=fact)
        await write_balance(connection, confirmed)
        return Put(confirmed)

    before = {segment.segment_number: segment for segment in stored.segments} if stored is not None else {}
    segments = _segments_after(before, fact)
    create_time = now if stored is None else stored.create_time
    result = StoredBalance(organization_id, fact, segments, None, create_time, now)
    await write_balance(connection, result)
    await write_segments(
        connection, result, [segment for segment in segments if before.get(segment.segment_number) != segment]
    )
    await balance_entries.append(connection, organization_id, _grants(before, result), now)
    if fact.draw_down:
        unit, seat_key = Unit(fact.currency, fact.metric_id), fact.seat.key if fact.seat else None
        await wallets.add_drawdown_unit(connection, organization_id, fact.customer_id, unit, seat_key)
    return Put(result, changed=True, previous=stored)


async def void(
    connection: AsyncConnection, organization_id: int, customer_id: str, balance_id: str, now: datetime
) -> BalanceChange:
    """Ends the balance for good: what remains of it no longer counts. Raises BalanceUnknown.

    What is held of it stays held: usage that settles the reservation draws it.
    """
    stored = await balances.get(connection, organization_id, customer_id, balance_id)
    if stored is None:
        raise BalanceUnknown(customer_id, balance_id)
    if stored.void_time is not None:
        return BalanceChange(stored, changed=False)
    result = replace(stored, void_time=now, update_time=now)
    await write_balance(connection, result)
    entries = [
        entry_of(stored.fact, segment.segment_number, EntryType.VOID, -_counting(segment), ZERO)
        for segment in stored.segments
        if _counting(segment)
    ]
    await balance_entries.append(connection, organization_id, entries, now)
    return BalanceChange(result, changed=True, previous=stored)


def _segments_after(before: Mapping[int, StoredSegment], fact: BalanceFact) -> tuple[StoredSegment, ...]:
    """All segments of a balance after a put, by number; those that the put leaves out are kept as removed."""
    new = {
        number: replace(before.get(number, StoredSegment(number, segment)), fact=segment, removed=False)
        for number, segment in enumerate(fact.segments, start=1)
    }
    left_out = {number: replace(segment, removed=True) for number, segment in before.items() if number not in new}
    return tuple(sorted((new | left_out).values(), key=lambda segment: segment.segment_number))


def _grants(before: Mapping[int, StoredSegment], after: StoredBalance) -> list[NewEntry]:
    """The entries of a put: by how much it changed what remains of each segment."""
    entries = []
    for segment in after.segments:
        old = before.get(segment.segment_number)
        with exact_arithmetic():
            amount = _counting(segment) - (ZERO if old is None else _counting(old))
        if amount:
            entries.append(entry_of(after.fact, segment.segment_number, EntryType.GRANT, amount, _counting(segment)))
    return entries


def _fixed_field(stored: BalanceFact, fact: BalanceFact) -> str | None:
    """The first field that cannot change and in which the fact differs from the stored one; None if there is none."""
    if stored.kind is not fact.kind:
        return "kind"
    if (stored.currency, stored.metric_id) != (fact.currency, fact.metric_id):
        return "access"
    if stored.seat != fact.seat:
        return "seat"
    return "license_type" if stored.license_type != fact.license_type else None


def _counting(segment: StoredSegment) -> Decimal:
    """The sum of the ledger of a segment while its balance is not voided."""
    return ZERO if segment.removed else segment.undrawn


def entry_of(
    fact: BalanceFact, segment_number: int, entry_type: EntryType, amount: Decimal, remaining: Decimal
) -> NewEntry:
    """An entry of the ledger for a change of one segment."""
    return NewEntry(fact.customer_id, fact.balance_id, segment_number, entry_type, amount, remaining)

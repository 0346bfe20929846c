"""Holds on balances: what open reservations keep of a customer's segments until usage draws it or it is given back.

Pure arithmetic, like `evaluator.drawdown`; the caller reads and stores the segments. For each segment, granted =
remaining + held + drawn.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from evaluator.amounts import ZERO, exact_arithmetic, format_decimal
from evaluator.balances import Unit
from evaluator.drawdown import Draw, Source, UnitBalances

SegmentKey = tuple[str, int]  # balance id and number of the segment


@dataclass(frozen=True, slots=True)
class HeldPart:
    """What a hold took of one segment. amount: more than 0."""

    balance_id: str
    segment_number: int
    amount: Decimal

    @property
    def key(self) -> SegmentKey:
        """The segment."""
        return self.balance_id, self.segment_number


@dataclass(frozen=True, slots=True)
class UnitHold:
    """What one reservation took of its customer's balances in one unit.

    credit: of an overage below zero. parts: of segments, in the order in which they were taken; one segment can be
    there twice. overage: what no segment gave. It is held nowhere; when it is settled, usage takes it as any other.
    """

    unit: Unit
    parts: tuple[HeldPart, ...] = ()
    credit: Decimal = ZERO
    overage: Decimal = ZERO

    @property
    def amount(self) -> Decimal:
        """All of it, with the overage."""
        with exact_arithmetic():
            return sum((one.amount for one in self.parts), self.credit + self.overage)


def available(
    balances: UnitBalances, time: datetime, metric_id: str, of_seat: Sequence[Source] = ()
) -> Decimal | None:
    """What usage of a metric at `time` can take before it becomes overage; None: any amount, a segment overdraws.

    Must run under `exact_arithmetic`.
    """
    total = balances.credit
    for source in balances.active(time, metric_id, of_seat):
        if source.overdraws:
            return None
        total += max(source.segment.remaining, ZERO)
    return total


def hold(
    balances: UnitBalances, amount: Decimal, time: datetime, metric_id: str, of_seat: Sequence[Source] = ()
) -> UnitHold:
    """Takes the amount (at least 0) of usage at `time`, in the draw order; changes what the segments hold.

    Must run under `exact_arithmetic`.
    """
    draws, credit, overage = balances.taken(balances.active(time, metric_id, of_seat), amount)
    for one in draws:
        one.source.segment.held += one.amount
    balances.held += credit
    parts = tuple(HeldPart(one.source.balance_id, one.source.segment.number, one.amount) for one in draws)
    return UnitHold(balances.unit, parts, credit, overage)


def give_back(
    balances: UnitBalances, held: UnitHold, amount: Decimal, sources: Mapping[SegmentKey, Source]
) -> UnitHold:
    """Gives a part of a hold back, in the opposite order, to the segments that it was taken of; returns the rest.

    A segment gets it back whether it has ended or not. sources: the segments of the hold. Must run under
    `exact_arithmetic`.
    """
    from_overage = min(amount, held.overage)
    amount -= from_overage
    kept = list(held.parts)
    while kept and amount > ZERO:
        last = kept.pop()
        returned = min(amount, last.amount)
        sources[last.key].segment.held -= returned
        amount -= returned
        if returned < last.amount:
            kept.append(replace(last, amount=last.amount - returned))
    from_credit = min(amount, held.credit)
    balances.held -= from_credit
    return replace(held, parts=tuple(kept), credit=held.credit - from_credit, overage=held.overage - from_overage)


def settle(
    balances: UnitBalances,
    held: UnitHold,
    amount: Decimal,
    time: datetime,
    metric_id: str,
    of_seat: Sequence[Source],
    sources: Mapping[SegmentKey, Source],
) -> list[Draw]:
    """Ends a hold with usage of the amount; returns what was drawn.

    The usage draws first what is held, from the very segments, whether they have ended or not. What it does not use
    is given back. What it uses more is drawn like any usage at `time`, and so is the part that no segment gave.
    sources: the segments of the hold. Must run under `exact_arithmetic`.
    """
    kept = give_back(balances, held, max(held.amount - max(amount, ZERO), ZERO), sources)
    balances.held -= kept.credit
    balances.overage += kept.credit
    draws = []
    for one in kept.parts:
        source = sources[one.key]
        source.segment.held -= one.amount
        source.segment.drawn += one.amount
        draws.append(Draw(source, one.amount))
    rest = amount - (kept.amount - kept.overage)
    return draws + balances.draw(rest, time, metric_id, of_seat) if rest else draws


def holds_json(holds: Iterable[UnitHold]) -> list[Any]:
    """Holds in the form in which they are stored with their reservation: of each unit a list of its fields."""
    return [
        [
            one.unit.key,
            format_decimal(one.credit),
            format_decimal(one.overage),
            [[part.balance_id, part.segment_number, format_decimal(part.amount)] for part in one.parts],
        ]
        for one in holds
    ]


def holds_from(stored: Sequence[Sequence[Any]]) -> list[UnitHold]:
    """The holds of `holds_json`."""
    return [
        UnitHold(
            Unit.from_key(unit),
            tuple(HeldPart(balance_id, number, Decimal(amount)) for balance_id, number, amount in parts),
            Decimal(credit),
            Decimal(overage),
        )
        for unit, credit, overage, parts in stored
    ]

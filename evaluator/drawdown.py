"""Drawdown: from which segments of a customer's balances usage takes its cost, and to which a correction gives back.

Pure arithmetic; the caller reads and stores the segments. The drawn amount is kept for each segment and not derived
from a total, because segments start and end, and the amount drawn from an ended segment stays drawn.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain

from evaluator.amounts import ZERO
from evaluator.balances import HoldingSegment, Unit

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(eq=False, slots=True)
class Source:
    """A segment that usage may draw on.

    priority: lower ones are drawn on first. of_seat: it belongs to the seat of the usage, and is drawn on before all
    others. overdraws: it can be drawn on when nothing remains; its remaining amount then falls below zero.
    metric_ids: the metrics whose cost may draw on it; empty: all.
    """

    balance_id: str
    segment: HoldingSegment
    priority: int = 0
    of_seat: bool = False
    overdraws: bool = False
    metric_ids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Draw:
    """The amount taken from one segment (positive), or given back to it (negative)."""

    source: Source
    amount: Decimal


@dataclass(slots=True)
class UnitBalances:
    """The balances of a customer in one unit, and its overage: the cost that no balance covered.

    sources: without those of seats, in draw order. overage: below zero where corrections gave back more than usage
    was charged; later usage uses that up first.
    """

    unit: Unit
    sources: list[Source] = field(default_factory=list)
    overage: Decimal = ZERO

    def draw(self, amount: Decimal, time: datetime, metric_id: str, of_seat: Sequence[Source] = ()) -> list[Draw]:
        """Takes the cost of usage at `time` from the segments active then; changes the segments and the overage.

        A positive amount empties one segment after the other, those of the seat first. The rest goes to the first
        segment that overdraws, or else to the overage. A negative amount is a correction and goes the opposite way:
        it lowers the overage, then gives back to the segments, the last first. The rest stays as an overage below
        zero. Must run under `exact_arithmetic`.
        """
        active = (
            source
            for source in chain(of_seat, self.sources)
            if source.segment.covers(time) and (not source.metric_ids or metric_id in source.metric_ids)
        )
        return self._take(active, amount) if amount >= ZERO else self._give_back(list(active), -amount)

    def _take(self, active: Iterable[Source], amount: Decimal) -> list[Draw]:
        """Stops at the segment that gives the last of it: the cost of an event must not depend on later segments."""
        if self.overage < ZERO:
            from_credit = min(amount, -self.overage)
            self.overage += from_credit
            amount -= from_credit
        draws: list[Draw] = []
        last: Source | None = None
        for source in active:
            if amount <= ZERO:
                break
            given = min(amount, source.segment.remaining)
            if given > ZERO:
                source.segment.drawn += given
                draws.append(Draw(source, given))
                amount -= given
            if last is None and source.overdraws:
                last = source
        if amount > ZERO:
            if last is None:
                self.overage += amount
            else:
                last.segment.drawn += amount
                draws.append(Draw(last, amount))
        return draws

    def _give_back(self, active: Sequence[Source], amount: Decimal) -> list[Draw]:
        if self.overage > ZERO:
            from_overage = min(amount, self.overage)
            self.overage -= from_overage
            amount -= from_overage
        draws: list[Draw] = []
        # Overdrawn segments come first: they were overdrawn last, after every other segment was empty.
        overdrawn = [source for source in active if source.overdraws and source.segment.remaining < ZERO]
        for source in overdrawn:
            # Adjustments can also make it negative, but only the amount that usage took is given back.
            returned = min(amount, -source.segment.remaining, source.segment.drawn)
            if returned > ZERO:
                source.segment.drawn -= returned
                draws.append(Draw(source, -returned))
                amount -= returned
        for source in reversed(active):
            returned = min(amount, source.segment.drawn)
            if returned > ZERO:
                source.segment.drawn -= returned
                draws.append(Draw(source, -returned))
                amount -= returned
        self.overage -= amount
        return draws


def in_order(sources: Sequence[Source]) -> list[Source]:
    """The draw order: segments of the seat, then by priority, then the segment that ends first."""
    return sorted(
        sources,
        key=lambda source: (
            not source.of_seat,
            source.priority,
            source.segment.end or _NEVER,
            source.segment.start,
            source.balance_id,
            source.segment.number,
        ),
    )

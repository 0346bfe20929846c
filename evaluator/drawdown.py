"""Drawdown: which segments of a customer's balances usage is taken from, and given back to.

Pure arithmetic over segments that somebody else reads and stores. What a segment gave is kept per segment, not
derived from a total: segments begin and end, and what was drawn from one that has ended stays drawn.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain

from evaluator.amounts import ZERO
from evaluator.balances import Segment, Unit

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(eq=False, slots=True)
class Source:
    """A segment that usage may draw on.

    priority: lower ones give first. of_seat: it is of the seat that the usage is of, and gives before all others.
    overdraws: it gives even when nothing remains, and its remaining amount falls below zero. metric_ids: whose
    cost may draw on it; empty: any metric's.
    """

    balance_id: str
    segment: Segment
    priority: int = 0
    of_seat: bool = False
    overdraws: bool = False
    metric_ids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Draw:
    """What one segment gave (positive), or was given back (negative)."""

    source: Source
    amount: Decimal


@dataclass(slots=True)
class Purse:
    """What a customer holds in one unit, and what usage took when nothing was left.

    sources: of no seat, in the order in which they give. of_seats: those of the seats that matter. overage: below
    zero where more was taken back than ever was charged; later usage uses that up first.
    """

    unit: Unit
    sources: list[Source] = field(default_factory=list)
    overage: Decimal = ZERO

    def draw(self, amount: Decimal, time: datetime, metric_id: str, of_seat: Sequence[Source] = ()) -> list[Draw]:
        """Takes an amount of usage at `time` from the segments that cover it, and changes them and the overage.

        A positive amount empties one segment after the other, the seat's own first; what none has goes to the
        first that overdraws, or else to the overage. A negative amount is a correction and goes the same way
        back: it lowers the overage, then gives back to the segments, the last first; what nobody gave stays as an
        overage below zero. Must run under `exact_arithmetic`.
        """
        there = (
            source
            for source in chain(of_seat, self.sources)
            if source.segment.covers(time) and (not source.metric_ids or metric_id in source.metric_ids)
        )
        return self._take(there, amount) if amount >= ZERO else self._give_back(list(there), -amount)

    def _take(self, there: Iterable[Source], amount: Decimal) -> list[Draw]:
        """Looks no further than the segment that gives the last of it: an event must not pay for all the others."""
        if self.overage < ZERO:
            from_credit = min(amount, -self.overage)
            self.overage += from_credit
            amount -= from_credit
        draws: list[Draw] = []
        last: Source | None = None
        for source in there:
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

    def _give_back(self, there: Sequence[Source], amount: Decimal) -> list[Draw]:
        if self.overage > ZERO:
            from_overage = min(amount, self.overage)
            self.overage -= from_overage
            amount -= from_overage
        draws: list[Draw] = []
        # What was overdrawn was taken last, after every other segment was empty.
        beyond = [source for source in there if source.overdraws and source.segment.remaining < ZERO]
        for source in beyond:
            # Adjustments may have taken it below zero too, and only what usage took is given back.
            returned = min(amount, -source.segment.remaining, source.segment.drawn)
            if returned > ZERO:
                source.segment.drawn -= returned
                draws.append(Draw(source, -returned))
                amount -= returned
        for source in reversed(there):
            returned = min(amount, source.segment.drawn)
            if returned > ZERO:
                source.segment.drawn -= returned
                draws.append(Draw(source, -returned))
                amount -= returned
        self.overage -= amount
        return draws


def in_order(sources: Sequence[Source]) -> list[Source]:
    """The order in which segments give: those of the seat, then by priority, then whatever ends first."""
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

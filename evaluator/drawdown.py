"""Drawdown: from which segments of a customer's balances usage takes its cost, and to which a correction gives back.

Pure arithmetic; the caller reads and stores the segments. The drawn amount is kept for each segment and not derived
from a total, because segments start and end, and the amount drawn from an ended segment stays drawn.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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


# From where an amount comes: what segments give, what an overage below zero does, and what nothing gives.
Taken = tuple[list[Draw], Decimal, Decimal]


@dataclass(slots=True)
class UnitBalances:
    """The balances of a customer in one unit, and its overage: the cost that no balance covered.

    sources: without those of seats, in draw order. overage: below zero where corrections gave back more than usage
    was charged: a credit, which later usage uses up first. held: what open reservations hold of that credit.
    """

    unit: Unit
    sources: list[Source] = field(default_factory=list)
    overage: Decimal = ZERO
    held: Decimal = ZERO

    @property
    def credit(self) -> Decimal:
        """What corrections gave back beyond what was charged, as far as it is not held."""
        return max(-self.overage - self.held, ZERO)

    def active(self, time: datetime, metric_id: str, of_seat: Sequence[Source] = ()) -> Iterator[Source]:
        """The segments on which usage of a metric at `time` may draw, in draw order; those of its seat first."""
        return (
            source
            for source in chain(of_seat, self.sources)
            if source.segment.covers(time) and (not source.metric_ids or metric_id in source.metric_ids)
        )

    def draw(self, amount: Decimal, time: datetime, metric_id: str, of_seat: Sequence[Source] = ()) -> list[Draw]:
        """Takes the cost of usage at `time` from the segments active then; changes the segments and the overage.

        A positive amount empties one segment after the other, those of the seat first. The rest goes to the first
        segment that overdraws, or else to the overage. A negative amount is a correction and goes the opposite way:
        it lowers the overage, then gives back to the segments, the last first. The rest stays as an overage below
        zero. Must run under `exact_arithmetic`.
        """
        active = self.active(time, metric_id, of_seat)
        return self._take(active, amount) if amount >= ZERO else self._give_back(list(active), -amount)

    def move(self, amount: Decimal) -> list[Draw]:
        """Like `draw`, on all sources, whatever the time and the metric. Must run under `exact_arithmetic`."""
        return self._take(self.sources, amount) if amount >= ZERO else self._give_back(self.sources, -amount)

    def taken(self, active: Iterable[Source], amount: Decimal) -> Taken:
        """From where an amount comes, of which nothing is taken yet. active: in draw order.

        Stops at the segment that gives the last of it: the cost of an event must not depend on later segments.
        Must run under `exact_arithmetic`.
        """
        from_credit = ZERO
        if self.overage < ZERO:
            from_credit = min(amount, self.credit)
            amount -= from_credit
        draws: list[Draw] = []
        last: Source | None = None
        for source in active:
            if amount <= ZERO:
                break
            given = min(amount, source.segment.remaining)
            if given > ZERO:
                draws.append(Draw(source, given))
                amount -= given
            if last is None and source.overdraws:
                last = source
        if amount > ZERO and last is not None:
            draws.append(Draw(last, amount))
            amount = ZERO
        return draws, from_credit, amount

    def _take(self, active: Iterable[Source], amount: Decimal) -> list[Draw]:
        draws, from_credit, overage = self.taken(active, amount)
        for one in draws:
            one.source.segment.drawn += one.amount
        if from_credit or overage:
            self.overage += from_credit + overage
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


@dataclass(frozen=True, slots=True)
class PastSource:
    """A source with the time in which usage could draw on it: from when its balance was made until it was voided.

    seat: the property and its value that usage must have to draw on it; None for any usage.
    """

    source: Source
    create_time: datetime
    void_time: datetime | None = None
    seat: tuple[str, str] | None = None

    def was_open(self, ingest_time: datetime) -> bool:
        """Whether usage that came then could draw on it."""
        return self.create_time <= ingest_time and (self.void_time is None or ingest_time < self.void_time)


@dataclass(frozen=True, slots=True)
class UsageClass:
    """Usage of one customer in one unit that draws on the same segments in the same order, added up.

    amount: all of it. voided: how much of it is voided. event_time: of one of the events. ingest_time: when the first
    of them came. metric_id: empty where no source is restricted to it. seats: the properties that name seats.
    """

    amount: Decimal
    voided: Decimal
    event_time: datetime
    ingest_time: datetime
    metric_id: str
    seats: frozenset[tuple[str, str]] = frozenset()


def give_back_voided(
    balances: UnitBalances, past: Sequence[PastSource], classes: Sequence[UsageClass]
) -> dict[PastSource, Decimal]:
    """Takes voided usage back; changes the segments and the overage. Returns what each segment got back.

    Which segments an event drew on is not stored. So the waterfall is computed twice, with all usage and without what
    is voided; each segment gets back the difference. balances: its overage, and the sources that are still open, in
    draw order. classes: in the order in which they came. Must run under `exact_arithmetic`.
    """
    # What no stored event explains (its events are not kept any more, or balances were changed after they came) was
    # drawn before all others.
    drawn = sum((one.source.segment.drawn for one in past), balances.overage)
    unexplained = drawn - sum((one.amount for one in classes), ZERO)
    amounts = [one.amount for one in classes]
    with_all, overage_with_all = _waterfall(balances.unit, past, unexplained, classes, amounts)
    amounts = [one.amount - one.voided for one in classes]
    without, overage_without = _waterfall(balances.unit, past, unexplained, classes, amounts)
    before = {one: one.source.segment.drawn for one in past}
    # The segments may have another history than the waterfall. What does not fit there goes the way of a correction.
    rest = ZERO
    for one in past:
        segment = one.source.segment
        wanted = segment.drawn - (with_all[one] - without[one])
        fits = wanted if one.source.overdraws else min(wanted, max(segment.granted - segment.held, segment.drawn))
        segment.drawn = max(fits, min(segment.drawn, ZERO))
        rest += segment.drawn - wanted
    wanted = balances.overage - (overage_with_all - overage_without)
    balances.overage = max(wanted, min(balances.overage, overage_without, ZERO))
    rest += balances.overage - wanted
    balances.move(-rest)
    # A credit that the remaining usage does not explain was drawn from segments by usage that is voided now.
    for one in past:
        unexplained = min(overage_without, ZERO) - balances.overage
        returned = min(unexplained, one.source.segment.drawn - max(without[one], ZERO))
        if returned > ZERO and one.source in balances.sources:
            one.source.segment.drawn -= returned
            balances.overage += returned
    return {one: before[one] - one.source.segment.drawn for one in past if before[one] != one.source.segment.drawn}


def _waterfall(
    unit: Unit,
    past: Sequence[PastSource],
    unexplained: Decimal,
    classes: Sequence[UsageClass],
    amounts: Sequence[Decimal],
) -> tuple[dict[PastSource, Decimal], Decimal]:
    """What classes of usage draw from each source that nothing was drawn from before, and the overage."""
    fresh = {
        one: replace(one.source, segment=replace(one.source.segment, drawn=ZERO))
        for one in sorted(past, key=lambda one: _rank(one.source))
    }
    pooled = [(one, source) for one, source in fresh.items() if one.seat is None]
    of_seats = [(one, source) for one, source in fresh.items() if one.seat is not None]
    balances = UnitBalances(unit, list(fresh.values()))
    balances.move(unexplained)
    for usage, amount in zip(classes, amounts, strict=True):
        balances.sources = [source for one, source in pooled if one.was_open(usage.ingest_time)]
        own = [source for one, source in of_seats if one.seat in usage.seats and one.was_open(usage.ingest_time)]
        balances.draw(amount, usage.event_time, usage.metric_id, own)
    return {one: source.segment.drawn for one, source in fresh.items()}, balances.overage


def in_order(sources: Sequence[Source]) -> list[Source]:
    """The draw order: segments of the seat, then by priority, then the segment that ends first."""
    return sorted(sources, key=_rank)


def _rank(source: Source) -> tuple[bool, int, datetime, datetime, str, int]:
    segment = source.segment
    end = segment.end or _NEVER
    return not source.of_seat, source.priority, end, segment.start, source.balance_id, segment.number

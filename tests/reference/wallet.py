"""The plain reference ledger of balances: what usage takes of them, gives back, and takes beyond them.

Slow and obvious on purpose, and without a line of evaluator/: fractions instead of decimals, one customer, every
segment looked at for every event. What it says is what the service has to have done.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction

ZERO = Fraction(0)
FOR_GOOD = datetime.max.replace(tzinfo=UTC)

Span = tuple[Fraction, datetime, datetime | None]  # amount, start, end
Where = tuple[str, int]  # balance and place of the segment in it, from 1
Unit = tuple[str, str]  # ("cost", currency) or ("usage", metric)
Held = tuple[str, Unit, tuple[str, str] | None]  # kind, unit and seat


@dataclass(frozen=True)
class Terms:
    """What a balance is. metrics: whose cost draws on it; empty: any. seat: property and value."""

    name: str
    kind: str
    unit: Unit
    priority: int = 0
    overdraws: bool = False
    draws: bool = True
    metrics: frozenset[str] = frozenset()
    seat: tuple[str, str] | None = None

    @property
    def held(self) -> Held:
        return self.kind, self.unit, self.seat


@dataclass
class Segment:
    """put: the amount; adjusted: all adjustments; topped_up: those above 0; taken: by usage, net."""

    put: Fraction
    start: datetime
    end: datetime
    adjusted: Fraction = ZERO
    topped_up: Fraction = ZERO
    taken: Fraction = ZERO
    removed: bool = False

    @property
    def remaining(self) -> Fraction:
        return self.put + self.adjusted - self.taken

    def there(self, time: datetime) -> bool:
        return not self.removed and self.start <= time < self.end


@dataclass
class Balance:
    """A balance; its segments by their place, the ones left out of the last put too."""

    terms: Terms
    segments: dict[int, Segment] = field(default_factory=dict)
    void: bool = False


class PlainWallet:
    """What one customer holds and owes."""

    def __init__(self) -> None:
        self.balances: dict[str, Balance] = {}
        self.overage: dict[Unit, Fraction] = {}
        self._drawing: set[Unit] = set()

    def put(self, terms: Terms, spans: Sequence[Span]) -> None:
        """A balance is put, first or again."""
        balance = self.balances.setdefault(terms.name, Balance(terms))
        if balance.void:
            return
        balance.terms = terms
        for segment in balance.segments.values():
            segment.removed = True
        for place, (amount, start, end) in enumerate(spans, start=1):
            segment = balance.segments.setdefault(place, Segment(amount, start, end or FOR_GOOD))
            segment.put, segment.start, segment.end, segment.removed = amount, start, end or FOR_GOOD, False
        if terms.draws:
            self._drawing.add(terms.unit)

    def adjust(self, name: str, amount: Fraction, place: int | None, now: datetime) -> bool:
        """A segment grants more or less: that of the place, or what is there and ends first; False: there is none."""
        balance = self.balances.get(name)
        if balance is None or balance.void:
            return False
        fitting = [
            segment
            for number, segment in sorted(balance.segments.items())
            if (number == place and not segment.removed) or (place is None and segment.there(now))
        ]
        if not fitting:
            return False
        segment = min(fitting, key=lambda one: one.end)
        segment.adjusted += amount
        segment.topped_up += max(amount, ZERO)
        return True

    def use(
        self,
        time: datetime,
        metric: str,
        quantity: Fraction,
        cost: Fraction | None,
        currency: str,
        properties: Mapping[str, str],
    ) -> None:
        """An event draws, or gives back."""
        for unit, amount in ((("usage", metric), quantity), (("cost", currency), cost)):
            if amount and unit in self._drawing:
                order = self._order(unit, time, metric, properties)
                if amount > 0:
                    self._take(unit, order, amount)
                else:
                    self._give_back(unit, order, -amount)

    def _order(
        self, unit: Unit, time: datetime, metric: str, properties: Mapping[str, str]
    ) -> list[tuple[Segment, bool]]:
        """The segments that an event may draw on, in the order in which they give, and whether they overdraw."""
        found = []
        for name, balance in self.balances.items():
            terms = balance.terms
            if balance.void or not terms.draws or terms.unit != unit:
                continue
            if terms.metrics and metric not in terms.metrics:
                continue
            if terms.seat and properties.get(terms.seat[0]) != terms.seat[1]:
                continue
            for place, segment in balance.segments.items():
                if segment.there(time):
                    rank = (terms.seat is None, terms.priority, segment.end, segment.start, name, place)
                    found.append((rank, segment, terms.overdraws))
        return [(segment, overdraws) for _, segment, overdraws in sorted(found, key=lambda item: item[0])]

    def _take(self, unit: Unit, order: Iterable[tuple[Segment, bool]], amount: Fraction) -> None:
        order = list(order)
        owed = max(ZERO, -self.overage.get(unit, ZERO))  # taken back before without ever having been charged
        self.overage[unit] = self.overage.get(unit, ZERO) + min(amount, owed)
        amount -= min(amount, owed)
        for segment, _ in order:
            part = max(ZERO, min(amount, segment.remaining))
            segment.taken += part
            amount -= part
        beyond = [segment for segment, overdraws in order if overdraws]
        if beyond:
            beyond[0].taken += amount
        else:
            self.overage[unit] += amount

    def _give_back(self, unit: Unit, order: Iterable[tuple[Segment, bool]], amount: Fraction) -> None:
        order = list(order)
        part = min(amount, max(ZERO, self.overage.get(unit, ZERO)))
        self.overage[unit] = self.overage.get(unit, ZERO) - part
        amount -= part
        # What is below zero was taken last. Never more than usage took: the rest of it was adjusted or put away.
        for segment, overdraws in order:
            if overdraws and segment.remaining < 0:
                part = max(ZERO, min(amount, -segment.remaining, segment.taken))
                segment.taken -= part
                amount -= part
        for segment, _ in reversed(order):
            part = min(amount, segment.taken)
            segment.taken -= part
            amount -= part
        self.overage[unit] -= amount

    def remaining(self) -> dict[Where, Fraction]:
        """What every segment has left that was not left out of the last put."""
        return {where: one.remaining for where, one in self._segments() if not one.removed}

    def taken(self) -> dict[Where, Fraction]:
        """What usage took of each of those."""
        return {where: one.taken for where, one in self._segments() if not one.removed}

    def counting(self) -> dict[Where, Fraction]:
        """What the ledger of each segment has to add up to."""
        return {
            where: ZERO if one.removed or self.balances[where[0]].void else one.remaining
            for where, one in self._segments()
        }

    def reading(self, held: Held, now: datetime) -> tuple[Fraction, Fraction]:
        """What such balances have left, and what they granted, in the segments that are there now."""
        counted = [
            segment
            for balance in self.balances.values()
            if balance.terms.held == held and not balance.void
            for segment in balance.segments.values()
            if segment.there(now)
        ]
        left = sum((segment.remaining for segment in counted), ZERO)
        return left, sum((segment.put + segment.topped_up for segment in counted), ZERO)

    def changes(self, after: datetime, until: datetime) -> list[datetime]:
        """When a segment begins or ends after one time and not after another, in order."""
        times = {time for _, one in self._segments() if not one.removed for time in (one.start, one.end)}
        return sorted(time for time in times if after < time <= until)

    def _segments(self) -> list[tuple[Where, Segment]]:
        return [
            ((name, place), segment)
            for name, balance in self.balances.items()
            for place, segment in balance.segments.items()
        ]

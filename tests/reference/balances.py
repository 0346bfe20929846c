"""The reference model of one customer's balances: what usage draws from them, gives back, and takes beyond them.

Slow and obvious on purpose: every event considers every segment.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction

from tests.reference.gauges import Event

ZERO = Fraction(0)
FOREVER = datetime.max.replace(tzinfo=UTC)

COMMIT, CONTRACT_CREDIT, CREDIT_GRANT = "COMMIT", "CONTRACT_CREDIT", "CREDIT_GRANT"
SEAT_CREDIT, LICENSE_ALLOTMENT = "SEAT_CREDIT", "LICENSE_ALLOTMENT"

Span = tuple[Fraction, datetime, datetime | None]  # amount, start, end (None: forever)
SegmentId = tuple[str, int]  # balance and number of the segment in it, from 1
Unit = tuple[str, str]  # ("cost", currency) or ("usage", metric)


@dataclass(frozen=True)
class Terms:
    """What a balance is. type: of a credit grant or a licence. draws: whether usage draws on it. metrics: those whose
    cost draws on it; empty: all. seat: property and value. fields: custom fields. contract: those of its contract."""

    balance_id: str
    kind: str
    unit: Unit
    priority: int = 0
    overdraws: bool = False
    draws: bool = True
    metrics: frozenset[str] = frozenset()
    seat: tuple[str, str] | None = None
    type: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    contract: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Segment:
    """put: the amount. adjusted: the sum of all adjustments. topped_up: of those above 0. drawn: by usage, net.

    held: by open reservations.
    """

    put: Fraction
    start: datetime
    end: datetime
    adjusted: Fraction = ZERO
    topped_up: Fraction = ZERO
    drawn: Fraction = ZERO
    removed: bool = False
    held: Fraction = ZERO

    @property
    def granted(self) -> Fraction:
        """All that was ever granted in it; adjustments below 0 count as used."""
        return self.put + self.topped_up

    @property
    def remaining(self) -> Fraction:
        """What is left of it."""
        return self.put + self.adjusted - self.drawn - self.held

    def active(self, time: datetime) -> bool:
        """Whether it can be used at `time`."""
        return not self.removed and self.start <= time < self.end


@dataclass
class Balance:
    """A balance. segments: by number, those that the last put left out too."""

    terms: Terms
    segments: dict[int, Segment] = field(default_factory=dict)
    void: bool = False

    def active(self, time: datetime) -> list[Segment]:
        """The segments that can be used at `time`."""
        return [] if self.void else [segment for segment in self.segments.values() if segment.active(time)]

    def begun(self, time: datetime) -> bool:
        """Whether any segment has begun at `time`."""
        return any(segment.start <= time for segment in self.segments.values())

    def times(self) -> set[datetime]:
        """When its segments begin and end."""
        return {time for one in self.segments.values() if not one.removed for time in (one.start, one.end)}


class Wallet:
    """The balances of one customer, and its overage in each unit."""

    def __init__(self) -> None:
        self.balances: dict[str, Balance] = {}
        self.overage: dict[Unit, Fraction] = {}
        self.held_credit: dict[Unit, Fraction] = {}  # what reservations hold of an overage below 0
        self._drawing: set[Unit] = set()

    def put(self, terms: Terms, spans: Sequence[Span]) -> None:
        """A balance is put, for the first time or again."""
        balance = self.balances.setdefault(terms.balance_id, Balance(terms))
        if balance.void:
            return
        balance.terms = terms
        for segment in balance.segments.values():
            segment.removed = True
        for number, (amount, start, end) in enumerate(spans, start=1):
            segment = balance.segments.setdefault(number, Segment(amount, start, end or FOREVER))
            segment.put, segment.start, segment.end, segment.removed = amount, start, end or FOREVER, False
        if terms.draws:
            self._drawing.add(terms.unit)

    def adjust(self, balance_id: str, amount: Fraction, number: int | None, now: datetime) -> bool:
        """A segment grants more or less: that of the number, or of the active ones the one that ends first.

        False: there is none.
        """
        balance = self.balances.get(balance_id)
        if balance is None or balance.void:
            return False
        if number is None:
            fitting = [segment for _, segment in sorted(balance.segments.items()) if segment.active(now)]
        else:
            fitting = [balance.segments[number]] if number in balance.segments else []
        fitting = [segment for segment in fitting if not segment.removed]
        if not fitting:
            return False
        segment = min(fitting, key=lambda one: one.end)
        segment.adjusted += amount
        segment.topped_up += max(amount, ZERO)
        return True

    def use(self, event: Event) -> None:
        """An event draws its quantity and its cost, or gives them back."""
        for unit, amount in ((("usage", event.metric), event.quantity), (("cost", event.currency or ""), event.cost)):
            if amount and unit in self._drawing:
                order = self.order(unit, event)
                if amount > 0:
                    self._draw(unit, order, amount)
                else:
                    self._give_back(unit, order, -amount)

    def credit(self, unit: Unit) -> Fraction:
        """What was given back without ever having been drawn, and is not held."""
        return max(ZERO, -self.overage.get(unit, ZERO) - self.held_credit.get(unit, ZERO))

    def covers(self, unit: Unit, event: Event) -> bool:
        """Whether usage needs credit: a balance is for it, though all of its segments may have ended."""
        return any(
            balance.terms.draws
            and balance.terms.unit == unit
            and not balance.void
            and (not balance.terms.metrics or event.metric in balance.terms.metrics)
            for balance in self.balances.values()
        )

    def order(self, unit: Unit, event: Event) -> list[tuple[Segment, bool]]:
        """The segments on which an event may draw, in their order, and whether each can be overdrawn."""
        found = []
        for balance_id, balance in self.balances.items():
            terms = balance.terms
            if balance.void or not terms.draws or terms.unit != unit:
                continue
            if terms.metrics and event.metric not in terms.metrics:
                continue
            if terms.seat and terms.seat not in event.properties:
                continue
            for number, segment in balance.segments.items():
                if segment.active(event.time):
                    rank = (terms.seat is None, terms.priority, segment.end, segment.start, balance_id, number)
                    found.append((rank, segment, terms.overdraws))
        return [(segment, overdraws) for _, segment, overdraws in sorted(found, key=lambda item: item[0])]

    def _draw(self, unit: Unit, order: Iterable[tuple[Segment, bool]], amount: Fraction) -> None:
        order = list(order)
        owed = self.credit(unit)
        self.overage[unit] = self.overage.get(unit, ZERO) + min(amount, owed)
        amount -= min(amount, owed)
        for segment, _ in order:
            part = max(ZERO, min(amount, segment.remaining))
            segment.drawn += part
            amount -= part
        beyond = [segment for segment, overdraws in order if overdraws]
        if beyond:
            beyond[0].drawn += amount
        else:
            self.overage[unit] += amount

    def _give_back(self, unit: Unit, order: Iterable[tuple[Segment, bool]], amount: Fraction) -> None:
        order = list(order)
        part = min(amount, max(ZERO, self.overage.get(unit, ZERO)))
        self.overage[unit] = self.overage.get(unit, ZERO) - part
        amount -= part
        # What is below zero was drawn last. Never more than usage drew: adjustments and puts took the rest.
        for segment, overdraws in order:
            if overdraws and segment.remaining < 0:
                part = max(ZERO, min(amount, -segment.remaining, segment.drawn))
                segment.drawn -= part
                amount -= part
        for segment, _ in reversed(order):
            part = min(amount, segment.drawn)
            segment.drawn -= part
            amount -= part
        self.overage[unit] -= amount

    def remaining(self) -> dict[SegmentId, Fraction]:
        """What each segment has left that the last put did not leave out."""
        return {one: segment.remaining for one, segment in self._segments() if not segment.removed}

    def drawn(self) -> dict[SegmentId, Fraction]:
        """What usage drew of each of those."""
        return {one: segment.drawn for one, segment in self._segments() if not segment.removed}

    def ledger_sums(self) -> dict[SegmentId, Fraction]:
        """The sum of the ledger of each segment."""
        return {
            one: ZERO if segment.removed or self.balances[one[0]].void else segment.remaining
            for one, segment in self._segments()
        }

    def _segments(self) -> list[tuple[SegmentId, Segment]]:
        return [
            ((balance_id, number), segment)
            for balance_id, balance in self.balances.items()
            for number, segment in balance.segments.items()
        ]

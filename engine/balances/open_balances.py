"""Open balances: those on which the usage of one transaction draws, read once for many customers.

Their segments change here as each usage takes its amount; `engine.balances.drawdown` and `engine.balances.holding`
say what is done, and store the changes.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple, Protocol

from evaluator.amounts import ZERO
from evaluator.balance_holds import SegmentKey, UnitHold
from evaluator.balances import Unit
from evaluator.drawdown import Source, UnitBalances, in_order
from store.balances import drawdown as stored_drawdown
from store.balances import held_segments
from store.balances import overages as stored_overages
from store.balances.drawdown import Demand, Drawable
from store.balances.held_segments import Use
from store.balances.overages import OverageState
from store.balances.wallets import Wallet
from store.postgres.database import DriverConnection

CustomerUnit = tuple[str, str]  # customer, and the key of a unit that it has balances in
SeatKey = tuple[str, str, str]  # customer, property and its value


class Drawing(Protocol):
    """Usage that draws on balances: an event, or usage that is asked for. Its time is set."""

    @property
    def customer_id(self) -> str:
        """The customer."""

    @property
    def metric_id(self) -> str:
        """The metric."""

    @property
    def quantity(self) -> Decimal:
        """In the metric's unit."""

    @property
    def cost(self) -> Decimal | None:
        """In the currency."""

    @property
    def currency(self) -> str | None:
        """Of the cost."""

    @property
    def properties(self) -> Mapping[str, str]:
        """With the names of seats."""

    @property
    def event_time(self) -> datetime | None:
        """When it happens."""


class Share(NamedTuple):
    """What a usage takes in one unit. of_seat: the segments of its seats, in draw order."""

    balances: UnitBalances
    amount: Decimal
    time: datetime
    metric_id: str
    of_seat: Sequence[Source]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read.

    drawing: usage that draws, or asks whether it can. asking: those of them that ask, for which it is read whether
    any balance is for them. holds: by customer id, what its reservations hold that are going to end. whole: read all
    that usage can draw on, and not only as much as it needs: what is available in all is then known.
    """

    drawing: Sequence[Drawing]
    asking: Sequence[Drawing] = ()
    holds: Mapping[str, Collection[UnitHold]] = field(default_factory=dict)
    whole: bool = False


class OpenBalances:
    """The balances of some customers. All methods but `load` must run under `exact_arithmetic`."""

    def __init__(self, wallets: Mapping[str, Wallet]) -> None:
        """`wallets`: those of all customers, by id; the transaction holds them if anything is to be changed."""
        self._wallets = wallets
        self._units: dict[CustomerUnit, UnitBalances] = {}
        self._overage_before: dict[CustomerUnit, OverageState] = {}
        self._of_seats: dict[tuple[SeatKey, str], list[Source]] = {}
        self._drawables: dict[Source, Drawable] = {}
        self._sources: dict[str, dict[SegmentKey, Source]] = {}
        self._covered: set[Use] = set()
        self._held_before: dict[Source, Decimal] = {}

    async def load(self, connection: DriverConnection, organization_id: int, wanted: Wanted) -> None:
        """Reads the segments that are wanted. Once for each object."""
        demands, seats = self._demands(wanted)
        keys = {
            (customer_id, part.key)
            for customer_id, holds in wanted.holds.items()
            for one in holds
            for part in one.parts
        }
        customer_ids = {customer_id for customer_id, _ in demands}
        customer_ids.update(customer_id for customer_id, holds in wanted.holds.items() if holds)
        uses = {use for usage in wanted.asking for use in self._uses(usage)}
        async with connection.pipeline():
            drawing = await stored_drawdown.send_drawables(
                connection, organization_id, demands, seats, whole=wanted.whole
            )
            of_holds = await held_segments.send_segments(connection, organization_id, keys) if keys else None
            owed = await stored_overages.send_read(connection, organization_id, customer_ids)
            asked = await held_segments.send_with_balances(connection, organization_id, uses)
        found = await stored_drawdown.drawables(drawing)
        held = [] if of_holds is None else await held_segments.segments(of_holds)
        overages = await stored_overages.states(owed)
        self._covered = await held_segments.with_balances(asked)
        for customer_id in customer_ids:
            for unit_key in self._wallets[customer_id].draw_units:
                key = customer_id, unit_key
                before = self._overage_before[key] = overages.get(key, OverageState())
                self._units[key] = UnitBalances(Unit.from_key(unit_key), overage=before.amount, held=before.held)
        for item in (*found, *held):
            self._add(item)
        for balances in self._units.values():
            balances.sources = in_order(balances.sources)
        self._of_seats = {key: in_order(sources) for key, sources in self._of_seats.items()}

    def _add(self, item: Drawable) -> None:
        """Adds a segment, once: one that is held can also be one to draw on."""
        of_customer = self._sources.setdefault(item.customer_id, {})
        source = item.source
        key = source.balance_id, source.segment.number
        if key in of_customer:
            return
        of_customer[key] = source
        self._drawables[source] = item
        self._held_before[source] = source.segment.held
        if not item.gives:
            return
        seat, unit_key = item.holding.seat, item.holding.unit.key
        if seat is None:
            self._units[item.customer_id, unit_key].sources.append(source)
        else:
            of_seat = (item.customer_id, seat.key, seat.value), unit_key
            self._of_seats.setdefault(of_seat, []).append(source)

    def shares(self, usage: Drawing) -> list[Share]:
        """What a usage takes, or gives back, in each unit that its customer has had balances in."""
        customer_id, shares = usage.customer_id, list[Share]()
        wallet, time = self._wallets[customer_id], time_of(usage)
        for unit_key, amount in self._amounts(usage):
            of_seat: Sequence[Source] = ()
            if wallet.seat_keys:
                found = [self._of_seats.get((seat, unit_key), []) for seat in self._seats(usage)]
                # Of several seats, those of the lowest priority give first, whichever seat that is.
                of_seat = found[0] if len(found) == 1 else in_order([source for one in found for source in one])
            shares.append(Share(self._units[customer_id, unit_key], amount, time, usage.metric_id, of_seat))
        return shares

    def is_covered(self, usage: Drawing, unit: Unit) -> bool:
        """Whether any balance in the unit that is not voided is for the usage; known of the usage that asks."""
        return any(use in self._covered for use in self._uses(usage) if use.unit == unit.key)

    def unit(self, customer_id: str, unit: Unit) -> UnitBalances:
        """The balances of a customer in a unit that it has had balances in."""
        return self._units[customer_id, unit.key]

    def sources(self, customer_id: str) -> Mapping[SegmentKey, Source]:
        """All segments of a customer that were read."""
        return self._sources.get(customer_id, {})

    def drawable(self, source: Source) -> Drawable:
        """The segment with its balance."""
        return self._drawables[source]

    def changed_holds(self) -> Iterable[Source]:
        """The segments of which more or less is held than before."""
        return (source for source, before in self._held_before.items() if source.segment.held != before)

    def changed_overages(self) -> dict[CustomerUnit, OverageState]:
        """The overages that changed."""
        after = {key: OverageState(balances.overage, balances.held) for key, balances in self._units.items()}
        return {key: state for key, state in after.items() if state != self._overage_before[key]}

    def _demands(self, wanted: Wanted) -> tuple[dict[CustomerUnit, Demand], dict[SeatKey, tuple[datetime, datetime]]]:
        """How much the usage draws in each unit, and the seats that it names with their first and last time."""
        demands: dict[CustomerUnit, Demand] = {}
        seats: dict[SeatKey, tuple[datetime, datetime]] = {}
        for usage in wanted.drawing:
            time = time_of(usage)
            amounts = self._amounts(usage)
            for unit_key, amount in amounts:
                key = usage.customer_id, unit_key
                one = demands.get(key)
                if one is None:
                    one = demands[key] = Demand(time, time, ZERO)
                one.first, one.last = min(one.first, time), max(one.last, time)
                one.amount = None if amount < ZERO or one.amount is None else one.amount + amount
            for seat in self._seats(usage) if amounts else ():
                earliest, latest = seats.get(seat, (time, time))
                seats[seat] = min(earliest, time), max(latest, time)
        return demands, seats

    def _amounts(self, usage: Drawing) -> list[tuple[str, Decimal]]:
        """The amount that a usage takes, or gives back, in each unit that its customer has had balances in."""
        units = self._wallets[usage.customer_id].draw_units
        amounts = [(f"usage/{usage.metric_id}", usage.quantity)]
        if usage.cost is not None:
            amounts.append((f"cost/{usage.currency}", usage.cost))
        return [(unit_key, amount) for unit_key, amount in amounts if amount and unit_key in units]

    def _seats(self, usage: Drawing) -> list[SeatKey]:
        """The seats that a usage names."""
        keys, properties = self._wallets[usage.customer_id].seat_keys, usage.properties
        return [(usage.customer_id, key, properties[key]) for key in keys if key in properties]

    def _uses(self, usage: Drawing) -> list[Use]:
        """What makes balances be for a usage: each of its units, with no seat and with each of its seats."""
        seats = [None, *((key, value) for _, key, value in self._seats(usage))]
        return [
            Use(usage.customer_id, unit_key, usage.metric_id, seat)
            for unit_key, _ in self._amounts(usage)
            for seat in seats
        ]


def time_of(usage: Drawing) -> datetime:
    """When a usage happens, which is set."""
    assert usage.event_time is not None, "usage draws at a time"
    return usage.event_time

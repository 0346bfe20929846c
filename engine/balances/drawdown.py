"""Drawing: usage that comes in is taken from the customers' balances, and moves the gauges of what remains."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from engine.evaluation.subjects import Movement, Subject
from engine.facts.changes import catch_up
from evaluator.aggregation import Tally
from evaluator.alerts import AlertRule
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balance_values import balance_values as readings
from evaluator.balance_values import gauge_of, groups_of, measure_takes, moved_by
from evaluator.balances import BalanceReading, Holding, Seat, Unit
from evaluator.drawdown import Source, UnitBalances, in_order
from evaluator.events import UsageEvent
from evaluator.gauges import Gauge
from evaluator.routing import Router
from evaluator.watched_gauges import WatchedGauge as Watch
from evaluator.watched_gauges import watched_fact_gauge
from runtime.turns import Slices
from store.balances import drawdown as drawing
from store.balances import holdings, wallets
from store.balances.drawdown import Demand, Drawable
from store.balances.wallets import Wallet
from store.identity.organizations import Organization
from store.postgres.database import Connection, driver

PurseKey = tuple[str, str]  # customer and unit key
SeatKey = tuple[str, str, str]  # customer, property and its value


@dataclass(frozen=True)
class Drawn:
    """How the gauges of balances move, and as of when the customers' balances are looked at, by customer."""

    movements: dict[Watch, Movement]
    moments: dict[str, datetime]


async def draw(
    connection: Connection,
    organization: Organization,
    router: Router,
    events: Sequence[UsageEvent],
    now: datetime,
    *,
    careful: bool = False,
) -> Drawn:
    """Takes the events' costs and quantities from what their customers hold, in the order in which they came.

    Holds the wallets of those whose balances usage draws on, and first does for them what time has asked for.
    What the gauges of balances say of it is still to be evaluated.
    """
    organization_id = organization.organization_id
    customer_ids = {event.customer_id for event in events}
    held = await wallets.lock_with_drawdown(connection, organization_id, customer_ids)
    if not held:
        return Drawn({}, {})
    known = {router.customers[wallet.customer_id]: wallet for wallet in held.values()}
    await catch_up(connection, organization, router, known, now, careful=careful)
    drawer = _Drawer(router, held, now)
    own = [event for event in events if event.customer_id in held]
    with exact_arithmetic():
        await drawer.load(connection, organization_id, own)
        slices = Slices(organization_id)
        await slices.begin()
        for event in own:
            drawer.take(event)
            await slices.pause()
        drawn, overage = drawer.changes()
        await drawing.write(await driver(connection), organization_id, drawn, overage, now)
    return Drawn(drawer.movements, {wallet.customer_id: wallet.moment(now) for wallet in held.values()})


async def settle(connection: Connection, organization_id: int, subjects: Iterable[Subject], drawn: Drawn) -> None:
    """Reads balances anew for gauges that were moved though nobody had read them, or not without a gap.

    Also percentages of nothing, which have no scale: something may have been granted since.
    """
    raw = await driver(connection)
    for subject in subjects:
        gauge, rule = subject.movement.watch.gauge, subject.movement.watch.alerts[0]
        selection = gauge.measure.balances
        if selection is None:
            continue
        if subject.before is not None and (subject.scale is not None or not selection.reading.is_percent):
            continue
        now = drawn.moments[gauge.customer_id]
        if selection.seat_key is not None:
            seats = [Seat(key, value) for key, value in gauge.group]
            own = await holdings.of_seats(raw, organization_id, gauge.customer_id, seats)
        else:
            by_customer = await holdings.of_kinds(raw, organization_id, [gauge.customer_id], selection.kinds)
            own = by_customer.get(gauge.customer_id, [])
        with exact_arithmetic():
            reading = readings(rule, gauge.customer_id, own, now, own)[gauge]
            if reading.value is None:
                subject.before, subject.reading = Tally(), reading
            else:
                subject.before = Tally(reading.value - subject.movement.total)
                subject.scale = reading.scale


class _Drawer:
    """The purses of the customers of one commit. All methods must run under `exact_arithmetic`."""

    def __init__(self, router: Router, held: dict[str, Wallet], now: datetime) -> None:
        self.movements: dict[Watch, Movement] = {}
        self._router = router
        self._held = held
        self._now = now
        self._purses: dict[PurseKey, UnitBalances] = {}
        self._overage_before: dict[PurseKey, Decimal] = {}
        self._of_seats: dict[tuple[SeatKey, str], list[Source]] = {}
        self._drawables: dict[Source, Drawable] = {}
        self._drawn: dict[Source, Decimal] = {}
        self._watches: dict[Gauge, Watch] = {}
        self._watches_of: dict[tuple[str, str], list[Watch]] = {}

    async def load(self, connection: Connection, organization_id: int, events: Sequence[UsageEvent]) -> None:
        """Reads what the events may draw on."""
        wanted: dict[PurseKey, Demand] = {}
        seats: dict[SeatKey, tuple[datetime, datetime]] = {}
        for event in events:
            time = event.event_time
            amounts = self._amounts(event)
            for unit_key, amount in amounts:
                key = event.customer_id, unit_key
                one = wanted.get(key)
                if one is None:
                    one = wanted[key] = Demand(time, time, ZERO)
                one.first, one.last = min(one.first, time), max(one.last, time)
                one.amount = None if amount < ZERO or one.amount is None else one.amount + amount
            for of_seat in self._seats(event) if amounts else ():
                earliest, latest = seats.get(of_seat, (time, time))
                seats[of_seat] = min(earliest, time), max(latest, time)
        raw = await driver(connection)
        found = await drawing.drawables(raw, organization_id, wanted, seats)
        customer_ids = {customer_id for customer_id, _ in wanted}
        overages = await drawing.overages(raw, organization_id, customer_ids)
        for customer_id in customer_ids:
            for unit_key in self._held[customer_id].draw_units:
                key = customer_id, unit_key
                before = self._overage_before[key] = overages.get(key, ZERO)
                self._purses[key] = UnitBalances(Unit.from_key(unit_key), overage=before)
        for item in found:
            self._drawables[item.source] = item
            seat, unit_key = item.holding.seat, item.holding.unit.key
            if seat is None:
                self._purses[item.customer_id, unit_key].sources.append(item.source)
            else:
                place = (item.customer_id, seat.key, seat.value), unit_key
                self._of_seats.setdefault(place, []).append(item.source)
        for purse in self._purses.values():
            purse.sources = in_order(purse.sources)
        self._of_seats = {place: in_order(sources) for place, sources in self._of_seats.items()}

    def take(self, event: UsageEvent) -> None:
        """Draws the cost and the quantity of one event."""
        moved: dict[Watch, Decimal] = {}
        for unit_key, amount in self._amounts(event):
            found = [self._of_seats.get((seat, unit_key), []) for seat in self._seats(event)]
            # Of several seats, those of the lowest priority give first, whichever seat that is.
            of_seat = found[0] if len(found) == 1 else in_order([source for one in found for source in one])
            purse = self._purses[event.customer_id, unit_key]
            for one in purse.draw(amount, event.event_time, event.metric_id, of_seat):
                self._drawn[one.source] = self._drawn.get(one.source, ZERO) + one.amount
                # What is not there now is on no gauge; it is read when its time comes.
                if one.source.segment.covers(self._held[event.customer_id].moment(self._now)):
                    for watch in self._watching(self._drawables[one.source]):
                        selection = watch.gauge.measure.balances
                        assert selection is not None
                        moved[watch] = moved.get(watch, ZERO) + moved_by(selection, one.amount)
        for watch, amount in moved.items():
            movement = self.movements.setdefault(watch, Movement(watch))
            movement.entries.append((amount, event))
            movement.total += amount
            movement.falls = movement.falls or amount < ZERO

    def changes(self) -> tuple[list[tuple[Drawable, Decimal]], dict[PurseKey, Decimal]]:
        """What each segment gave in all, and the overages that changed."""
        drawn = [(self._drawables[source], amount) for source, amount in self._drawn.items() if amount]
        overage = {
            key: purse.overage for key, purse in self._purses.items() if purse.overage != self._overage_before[key]
        }
        return drawn, overage

    def _amounts(self, event: UsageEvent) -> list[tuple[str, Decimal]]:
        """What an event takes, or gives back, in each unit that its customer has balances in."""
        units = self._held[event.customer_id].draw_units
        amounts = [(f"usage/{event.metric_id}", event.quantity)]
        if event.cost is not None:
            amounts.append((f"cost/{event.currency}", event.cost))
        return [(unit_key, amount) for unit_key, amount in amounts if amount and unit_key in units]

    def _seats(self, event: UsageEvent) -> list[SeatKey]:
        """The seats that an event is of."""
        keys, properties = self._held[event.customer_id].seat_keys, event.properties
        return [(event.customer_id, key, properties[key]) for key in keys if key in properties]

    def _watching(self, item: Drawable) -> list[Watch]:
        """The gauges that count a balance."""
        key = item.customer_id, item.holding.balance_id
        if key not in self._watches_of:
            customer = self._router.customers[item.customer_id]
            self._watches_of[key] = [
                self._watches.setdefault(gauge, watched_fact_gauge(gauge, rules, customer))
                for gauge, rules in self._gauges(item.customer_id, item.holding).items()
            ]
        return self._watches_of[key]

    def _gauges(self, customer_id: str, holding: Holding) -> dict[Gauge, list[AlertRule]]:
        found: dict[Gauge, list[AlertRule]] = {}
        for rule in self._router.fact_rules(self._router.customers[customer_id]):
            selection = rule.measure.balances
            if selection is None or selection.reading is BalanceReading.DAYS_LEFT:
                continue
            if measure_takes(rule.measure, holding):
                for group in groups_of(selection, holding):
                    if rule.selects(group):
                        found.setdefault(gauge_of(customer_id, rule.measure, group), []).append(rule)
        return found

"""Drawdown: usage takes its cost from the customers' balances, and moves the gauges of these balances."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from engine.evaluation.subjects import Movement, Subject
from engine.facts.due_timers import catch_up
from engine.recharges.evaluating import evaluate_recharges
from engine.rules.transaction import Transaction
from evaluator.aggregation import Tally
from evaluator.alerts import AlertRule
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balance_values import balance_values, gauge_of, groups_of, measure_takes, moved_by
from evaluator.balances import BalanceReading, BalanceSelection, Holding, Seat, Unit
from evaluator.drawdown import Source, UnitBalances, in_order
from evaluator.events import UsageEvent
from evaluator.gauges import Gauge
from evaluator.routing import Router
from evaluator.watched_gauges import WatchedGauge, watched_fact_gauge
from store.balances import drawdown as stored_drawdown
from store.balances import holdings, wallets
from store.balances import overages as stored_overages
from store.balances.drawdown import Demand, Drawable
from store.balances.wallets import Wallet

CustomerUnit = tuple[str, str]  # customer, and the key of a unit that it has balances in
SeatKey = tuple[str, str, str]  # customer, property and its value


@dataclass(frozen=True)
class Drawdown:
    """How the gauges of balances move, and as of when each customer's balances are read, by customer id."""

    movements: dict[WatchedGauge, Movement]
    read_times: dict[str, datetime]


async def draw_down(
    transaction: Transaction, events: Sequence[UsageEvent], held: dict[str, Wallet] | None = None
) -> Drawdown:
    """Takes the events' costs and quantities from their customers' balances, in the order in which they came.

    Locks the wallets of the customers that have balances to draw on, unless these are already `held`, then processes
    their due timers. The gauges of the balances are still to be moved and evaluated.
    """
    organization_id, now = transaction.organization_id, transaction.now
    if held is None:
        customer_ids = {event.customer_id for event in events}
        held = await wallets.lock_with_drawdown(transaction.connection, organization_id, customer_ids)
    if not held:
        return Drawdown({}, {})
    await catch_up(transaction, {transaction.router.customer(wallet.customer_id): wallet for wallet in held.values()})
    running = _RunningDrawdown(transaction.router, held, now)
    own = [event for event in events if event.customer_id in held]
    with exact_arithmetic():
        await running.load(transaction, own)
        slices = transaction.slices()
        await slices.begin()
        for event in own:
            running.take(event)
            await slices.pause()
        drawn, overage = running.changes()
        await stored_drawdown.write(transaction.driver, organization_id, drawn, overage, now)
    await recharge_drawn(transaction, held, (item for item, _ in drawn), own)
    return Drawdown(running.movements, {wallet.customer_id: wallet.moment(now) for wallet in held.values()})


async def recharge_drawn(
    transaction: Transaction, held: Mapping[str, Wallet], drawn: Iterable[Drawable], events: Sequence[UsageEvent]
) -> None:
    """Evaluates the recharge policies of balances from which usage drew, or to which it gave back."""
    recharging = {customer_id: wallet for customer_id, wallet in held.items() if wallet.has_recharge_policy}
    if not recharging:
        return
    touched: dict[str, set[str]] = {}
    for item in drawn:
        if item.customer_id in recharging:
            touched.setdefault(item.customer_id, set()).add(item.holding.balance_id)
    customers = {transaction.router.customer(customer_id): recharging[customer_id] for customer_id in touched}
    await evaluate_recharges(transaction, customers, touched, events=events)


async def read_unknown_balances(
    transaction: Transaction, subjects: Iterable[Subject], read_times: Mapping[str, datetime]
) -> None:
    """Reads the balances of gauges whose value before the drawdown is not known: never read, or not without a gap.

    Also those of percentages of nothing, which have no scale: a segment may have been granted since. read_times: see
    `Drawdown`.
    """
    for subject in subjects:
        gauge, rule = subject.movement.watch.gauge, subject.movement.watch.alerts[0]
        selection = gauge.measure.balances
        if selection is None:
            continue
        if subject.before is not None and (subject.scale is not None or not selection.reading.is_percent):
            continue
        own = await _balances_of(transaction, gauge, selection)
        with exact_arithmetic():
            reading = balance_values(rule, gauge.customer_id, own, read_times[gauge.customer_id], own)[gauge]
            if reading.value is None:
                subject.before, subject.reading = Tally(), reading
            else:
                subject.before = Tally(reading.value - subject.movement.total)
                subject.scale = reading.scale


async def _balances_of(transaction: Transaction, gauge: Gauge, selection: BalanceSelection) -> list[Holding]:
    """The balances that a gauge counts, and others of the same customer."""
    connection, organization_id, customer_id = transaction.driver, transaction.organization_id, gauge.customer_id
    if selection.seat_key is not None:
        seats = [Seat(key, value) for key, value in gauge.group]
        return await holdings.of_seats(connection, organization_id, customer_id, seats)
    by_customer = await holdings.of_kinds(connection, organization_id, [customer_id], selection.kinds)
    return by_customer.get(customer_id, [])


class _RunningDrawdown:
    """The drawdown of the customers of one commit. All methods must run under `exact_arithmetic`."""

    def __init__(self, router: Router, held: dict[str, Wallet], now: datetime) -> None:
        self.movements: dict[WatchedGauge, Movement] = {}
        self._held = held
        self._now = now
        self._units: dict[CustomerUnit, UnitBalances] = {}
        self._overage_before: dict[CustomerUnit, Decimal] = {}
        self._of_seats: dict[tuple[SeatKey, str], list[Source]] = {}
        self._drawables: dict[Source, Drawable] = {}
        self._drawn: dict[Source, Decimal] = {}
        self._watches = BalanceWatches(router)

    async def load(self, transaction: Transaction, events: Sequence[UsageEvent]) -> None:
        """Reads the segments that the events may draw on."""
        wanted, seats = self._wanted(events)
        connection, organization_id = transaction.driver, transaction.organization_id
        found = await stored_drawdown.drawables(connection, organization_id, wanted, seats)
        customer_ids = {customer_id for customer_id, _ in wanted}
        overages = await stored_overages.of_customers(connection, organization_id, customer_ids)
        for customer_id in customer_ids:
            for unit_key in self._held[customer_id].draw_units:
                key = customer_id, unit_key
                before = self._overage_before[key] = overages.get(key, ZERO)
                self._units[key] = UnitBalances(Unit.from_key(unit_key), overage=before)
        for item in found:
            self._drawables[item.source] = item
            seat, unit_key = item.holding.seat, item.holding.unit.key
            if seat is None:
                self._units[item.customer_id, unit_key].sources.append(item.source)
            else:
                of_seat = (item.customer_id, seat.key, seat.value), unit_key
                self._of_seats.setdefault(of_seat, []).append(item.source)
        for balances in self._units.values():
            balances.sources = in_order(balances.sources)
        self._of_seats = {key: in_order(sources) for key, sources in self._of_seats.items()}

    def _wanted(
        self, events: Sequence[UsageEvent]
    ) -> tuple[dict[CustomerUnit, Demand], dict[SeatKey, tuple[datetime, datetime]]]:
        """How much the events draw in each unit, and the seats that they name with their first and last time."""
        wanted: dict[CustomerUnit, Demand] = {}
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
            for seat in self._seats(event) if amounts else ():
                earliest, latest = seats.get(seat, (time, time))
                seats[seat] = min(earliest, time), max(latest, time)
        return wanted, seats

    def take(self, event: UsageEvent) -> None:
        """Draws the cost and the quantity of one event."""
        moved: dict[WatchedGauge, Decimal] = {}
        for unit_key, amount in self._amounts(event):
            found = [self._of_seats.get((seat, unit_key), []) for seat in self._seats(event)]
            # Of several seats, those of the lowest priority give first, whichever seat that is.
            of_seat = found[0] if len(found) == 1 else in_order([source for one in found for source in one])
            balances = self._units[event.customer_id, unit_key]
            for one in balances.draw(amount, event.event_time, event.metric_id, of_seat):
                self._drawn[one.source] = self._drawn.get(one.source, ZERO) + one.amount
                # A segment that is not active now is on no gauge; it is read when it begins.
                if one.source.segment.covers(self._held[event.customer_id].moment(self._now)):
                    for watch in self._watches.of(self._drawables[one.source]):
                        selection = watch.gauge.measure.balances
                        assert selection is not None
                        moved[watch] = moved.get(watch, ZERO) + moved_by(selection, one.amount)
        for watch, amount in moved.items():
            self.movements.setdefault(watch, Movement(watch)).add(amount, event)

    def changes(self) -> tuple[list[tuple[Drawable, Decimal]], dict[CustomerUnit, Decimal]]:
        """The amount that each segment gave in all, and the overages that changed."""
        drawn = [(self._drawables[source], amount) for source, amount in self._drawn.items() if amount]
        overage = {
            key: balances.overage
            for key, balances in self._units.items()
            if balances.overage != self._overage_before[key]
        }
        return drawn, overage

    def _amounts(self, event: UsageEvent) -> list[tuple[str, Decimal]]:
        """The amount that an event takes, or gives back, in each unit that its customer has balances in."""
        units = self._held[event.customer_id].draw_units
        amounts = [(f"usage/{event.metric_id}", event.quantity)]
        if event.cost is not None:
            amounts.append((f"cost/{event.currency}", event.cost))
        return [(unit_key, amount) for unit_key, amount in amounts if amount and unit_key in units]

    def _seats(self, event: UsageEvent) -> list[SeatKey]:
        """The seats that an event names."""
        keys, properties = self._held[event.customer_id].seat_keys, event.properties
        return [(event.customer_id, key, properties[key]) for key in keys if key in properties]


class BalanceWatches:
    """Finds the gauges of balances that alerts watch. One of each, however many segments move it."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._watches: dict[Gauge, WatchedGauge] = {}
        self._watches_of: dict[tuple[str, str], list[WatchedGauge]] = {}

    def of(self, item: Drawable) -> list[WatchedGauge]:
        """The gauges that count a balance and that usage moves."""
        key = item.customer_id, item.holding.balance_id
        if key not in self._watches_of:
            customer = self._router.customer(item.customer_id)
            self._watches_of[key] = [
                self._watches.setdefault(gauge, watched_fact_gauge(gauge, rules, customer))
                for gauge, rules in self._gauges(item.customer_id, item.holding).items()
            ]
        return self._watches_of[key]

    def _gauges(self, customer_id: str, holding: Holding) -> dict[Gauge, list[AlertRule]]:
        found: dict[Gauge, list[AlertRule]] = {}
        for rule in self._router.fact_rules(self._router.customer(customer_id)):
            selection = rule.measure.balances
            if selection is None or selection.reading is BalanceReading.DAYS_LEFT:
                continue
            if measure_takes(rule.measure, holding):
                for group in groups_of(selection, holding):
                    if rule.selects(group):
                        found.setdefault(gauge_of(customer_id, rule.measure, group), []).append(rule)
        return found

"""Voided usage: balances get back what the events drew, and their gauges are moved."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from engine.balances.balance_watches import BalanceWatches
from engine.balances.recharging import recharge_drawn
from engine.balances.running_drawdown import Drawdown
from engine.evaluation.subjects import Movement
from engine.facts.due_timers import catch_up
from engine.rules.transaction import Transaction
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balance_values import moved_by
from evaluator.balances import Unit
from evaluator.drawdown import PastSource, UnitBalances, give_back_voided, in_order
from evaluator.events import UsageEvent
from evaluator.raw_events import RawEvents
from evaluator.watched_gauges import WatchedGauge
from store.balances import drawdown as stored_drawdown
from store.balances import overages as stored_overages
from store.balances import wallets
from store.balances.drawdown import Drawable, PastDrawable
from store.balances.overages import OverageState
from store.balances.usage_classes import Division, usage_classes
from store.balances.wallets import Wallet

CustomerUnit = tuple[str, str]  # customer, and the key of a unit that it has balances in


async def give_back(
    transaction: Transaction, voided: Sequence[UsageEvent], held: dict[str, Wallet] | None = None
) -> Drawdown:
    """Gives back to the balances what events drew that are stored and are going to be deleted.

    Locks the wallets of the customers, unless these are already `held`, then processes their due timers, like the
    commit of the events. The gauges of the balances are still to be moved and evaluated; the entries of a movement
    are the events, without amounts.
    """
    organization_id, now = transaction.organization_id, transaction.now
    if held is None:
        customer_ids = {event.customer_id for event in voided}
        held = await wallets.lock_with_drawdown(transaction.connection, organization_id, customer_ids)
    if not held:
        return Drawdown({}, {})
    await catch_up(transaction, {transaction.router.customer(wallet.customer_id): wallet for wallet in held.values()})
    past: dict[CustomerUnit, list[PastDrawable]] = {}
    for one in await stored_drawdown.past_drawables(transaction.driver, organization_id, held):
        past.setdefault((one.item.customer_id, one.item.holding.unit.key), []).append(one)
    overages = await stored_overages.of_customers(transaction.driver, organization_id, held)
    returns = _Returns(transaction, held)
    for (customer_id, unit_key), events in _by_unit(held, voided).items():
        own = past.get((customer_id, unit_key))
        if own:
            overage = overages.get((customer_id, unit_key), OverageState())
            await returns.add(held[customer_id], Unit.from_key(unit_key), own, overage, events)
    with exact_arithmetic():
        await stored_drawdown.write(
            transaction.driver, organization_id, returns.drawn, returns.overages, now, voids=True
        )
    await recharge_drawn(transaction, held, (item for item, _ in returns.drawn), voided)
    return Drawdown(returns.movements, {wallet.customer_id: wallet.moment(now) for wallet in held.values()})


def _by_unit(held: dict[str, Wallet], voided: Sequence[UsageEvent]) -> dict[CustomerUnit, list[UsageEvent]]:
    """The events that can have drawn in each unit."""
    found: dict[CustomerUnit, list[UsageEvent]] = {}
    for event in voided:
        if event.customer_id not in held:
            continue
        amounts = [(f"usage/{event.metric_id}", event.quantity)]
        if event.cost is not None:
            amounts.append((f"cost/{event.currency}", event.cost))
        for unit_key, amount in amounts:
            if amount and unit_key in held[event.customer_id].draw_units:
                found.setdefault((event.customer_id, unit_key), []).append(event)
    return found


class _Returns:
    """What the balances of all customers get back: the segments and overages to be stored, the gauges to be moved."""

    def __init__(self, transaction: Transaction, held: dict[str, Wallet]) -> None:
        self.drawn: list[tuple[Drawable, Decimal]] = []
        self.overages: dict[CustomerUnit, OverageState] = {}
        self.movements: dict[WatchedGauge, Movement] = {}
        self._transaction = transaction
        self._held = held
        self._watches = BalanceWatches(transaction.router)

    async def add(
        self,
        wallet: Wallet,
        unit: Unit,
        own: Sequence[PastDrawable],
        overage: OverageState,
        events: Sequence[UsageEvent],
    ) -> None:
        """Gives back what events of one customer drew in one unit. own: its segments in that unit."""
        transaction, customer_id = self._transaction, wallet.customer_id
        metric = transaction.router.metric(unit.metric_id or "")
        division = _division(wallet, own, metric.raw_events if metric else None)
        classes = await usage_classes(
            transaction.driver, transaction.organization_id, customer_id, unit, division, events
        )
        past = {_past_source(one): one for one in own}
        still_open = in_order([one.item.source for one in own if one.void_time is None])
        balances = UnitBalances(unit, still_open, overage.amount, overage.held)
        with exact_arithmetic():
            for source, amount in give_back_voided(balances, list(past), classes).items():
                if source.void_time is None:  # what a voided balance would get back is lost with it
                    self.drawn.append((past[source].item, -amount))
                    self._move(past[source].item, wallet.moment(transaction.now), amount, events)
        if balances.overage != overage.amount:
            self.overages[customer_id, unit.key] = overage._replace(amount=balances.overage)

    def _move(self, item: Drawable, moment: datetime, amount: Decimal, events: Sequence[UsageEvent]) -> None:
        """Moves the gauges that count a segment. One that is not active now is on none."""
        if not item.source.segment.covers(moment):
            return
        for watch in self._watches.of(item):
            selection = watch.gauge.measure.balances
            assert selection is not None
            movement = self.movements.setdefault(watch, Movement(watch, [(ZERO, event) for event in events]))
            movement.total += moved_by(selection, -amount)


def _division(wallet: Wallet, own: Sequence[PastDrawable], raw_events: RawEvents | None) -> Division:
    """What divides the usage of a customer in one unit."""
    segments = [one.item.source.segment for one in own]
    return Division(
        event_times=[time for one in segments for time in (one.start, one.end) if time is not None],
        ingest_times=[time for one in own for time in (one.create_time, one.void_time) if time is not None],
        metric_ids=sorted({metric_id for one in own for metric_id in one.item.source.metric_ids}),
        seat_keys=wallet.seat_keys if any(one.item.holding.seat for one in own) else (),
        raw_events=raw_events,
    )


def _past_source(one: PastDrawable) -> PastSource:
    seat = one.item.holding.seat
    return PastSource(
        one.item.source, one.create_time, one.void_time, None if seat is None else (seat.key, seat.value)
    )

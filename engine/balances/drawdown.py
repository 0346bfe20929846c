"""Drawdown: usage takes its cost from the customers' balances, and moves the gauges of these balances."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from engine.balances.holding import open_running
from engine.balances.open_balances import Wanted
from engine.balances.running_drawdown import Drawdown
from engine.evaluation.subjects import Subject
from engine.rules.transaction import Transaction
from evaluator.aggregation import Tally
from evaluator.amounts import exact_arithmetic
from evaluator.balance_holds import UnitHold
from evaluator.balance_values import balance_values
from evaluator.balances import BalanceSelection, Holding, Seat
from evaluator.events import UsageEvent
from evaluator.gauges import Gauge
from store.balances import holdings, wallets
from store.balances.wallets import Wallet

Settling = Mapping[tuple[str, str, datetime, str], Sequence[UnitHold]]
NOTHING_SETTLED: Settling = MappingProxyType({})


async def draw_down(
    transaction: Transaction,
    events: Sequence[UsageEvent],
    held: dict[str, Wallet] | None = None,
    settling: Settling = NOTHING_SETTLED,
) -> Drawdown:
    """Takes the events' costs and quantities from their customers' balances, in the order in which they came.

    Locks the wallets of the customers that have balances to draw on, unless these are already `held`, then processes
    their due timers. The gauges of the balances are still to be moved and evaluated. settling: what the reservations
    hold that events settle, by customer id, event id, time and metric id of the event.
    """
    organization_id = transaction.organization_id
    if held is None:
        customer_ids = {event.customer_id for event in events}
        held = await wallets.lock_with_drawdown(
            transaction.connection, organization_id, customer_ids, transaction.shards
        )
    if not held:
        return Drawdown({}, {})
    own = [event for event in events if event.customer_id in held]
    holds: dict[str, list[UnitHold]] = {}
    for (customer_id, *_), of_event in settling.items():
        holds.setdefault(customer_id, []).extend(of_event)
    running = await open_running(transaction, held, Wanted(own, holds=holds))
    with exact_arithmetic():
        slices = transaction.slices()
        await slices.begin()
        for event in own:
            settled = settling and settling.get(
                (event.customer_id, event.event_id, event.event_time, event.metric_id)
            )
            if settled:
                running.settle(event, settled)
            else:
                running.take(event)
            await slices.pause()
    return await running.write()


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

"""Uncounting: voided events are taken off gauges and balances, and their alerts are evaluated.

The transaction has deleted the events. It then locks what the commit of these events would lock, in the same order:
wallets, balances, additive gauges, the other gauges. A gauge takes one step, from its value with all of the events to
its value without them: the events between were counted in an order that is not stored.
"""

from collections.abc import Mapping, Sequence

from engine.balances.drawdown import Drawdown, draw_down, read_unknown_balances
from engine.evaluation.evaluation import evaluate_gauges
from engine.evaluation.subjects import Movement, Subject
from engine.ingest.routing import route
from engine.rules.transaction import Transaction
from evaluator.aggregation import Aggregation, Tally
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.events import UsageEvent
from evaluator.transitions import Cause
from evaluator.watched_gauges import WatchedGauge
from store.balances import drawdown as stored_drawdown
from store.balances import wallets
from store.usage import gauges, recounts
from store.usage.gauges import NEVER_EVALUATED, Locked
from store.usage.recounts import Recount
from store.usage.voids import StoredEvent

_NOTHING = Drawdown({}, {})


async def uncount(transaction: Transaction, voided: Sequence[StoredEvent]) -> None:
    """Takes events back that this transaction has deleted. Evaluates every gauge whose value changes."""
    drawdown = await _give_back(transaction, voided)
    with exact_arithmetic():
        events = [one.event for one in voided]
        movements = await route(transaction.router, events, transaction.slices())
    additive = [one for one in movements.values() if one.watch.aggregation.additive]
    folded = [one for one in movements.values() if not one.watch.aggregation.additive]
    of_balances = list(drawdown.movements.values())
    locked = await _lock(transaction, additive + of_balances) | await _lock(transaction, folded)
    subjects = await _of_balances(transaction, of_balances, locked, drawdown)
    subjects += await _of_usage(transaction, additive + folded, locked)
    changed = [subject for subject in subjects if _changes(subject)]
    if changed:
        await evaluate_gauges(transaction, changed)


async def _give_back(transaction: Transaction, voided: Sequence[StoredEvent]) -> Drawdown:
    """Gives back to the balances what the events drew.

    What one event drew is not stored: the ledger has sums of commits, and segments change after them. So a void gives
    back what a correction of the same time, metric and seat gives back (`UnitBalances.draw`). An event from before
    the customer's first balance in its unit drew nothing, not even as overage; to give something back for it would
    be a credit out of nothing.
    """
    organization_id = transaction.organization_id
    customer_ids = {one.event.customer_id for one in voided}
    # `first_balances` has to be read under the wallets, which `draw_down` then holds already.
    if not await wallets.lock_with_drawdown(transaction.connection, organization_id, customer_ids):
        return _NOTHING
    first = await stored_drawdown.first_balances(transaction.driver, organization_id, customer_ids)
    latest_first = sorted(voided, key=lambda one: (one.ingest_time, one.event.event_time, one.event.event_id))[::-1]
    with exact_arithmetic():
        opposite: list[UsageEvent] = []
        for event, ingest_time in latest_first:
            units = {f"usage/{event.metric_id}", f"cost/{event.currency}"}
            drew = {
                unit
                for unit in units
                if (since := first.get((event.customer_id, unit))) is not None and since <= ingest_time
            }
            quantity = -event.quantity if f"usage/{event.metric_id}" in drew else ZERO
            cost = -event.cost if event.cost is not None and f"cost/{event.currency}" in drew else None
            opposite.append(event._replace(quantity=quantity, cost=cost))
    return await draw_down(transaction, opposite, voids=True)


async def _lock(transaction: Transaction, movements: Sequence[Movement]) -> dict[WatchedGauge, Locked]:
    """Locks gauges, and creates those that do not exist.

    A gauge that does not exist must be created: a transaction that is just creating it may have counted the events.
    """
    if not movements:
        return {}
    watched = [movement.watch.gauge for movement in movements]
    locked = await gauges.lock(transaction.driver, transaction.organization_id, watched, transaction.now)
    return {movement.watch: locked[movement.watch.gauge.gauge_id] for movement in movements}


async def _of_balances(
    transaction: Transaction,
    movements: Sequence[Movement],
    locked: Mapping[WatchedGauge, Locked],
    drawdown: Drawdown,
) -> list[Subject]:
    """The gauges of balances that got something back."""
    subjects = []
    for movement in movements:
        stored = locked[movement.watch]
        subject = Subject(movement, stored.rules_epoch, _known(movement.watch, stored), scale=stored.scale)
        subject.cause = _cause(movement)
        subjects.append(subject)
    await read_unknown_balances(transaction, subjects, drawdown.read_times)
    with exact_arithmetic():
        for subject in subjects:
            if subject.reading is None:
                subject.after = Tally(subject.tally.value + subject.movement.total)
            subject.movement = Movement(subject.movement.watch)
    return subjects


async def _of_usage(
    transaction: Transaction, movements: Sequence[Movement], locked: Mapping[WatchedGauge, Locked]
) -> list[Subject]:
    """The gauges of usage and cost that had counted the events."""
    subjects, unknown = [], []
    for movement in movements:
        watch = movement.watch
        before = _known(watch, locked[watch])
        # Without its entries: nothing is to be added to it.
        subject = Subject(Movement(watch), locked[watch].rules_epoch, before, cause=_cause(movement))
        subject.after = None if before is None else _without(movement, before)
        subjects.append(subject)
        if subject.after is None:
            unknown.append(subject)
    for subject, tally in zip(unknown, await _recount(transaction, unknown), strict=True):
        subject.after = tally
        if subject.before is None:
            # Its value with the events is not known. Nothing is reached by what was taken back.
            subject.before = Tally(tally.value, tally.latest_time, tally.latest_id)
    return subjects


def _known(watch: WatchedGauge, stored: Locked) -> Tally | None:
    """The tally of a gauge that an alert has watched without a gap; None where it has to be counted anew."""
    if stored.rules_epoch == NEVER_EVALUATED or stored.rules_epoch < watch.continuous_since_epoch:
        return None
    return Tally(stored.value, stored.latest_event_time, stored.latest_event_id)


def _without(movement: Movement, before: Tally) -> Tally | None:
    """The tally of a gauge without the events; None where the other events have to be counted for it.

    That is where one of the events can have decided the value.
    """
    match movement.watch.aggregation:
        case Aggregation.MAX:
            decided = any(amount >= before.value for amount, _ in movement.entries)
        case Aggregation.LATEST:
            latest = before.latest_time, before.latest_id
            decided = before.latest_id is None or any(
                (event.event_time, event.event_id) == latest for _, event in movement.entries
            )
        case Aggregation.UNIQUE_COUNT:
            name = movement.watch.unique_property or ""
            decided = any(name in event.properties for _, event in movement.entries)
        case _:
            with exact_arithmetic():
                return Tally(before.value - movement.total, before.latest_time, before.latest_id)
    return None if decided else Tally(before.value, before.latest_time, before.latest_id)


async def _recount(transaction: Transaction, subjects: Sequence[Subject]) -> list[Tally]:
    """The tallies of gauges over the events that are stored now."""
    if not subjects:
        return []
    connection, organization_id = transaction.driver, transaction.organization_id
    watches = [subject.movement.watch for subject in subjects]
    wanted = [Recount(one.gauge, one.aggregation, one.unique_property, ()) for one in watches]
    counted = await recounts.recount(connection, organization_id, wanted)
    unique = [one for one in wanted if one.aggregation is Aggregation.UNIQUE_COUNT]
    if unique:
        await recounts.recount_values(connection, organization_id, unique)
    return [tally for tally, _ in counted]


def _changes(subject: Subject) -> bool:
    """Whether a gauge has to be evaluated. One that was just created must be: nothing of it is stored otherwise."""
    if subject.after is None or subject.rules_epoch == NEVER_EVALUATED:
        return True
    before, after = subject.tally, subject.after
    return (before.value, before.latest_time, before.latest_id) != (after.value, after.latest_time, after.latest_id)


def _cause(movement: Movement) -> Cause:
    """The latest of the voided events, and their number."""
    events = [event for _, event in movement.entries]
    latest = max(events, key=lambda event: (event.event_time, event.event_id))
    return Cause(latest.event_id, latest.event_time, len(events))

"""Uncounting: voided events are taken off gauges and balances, and their alerts are evaluated.

The transaction has locked the events. It then locks what the commit of these events would lock, in the same order:
wallets, balances, additive gauges, the other gauges. A gauge takes one step, from its value with all of the events to
its value without them: the events between were counted in an order that is not stored.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from engine.balances.drawdown import read_unknown_balances
from engine.balances.running_drawdown import Drawdown
from engine.balances.voided_usage import give_back
from engine.evaluation.evaluation import evaluate_gauges
from engine.evaluation.subjects import Movement, Subject
from engine.ingest.routing import route
from engine.meters.usage_meters import UsageMeters
from engine.rules.transaction import Transaction
from evaluator.aggregation import Aggregation, Tally
from evaluator.amounts import exact_arithmetic
from evaluator.events import UsageEvent
from evaluator.transitions import Cause
from evaluator.watched_gauges import WatchedGauge
from store.usage import gauges, recounts
from store.usage.gauges import NEVER_EVALUATED, Locked
from store.usage.recounts import Recount


async def uncount(
    transaction: Transaction,
    voided: Sequence[UsageEvent],
    delete: Callable[[], Awaitable[None]],
    meters: UsageMeters | None = None,
) -> None:
    """Takes events back that this transaction has locked, and evaluates every gauge whose value changes.

    delete: deletes the events. It runs between the reading of what the gauges show with them and without them.
    meters: of enforced limits, that count the events.
    """
    voided = transaction.router.metric_events(voided)
    drawdown = await give_back(transaction, voided, None if meters is None else meters.drawing(voided))
    if meters is not None:
        await meters.uncount(voided)
        await meters.write()
    with exact_arithmetic():
        movements = list((await route(transaction.router, voided, transaction.slices())).values())
    of_balances = list(drawdown.movements.values())
    additive = [one for one in movements if one.watch.aggregation.additive]
    folded = [one for one in movements if not one.watch.aggregation.additive]
    locked = await _lock(transaction, additive + of_balances) | await _lock(transaction, folded)
    subjects = await _of_balances(transaction, of_balances, locked, drawdown)
    of_usage = await _with_events(transaction, additive + folded, locked)
    await delete()
    await _leave_out(transaction, additive + folded, of_usage)
    changed = [subject for subject in subjects + of_usage if _changes(subject)]
    if changed:
        await evaluate_gauges(transaction, changed)


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


async def _with_events(
    transaction: Transaction, movements: Sequence[Movement], locked: Mapping[WatchedGauge, Locked]
) -> list[Subject]:
    """The gauges of usage and cost that have counted the events, with the values that they have so far."""
    subjects = []
    for movement in movements:
        stored = locked[movement.watch]
        # Without its entries: nothing is to be added to the gauge.
        subject = Subject(Movement(movement.watch), stored.rules_epoch, _known(movement.watch, stored))
        subject.cause = _cause(movement)
        subjects.append(subject)
    unknown = [subject for subject in subjects if subject.before is None]
    for subject, (tally, count) in zip(unknown, await _recount(transaction, unknown), strict=True):
        subject.before, subject.untouched = tally, count == 0
    return subjects


async def _leave_out(transaction: Transaction, movements: Sequence[Movement], subjects: Sequence[Subject]) -> None:
    """Finds what the gauges show without the events, which are deleted now."""
    for movement, subject in zip(movements, subjects, strict=True):
        subject.after = _without(movement, subject.tally)
    decided = [subject for subject in subjects if subject.after is None]
    for subject, (tally, _) in zip(decided, await _recount(transaction, decided), strict=True):
        subject.after = tally
    await _store_values(transaction, subjects, decided)


def _known(watch: WatchedGauge, stored: Locked) -> Tally | None:
    """The tally of a gauge that an alert has watched without a gap; None where it has to be counted anew."""
    if not _is_continuous(watch, stored.rules_epoch):
        return None
    return Tally(stored.value, stored.latest_event_time, stored.latest_event_id)


def _is_continuous(watch: WatchedGauge, rules_epoch: int) -> bool:
    """Whether an alert has watched a gauge without a gap since it was last evaluated."""
    return rules_epoch != NEVER_EVALUATED and rules_epoch >= watch.continuous_since_epoch


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


async def _recount(transaction: Transaction, subjects: Sequence[Subject]) -> list[tuple[Tally, int]]:
    """The tallies of gauges over the events that are stored now, and the numbers of these events."""
    if not subjects:
        return []
    wanted = [_recount_of(subject) for subject in subjects]
    return await recounts.recount(transaction.driver, transaction.organization_id, wanted)


async def _store_values(transaction: Transaction, subjects: Sequence[Subject], decided: Sequence[Subject]) -> None:
    """Stores the values of UNIQUE_COUNT gauges anew where a voided event had one, or where they were not known."""
    wanted = [
        _recount_of(subject)
        for subject in subjects
        if subject.movement.watch.aggregation is Aggregation.UNIQUE_COUNT
        and (subject in decided or not _is_continuous(subject.movement.watch, subject.rules_epoch))
    ]
    if wanted:
        await recounts.recount_values(transaction.driver, transaction.organization_id, wanted)


def _recount_of(subject: Subject) -> Recount:
    watch = subject.movement.watch
    return Recount(watch.gauge, watch.aggregation, watch.unique_property, (), watch.raw_events)


def _changes(subject: Subject) -> bool:
    """Whether a gauge has to be evaluated: it shows something else, or its alerts have changed, or it is new."""
    if subject.after is None or subject.stale or subject.rules_epoch == NEVER_EVALUATED:
        return True
    before, after = subject.tally, subject.after
    return (before.value, before.latest_time, before.latest_id) != (after.value, after.latest_time, after.latest_id)


def _cause(movement: Movement) -> Cause:
    """The latest of the voided events, and their number."""
    events = [event for _, event in movement.entries]
    latest = max(events, key=lambda event: (event.event_time, event.event_id))
    return Cause(latest.event_id, latest.event_time, len(events))

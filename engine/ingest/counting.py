"""Counting: new events are drawn from balances and move their gauges, which are evaluated."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from engine.balances.drawdown import NOTHING_SETTLED, Settling, draw_down, read_unknown_balances
from engine.balances.running_drawdown import Drawdown
from engine.evaluation.evaluation import evaluate_gauges
from engine.evaluation.held_routing import HeldMove, route_holds
from engine.evaluation.results import RecordedTransition
from engine.evaluation.subjects import Movement, Subject, before_fold, before_move
from engine.facts.fact_gauges import evaluate_new_customers
from engine.ingest.quiet_moves import settle_quiet_moves
from engine.ingest.routing import additive, moves_of, route
from engine.rules.transaction import Transaction
from evaluator.amounts import exact_arithmetic
from evaluator.enforcement.decisions import LimitState
from evaluator.events import UsageEvent
from evaluator.exclusions import Excluded
from evaluator.gauges import Gauge
from evaluator.watched_gauges import WatchedGauge
from store.balances.wallets import Wallet
from store.usage import gauge_moves, gauges


@dataclass(slots=True)
class Counted:
    """What counting the new events of a commit found.

    subjects: the gauges that were evaluated. values: those of the subjects, or of all gauges that moved where they
    are asked for. excluded: what the router need not watch any more after the commit. over: see
    `UsageMeters.over`.
    """

    movements: dict[WatchedGauge, Movement] = field(default_factory=dict)
    subjects: list[Subject] = field(default_factory=list)
    values: dict[Gauge, Decimal] = field(default_factory=dict)
    transitions: list[RecordedTransition] = field(default_factory=list)
    excluded: set[Excluded] = field(default_factory=set)
    over: list[tuple[LimitState, set[tuple[str, str]]]] = field(default_factory=list)


async def count(
    transaction: Transaction,
    events: Sequence[UsageEvent],
    registered_customers: set[str],
    all_values: bool,
    held: dict[str, Wallet] | None = None,
    settling: Settling = NOTHING_SETTLED,
    drawdown: Drawdown | None = None,
    holds: Sequence[HeldMove] = (),
) -> Counted:
    """Counts events that this transaction has stored. all_values: of every gauge that moves.

    registered_customers: those that this transaction registered. held: the wallets on which the events draw; None if
    they are not locked yet. settling: see `draw_down`. drawdown: of the events, where they are drawn already.
    holds: what the reservations of the transaction begin to hold, and hold no more.
    """
    if registered_customers:
        await evaluate_new_customers(transaction, sorted(registered_customers))
    events = transaction.router.metric_events(events)
    if drawdown is None:
        drawdown = await draw_down(transaction, events, held, settling)
    with exact_arithmetic():
        movements = await route(transaction.router, events, transaction.slices())
        if holds:
            route_holds(transaction.router, holds, movements)
        counted = Counted(movements | drawdown.movements)
    counted.subjects = await _move(transaction, counted, registered_customers, all_values)
    counted.subjects += await _lock(transaction, counted, registered_customers)
    if drawdown.movements:
        await read_unknown_balances(transaction, counted.subjects, drawdown.read_times)
    await _evaluate(transaction, counted)
    return counted


async def count_moved(
    transaction: Transaction, movements: dict[WatchedGauge, Movement], all_moved: Sequence[gauge_moves.Moved]
) -> Counted:
    """Counts events of known customers that draw on no balance. Their additive gauges are moved already."""
    counted = Counted(movements)
    counted.subjects = await _subjects(transaction, counted, all_moved, set())
    counted.subjects += await _lock(transaction, counted, set())
    await _evaluate(transaction, counted)
    return counted


async def _evaluate(transaction: Transaction, counted: Counted) -> None:
    """Evaluates the subjects, and adds what that finds."""
    if counted.subjects:
        result = await evaluate_gauges(transaction, counted.subjects)
        counted.values.update(result.values)
        counted.transitions, counted.excluded = result.transitions, result.excluded


async def _move(
    transaction: Transaction, counted: Counted, registered_customers: set[str], all_values: bool
) -> list[Subject]:
    """Moves additive gauges; returns those that have to be evaluated."""
    with exact_arithmetic():
        movements = additive(counted.movements)
        moves = moves_of(movements)
    if not movements:
        return []
    raw, organization_id, now = transaction.driver, transaction.organization_id, transaction.now
    all_moved = await gauge_moves.move(raw, organization_id, moves, now, all_values, transaction.shards)
    return await _subjects(transaction, counted, all_moved, registered_customers)


async def _subjects(
    transaction: Transaction, counted: Counted, all_moved: Sequence[gauge_moves.Moved], registered_customers: set[str]
) -> list[Subject]:
    """Of the additive gauges that were moved, those that have to be evaluated; notes their values."""
    if not all_moved:
        return []
    movements, affected = additive(counted.movements), []
    slices, subjects = transaction.slices(), list[Subject]()
    slices.begin_at_once()
    # In the order of arrival: it decides which groups are above the group limit.
    for moved in sorted(all_moved, key=lambda one: one.index):
        movement = movements[moved.index]
        counted.values[movement.watch.gauge] = moved.value
        if moved.needs_evaluation:
            affected.append((movement, moved))
            await slices.pause()
    if affected:
        affected = await settle_quiet_moves(transaction, affected)
    for movement, moved in affected:
        subjects.append(before_move(movement, moved, registered_customers))
        await slices.pause()
    return subjects


async def _lock(transaction: Transaction, counted: Counted, registered_customers: set[str]) -> list[Subject]:
    """Locks the gauges that are not additive; all of them have to be evaluated, which counts their events."""
    folded = [one for one in counted.movements.values() if not one.watch.is_additive]
    if not folded:
        return []
    watched = [movement.watch.gauge for movement in folded]
    locked = await gauges.lock(transaction.driver, transaction.organization_id, watched, transaction.now)
    return [before_fold(one, locked[one.watch.gauge.gauge_id], registered_customers) for one in folded]

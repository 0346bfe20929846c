"""Routing: the gauges that new events move, and by how much."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from engine.evaluation.subjects import Entry, Movement
from evaluator.aggregation import Aggregation, contribution
from evaluator.amounts import ZERO
from evaluator.events import UsageEvent
from evaluator.prices import passes_all
from evaluator.routing import Router, group_of
from evaluator.watched_gauges import CustomerMeasure, WatchedGauge
from runtime.turns import Slices
from store.usage import gauge_moves

EVENTS_AT_ONCE = 100  # events that are routed without a pause
NO_ENTRIES: list[Entry] = []  # of all movements with plain events, which replace it


async def route(router: Router, events: Sequence[UsageEvent], slices: Slices) -> dict[WatchedGauge, Movement]:
    """The movements of the gauges that the events move; in slices where the events are many.

    What other commits change in the router meanwhile is of other customers: all events of a customer have one writer.
    Must run under `exact_arithmetic`.
    """
    movements: dict[WatchedGauge, Movement] = {}
    if len(events) > EVENTS_AT_ONCE:
        await slices.begin()
    for start in range(0, len(events), EVENTS_AT_ONCE):
        _route(router, events[start : start + EVENTS_AT_ONCE], movements)
        if start + EVENTS_AT_ONCE < len(events):
            await slices.pause()
    return movements


def route_at_once(router: Router, events: Sequence[UsageEvent]) -> dict[WatchedGauge, Movement]:
    """Like `route`, for a few events. Must run under `exact_arithmetic`."""
    movements: dict[WatchedGauge, Movement] = {}
    _route(router, events, movements)
    return movements


def _route(router: Router, events: Sequence[UsageEvent], movements: dict[WatchedGauge, Movement]) -> None:
    # Every event runs through this, so it calls as few functions as it can.
    known_customers, revision = router.known, router.revision
    for event in events:
        _, customer_id, time, metric_id, quantity, subscription_id, cost, currency, _, _ = event
        known, key = known_customers[customer_id], (subscription_id, metric_id, currency)
        targets = known.routes.get(key) if known.revision == revision else None
        if targets is None:
            targets = router.customer_measures(known, key, time)
        for target in targets:
            amount = cost if target.of_cost else quantity
            if amount is None:
                continue
            if target.only_from <= time < target.only_until:
                watch = target.only
                movement = movements.get(watch)
                if movement is None:
                    movements[watch] = Movement(watch, NO_ENTRIES, amount, amount < ZERO, [event])
                elif movement.plain is None:
                    movement.add(amount, event)
                else:
                    movement.plain.append(event)
                    movement.total += amount
                    if amount < ZERO:
                        movement.falls = True
            else:
                _route_to(target, event, amount, movements)


def _route_to(
    target: CustomerMeasure, event: UsageEvent, amount: Decimal, movements: dict[WatchedGauge, Movement]
) -> None:
    """Routes an event to the gauges of a measure: one for each set of group keys, in the period of its time."""
    if target.prices and not passes_all(target.prices, event.properties):
        return
    if target.aggregation is not Aggregation.SUM:
        amount = contribution(target.aggregation, amount)
    for keys in target.by_keys:
        group = group_of(keys, event.properties) if keys else ()
        watch = None if group is None else target.watched_gauge(group, event.event_time)
        if watch is not None:
            movement = movements.get(watch)
            if movement is None:
                movement = movements[watch] = Movement(watch)
            movement.add(amount, event)


def additive(movements: Mapping[WatchedGauge, Movement]) -> list[Movement]:
    """The movements of additive gauges, in their order."""
    return [movement for movement in movements.values() if movement.watch.is_additive]


def moves_of(movements: Sequence[Movement]) -> gauge_moves.Moves:
    """How movements move additive gauges. Must run under `exact_arithmetic`."""
    watches = [movement.watch for movement in movements]
    return gauge_moves.Moves(
        [watch.customer_id for watch in watches],
        [watch.gauge_hex for watch in watches],
        [movement.total for movement in movements],
        [watch.required_epoch for watch in watches],
        [bounds_of(movement) for movement in movements] if any(one.falls for one in movements) else None,
    )


def bounds_of(movement: Movement) -> gauge_moves.Bounds:
    """The lowest and the highest point of the running sum of a movement. Must run under `exact_arithmetic`."""
    if not movement.falls:
        return ZERO, movement.total
    running = high = low = ZERO
    for amount, _ in movement.entries:
        running += amount
        high, low = max(high, running), min(low, running)
    return low, high

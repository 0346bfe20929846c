"""Routing of holds: the gauges that count what is held, moved by what reservations begin to hold and hold no more."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from engine.evaluation.subjects import HeldUsage, Movement
from evaluator.aggregation import contribution
from evaluator.amounts import ZERO
from evaluator.events import UsageEvent
from evaluator.prices import passes_all
from evaluator.routing import Router, group_of
from evaluator.watched_gauges import WatchedGauge

EventKey = tuple[str, datetime]  # id and time of an event of the same customer


@dataclass(frozen=True, slots=True)
class HeldMove:
    """What one reservation begins to hold, or holds no more.

    usage: an event that is not stored, with the reservation's id, and the granted quantity and cost. ends: it holds
    it no more. settled_by: the stored event that settled it, if one did; its step on a gauge is then that of both
    together, so that no threshold is reached or resolved in between.
    """

    usage: UsageEvent
    ends: bool
    settled_by: EventKey | None = None


def route_holds(router: Router, holds: Sequence[HeldMove], movements: dict[WatchedGauge, Movement]) -> None:
    """Adds to the movements of a transaction's events, by gauge, those of its holds, in their order.

    Must run under `exact_arithmetic`.
    """
    places: dict[WatchedGauge, dict[tuple[str, datetime], int]] = {}
    for move in holds:
        held = HeldUsage(*move.usage)
        for watch, granted in _moved(router, move.usage):
            amount = -granted if move.ends else granted
            movement = movements.get(watch)
            if movement is None:
                movement = movements[watch] = Movement(watch)
            place = None
            if move.settled_by is not None and movement.entries:
                if watch not in places:
                    places[watch] = {
                        (event.event_id, event.event_time): index
                        for index, (_, event) in enumerate(movement.entries)
                        if not isinstance(event, HeldUsage)
                    }
                place = places[watch].get(move.settled_by)
            if place is None:
                movement.add(amount, held)
            else:
                _add_to(movement, place, amount)
            if movement.held is None:
                movement.held = []
            movement.held.append((move.usage.event_id, amount))


def _add_to(movement: Movement, place: int, amount: Decimal) -> None:
    """Changes the amount of one entry."""
    before, event = movement.entries[place]
    movement.entries[place] = before + amount, event
    movement.total += amount
    movement.falls = movement.falls or before + amount < ZERO


def _moved(router: Router, usage: UsageEvent) -> Iterator[tuple[WatchedGauge, Decimal]]:
    """The gauges that count what is held of a usage, and how much of it each counts."""
    known = router.known[usage.customer_id]
    key = usage.subscription_id, usage.metric_id, usage.currency
    for target in router.customer_measures(known, key, usage.event_time):
        if not target.measure.counts_held or not target.aggregation.additive:
            continue
        amount = usage.cost if target.of_cost else usage.quantity
        if amount is None or (target.prices and not passes_all(target.prices, usage.properties)):
            continue
        amount = contribution(target.aggregation, amount)
        for keys in target.by_keys:
            group = group_of(keys, usage.properties) if keys else ()
            watch = None if group is None else target.watched_gauge(group, usage.event_time)
            if watch is not None:
                yield watch, amount

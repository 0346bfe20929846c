"""What the reservations of one commit begin to hold, and hold no more, for the gauges that count it."""

from collections.abc import Collection, Iterable

from engine.ingest.held_routing import HeldMove
from evaluator.enforcement.reservations import Reservation, ReservationState
from evaluator.events import UsageEvent
from evaluator.routing import Router
from store.enforcement.records import Record

Key = tuple[str, str]  # customer and reservation


def open_keys(records: Iterable[Record]) -> set[Key]:
    """The reservations that are open, to be compared with by `held_moves`."""
    return {one.key for one in records if one.reservation.state is ReservationState.OPEN}


def held_moves(router: Router, records: Iterable[Record], open_before: Collection[Key]) -> list[HeldMove]:
    """The moves of the reservations that are open now and were not, or the other way round.

    None of customers of which no alert counts what is held. A settlement's event has the id and the time of its
    reservation.
    """
    found = []
    for record in records:
        if not record.changed:
            continue
        one = record.reservation
        is_open, was_open = one.state is ReservationState.OPEN, record.key in open_before
        if is_open == was_open:
            continue
        usage = granted_usage(one)
        targets = router.customer_measures(
            router.known[usage.customer_id],
            (usage.subscription_id, usage.metric_id, usage.currency),
            usage.event_time,
        )
        if not any(target.measure.counts_held for target in targets):
            continue
        settled = one.state is ReservationState.SETTLED
        found.append(HeldMove(usage, was_open, (usage.event_id, usage.event_time) if settled else None))
    return found


def granted_usage(reservation: Reservation) -> UsageEvent:
    """What a reservation holds, or held, as an event that is not stored."""
    usage = reservation.usage
    assert usage.event_time is not None, "the usage of a reservation has a time"
    return UsageEvent(
        reservation.reservation_id,
        usage.customer_id,
        usage.event_time,
        usage.metric_id,
        reservation.granted_quantity,
        usage.subscription_id,
        reservation.granted_cost,
        usage.currency,
        usage.properties,
    )

"""What the reservations of one transaction begin to hold, and hold no more, for the gauges that count it."""

from collections.abc import Collection, Iterable, Sequence

from engine.evaluation.held_routing import EventKey, HeldMove
from engine.rules.transaction import Transaction
from evaluator.enforcement.reservations import Reservation, ReservationState
from evaluator.events import UsageEvent
from evaluator.routing import Router
from store.enforcement.records import Record
from store.rules import routing_facts

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
        is_open = one.state is ReservationState.OPEN
        was_open = (one.usage.customer_id, one.reservation_id) in open_before
        if is_open == was_open:
            continue
        event = None
        if one.state is ReservationState.SETTLED and one.usage.event_time is not None:
            event = one.reservation_id, one.usage.event_time
        if (move := held_move(router, one, ends=was_open, settled_by=event)) is not None:
            found.append(move)
    return found


def held_move(
    router: Router, reservation: Reservation, *, ends: bool, settled_by: EventKey | None = None
) -> HeldMove | None:
    """The move of one reservation; None where no alert counts what is held of the customer. See `know_usage`."""
    asked = reservation.usage
    known, time = router.known.get(asked.customer_id), asked.event_time
    if known is None or time is None:
        return None
    subscription_id = asked.subscription_id
    if subscription_id is not None and subscription_id not in known.subscriptions:  # it was deleted
        subscription_id = None
    targets = router.customer_measures(known, (subscription_id, asked.metric_id, asked.currency), time)
    if not targets or not any(target.measure.counts_held for target in targets):
        return None
    return HeldMove(granted_usage(reservation)._replace(subscription_id=subscription_id), ends, settled_by)


async def know_usage(transaction: Transaction, reservations: Sequence[Reservation]) -> None:
    """Reads those customers, subscriptions and metrics of reservations that the transaction's router does not know.

    Registers nothing: of what does not exist any more, no gauge moves.
    """
    router, raw, organization_id = transaction.router, transaction.driver, transaction.organization_id
    usages = [one.usage for one in reservations]
    if unknown := {usage.customer_id for usage in usages} - router.known.keys():
        for facts in await routing_facts.customers(raw, organization_id, sorted(unknown)):
            router.know_customer(facts)
    missing = {
        (usage.customer_id, usage.subscription_id)
        for usage in usages
        if usage.subscription_id is not None
        and (known := router.known.get(usage.customer_id)) is not None
        and usage.subscription_id not in known.subscriptions
    }
    if missing:
        for subscription in await routing_facts.subscriptions(raw, organization_id, sorted(missing)):
            router.know_subscription(subscription)
    if metric_ids := {usage.metric_id for usage in usages if router.metric(usage.metric_id) is None}:
        for metric in await routing_facts.metrics(raw, organization_id, sorted(metric_ids)):
            router.metrics[metric.metric_id] = metric


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

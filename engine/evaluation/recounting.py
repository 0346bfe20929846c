"""Recounting: the values that gauges had before this transaction, where these are not known from the gauges' rows."""

from collections.abc import Sequence
from decimal import Decimal

from engine.evaluation.subjects import HeldUsage, Movement, Subject, unique_values
from engine.rules.transaction import Transaction
from evaluator.aggregation import Aggregation, Tally
from evaluator.amounts import ZERO, exact_arithmetic
from store.usage import gauges, recounts


async def recount(transaction: Transaction, subjects: Sequence[Subject]) -> None:
    """Counts gauges from the stored events where no alert watched them, or not without a gap."""
    if not subjects:
        return
    wanted = [
        recounts.Recount(
            subject.movement.watch.gauge,
            subject.movement.watch.aggregation,
            subject.movement.watch.unique_property,
            [event.event_id for _, event in subject.movement.entries if not isinstance(event, HeldUsage)],
            subject.movement.watch.raw_events,
            [reservation_id for reservation_id, _ in subject.movement.held or ()],
        )
        for subject in subjects
    ]
    counted = await recounts.recount(transaction.driver, transaction.organization_id, wanted)
    for subject, (tally, count) in zip(subjects, counted, strict=True):
        ended = _held_before(subject.movement)
        if ended:
            with exact_arithmetic():
                tally.value += sum(ended)
        take_count(subject, tally, count + len(ended))
    unique = [item for item in wanted if item.aggregation is Aggregation.UNIQUE_COUNT]
    if unique:
        await recounts.recount_values(transaction.driver, transaction.organization_id, unique)


def _held_before(movement: Movement) -> list[Decimal]:
    """What was held before this transaction by the reservations that it ends; not by those that it makes."""
    nets: dict[str, Decimal] = {}
    with exact_arithmetic():
        for reservation_id, amount in movement.held or ():
            nets[reservation_id] = nets.get(reservation_id, ZERO) + amount
    return [-net for net in nets.values() if net < ZERO]


def take_count(subject: Subject, tally: Tally, count: int) -> None:
    """Takes what a recount found in the stored events: the tally, and the number of events."""
    # A gauge that was evaluated has shown a value. If all cost has left it since, with the custom fields of its
    # subscriptions, it shows 0 now, and reached thresholds have to resolve.
    subject.before, subject.untouched = tally, count == 0 and subject.rules_epoch == gauges.NEVER_EVALUATED


async def find_new_values(transaction: Transaction, subjects: Sequence[Subject]) -> None:
    """Stores the values that UNIQUE_COUNT gauges see, and notes in their tallies which of these are new."""
    values = [
        (subject.movement.watch.gauge, value)
        for subject in subjects
        if subject.movement.watch.aggregation is Aggregation.UNIQUE_COUNT
        for value in sorted(unique_values(subject.movement))
    ]
    if not values:
        return
    new = await gauges.count_values(transaction.driver, transaction.organization_id, values)
    by_gauge = {subject.movement.watch.gauge.gauge_id: subject for subject in subjects}
    for gauge_id, value in new:
        by_gauge[gauge_id].tally.unseen.add(value)

"""Outcomes: what a commit made of each of its batches, once the commit is durable."""

from engine.evaluation.subjects import HeldUsage, first_event
from engine.ingest.batches import Outcome
from engine.ingest.counting import Counted
from engine.ingest.group import CommitGroup
from engine.ingest.storing import Stored
from engine.rules.transaction import Transaction
from evaluator.events import UsageEvent
from evaluator.gauges import Gauge


async def outcomes_of(
    transaction: Transaction, group: CommitGroup, stored: Stored, counted: Counted
) -> list[Outcome]:
    """The outcome of each batch of the group. transaction: committed, so its router may not be used any more."""
    outcomes = [Outcome() for _ in group.batches]
    _add_known(group, stored, outcomes)
    _add_new(group, stored, outcomes)
    if counted.transitions:
        await _add_transitions(transaction, group, counted, outcomes)
    if group.include_gauges:
        _add_gauges(group, counted, outcomes)
    if counted.over:
        _add_over_limits(group, counted, outcomes)
    return outcomes


def _add_known(group: CommitGroup, stored: Stored, outcomes: list[Outcome]) -> None:
    """Adds the events that the commit did not add."""
    for number, index in stored.duplicates:
        outcomes[number].duplicates.append(index)
    for number, index in stored.conflicting:
        outcomes[number].conflicting.append(index)
    for number, index in stored.too_old:
        outcomes[number].too_old.append(index)
    for number, index in stored.of_erased:
        outcomes[number].of_erased.append(index)


def _add_new(group: CommitGroup, stored: Stored, outcomes: list[Outcome]) -> None:
    """Counts the new events of each batch."""
    if len(stored.new) == len(group.events):
        for batch, outcome in zip(group.batches, outcomes, strict=True):
            outcome.accepted += len(batch.events)
        for number, _ in group.repeated:
            outcomes[number].accepted -= 1
    else:
        for event in stored.new:
            outcomes[group.first[event.identity][0]].accepted += 1


async def _add_transitions(
    transaction: Transaction, group: CommitGroup, counted: Counted, outcomes: list[Outcome]
) -> None:
    """Adds each transition to the batch of its crossing event, or of the first event that moved its gauge."""
    slices = transaction.slices()
    slices.begin_at_once()
    await group.find_first(slices)
    first: dict[Gauge, UsageEvent] = {
        subject.movement.watch.gauge: event
        for subject in counted.subjects
        for event in [first_event(subject.movement)]
        if event is not None
    }
    for one in counted.transitions:
        await slices.pause()
        cause = one.transition.cause
        place = None
        if cause is not None and cause.event_id is not None:
            place = group.first.get((one.gauge.customer_id, cause.event_id))
        if place is None and one.gauge in first:  # the rules have changed, or a reservation has ended
            place = group.first[first[one.gauge].identity]
        if place is not None:
            outcomes[place[0]].transitions.append(one)


def _add_gauges(group: CommitGroup, counted: Counted, outcomes: list[Outcome]) -> None:
    """Adds to each batch that asked for them the gauges that its own events moved."""
    for movement in counted.movements.values():
        gauge = movement.watch.gauge
        events = (event for _, event in movement.entries if not isinstance(event, HeldUsage))
        for number in {group.first[event.identity][0] for event in events}:
            if group.batches[number].include_gauges:
                outcomes[number].gauges.append((gauge, counted.values[gauge]))


def _add_over_limits(group: CommitGroup, counted: Counted, outcomes: list[Outcome]) -> None:
    """Adds to each batch the hard limits that are passed and that its own events count in."""
    for state, identities in counted.over:
        for number in {group.first[identity][0] for identity in identities}:
            outcomes[number].over_limits.append(state)

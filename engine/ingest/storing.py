"""Storing: the events of a commit are written, and those that were stored before are found."""

from dataclasses import dataclass

from engine.ingest.group import CommitGroup, EventIndex
from engine.ingest.late_events import without_erased, without_too_late
from engine.rules.transaction import Transaction
from evaluator.events import UsageEvent
from store.citus.shard_tables import ShardsOf, by_shard
from store.usage import events as stored_events
from store.usage.events import DuplicateEvents
from store.usage.partly_stored import PartlyStored


@dataclass(frozen=True, slots=True)
class Stored:
    """What storing the events of a group found.

    new: the events that this commit added, each with its currency, in the order of arrival. duplicates, conflicting,
    too_old, of_erased: where the others are: those whose identities this commit did not add, and those that repeat or
    contradict a new one.
    """

    new: list[UsageEvent]
    duplicates: list[EventIndex]
    conflicting: list[EventIndex]
    too_old: list[EventIndex]
    of_erased: list[EventIndex]


async def store(
    transaction: Transaction, group: CommitGroup, *, native: bool, duplicates: DuplicateEvents | None = None
) -> Stored:
    """Stores the events whose period may still change.

    duplicates: what the attempt before found. Without them all events are stored at once; that raises
    `DuplicateEvents` when any is stored already, and then nothing of the transaction can be kept. With them it takes
    the slower way, which finds out which events are new. native: see `stored_events.copy_text`. Raises
    `EventsVoided`.
    """
    connection, organization_id, now = transaction.driver, transaction.organization_id, transaction.now
    countable = without_too_late(transaction, without_erased(transaction, group.events))
    new = countable
    if duplicates is None and transaction.shards is not None:
        await _copy_to_shards(transaction, countable, transaction.shards, native=native)
    elif duplicates is None:
        text = await stored_events.copy_text_in_slices(
            organization_id, now, countable, transaction.slices(), native=native
        )
        await stored_events.copy(connection, text)
    elif duplicates.row is None:
        await transaction.slices().begin()
        inserted = await stored_events.insert(connection, organization_id, now, countable)
        new = [event for event in countable if event.identity in inserted]
    else:
        partly = PartlyStored(connection, organization_id, now, duplicates.row, transaction.slices(), native)
        before = await partly.store(countable)
        new = [event for event in countable if event.identity not in before]
    stored = Stored(new, [], [], [], [])
    if len(new) != len(group.events):
        await _compare_known(transaction, group, countable, stored)
    if group.repeated:
        _compare_repeated(transaction, group, stored)
    return stored


async def _copy_to_shards(
    transaction: Transaction, events: list[UsageEvent], shards: ShardsOf, *, native: bool
) -> None:
    """Stores events that are expected to be new in the tables of their shards. Raises DuplicateEvents."""
    connection, organization_id, now = transaction.driver, transaction.organization_id, transaction.now
    parts = by_shard((event.customer_id for event in events), shards)
    for shard, indexes in parts.items():
        part = [events[index] for index in indexes]
        slices = transaction.slices()
        text = await stored_events.copy_text_in_slices(organization_id, now, part, slices, native=native)
        try:
            await stored_events.copy(connection, text, table=shard.event)
        except DuplicateEvents as error:
            if len(parts) == 1:
                raise
            raise DuplicateEvents from error  # the row is one among those of the shard


def _compare_repeated(transaction: Transaction, group: CommitGroup, stored: Stored) -> None:
    """Compares the events that have the identity of a new one."""
    added = {event.identity: event for event in stored.new}
    for index in group.repeated:
        event = group.event_at(index)
        first = added.get(event.identity)
        if first is not None:
            same = first == transaction.router.with_currency(event)
            (stored.duplicates if same else stored.conflicting).append(index)


async def _compare_known(
    transaction: Transaction, group: CommitGroup, countable: list[UsageEvent], stored: Stored
) -> None:
    """Compares the events whose identities this commit did not add with what is stored. Raises EventsVoided.

    Not with each other: a resend is a duplicate even if another caller in the same commit sent a conflicting event.
    """
    slices = transaction.slices()
    await slices.begin()
    await group.find_first(slices)
    added = {event.identity for event in stored.new}
    first = group.first
    await slices.pause()
    known = [index for identity, index in first.items() if identity not in added]
    firsts = len(known)
    known += [index for index in group.repeated if group.event_at(index).identity not in added]
    await slices.pause()
    sent = [group.event_at(index) for index in known]
    alike = await stored_events.stored_alike(
        transaction.driver, transaction.organization_id, sent, transaction.shards
    )
    await slices.begin()
    in_time, customer = {event.identity for event in countable}, transaction.router.customer
    others = [
        event for position, event in enumerate(sent[:firsts]) if position not in alike and event.identity in in_time
    ]
    if others:
        # Each of them was stored when the insert left it out. A void between the two statements would make a plain
        # duplicate look like a conflict.
        await stored_events.check_stored(transaction.driver, transaction.organization_id, others)
        await slices.begin()
    for position, (index, event) in enumerate(zip(known, sent, strict=True)):
        await slices.pause()
        if customer(event.customer_id).being_erased:
            stored.of_erased.append(index)
        elif position in alike:
            stored.duplicates.append(index)
        elif event.identity in in_time:
            stored.conflicting.append(index)
        else:
            stored.too_old.append(index)

"""The group of batches that one commit stores together, with each event once."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.ingest.batches import Batch
from evaluator.events import SettlingEvent, UsageEvent
from runtime.tracing.context import TraceContext
from runtime.turns import Slices

EVENTS_AT_ONCE = 500  # events that are examined without a pause

EventIndex = tuple[int, int]  # of an event: the number of its batch, and its index there
Identity = tuple[str, str]  # of an event: customer id and event id


@dataclass(eq=False, slots=True)
class CommitGroup:
    """Batches of one organization. events: the first of each identity, in the order of arrival. repeated: where an
    identity came once more."""

    batches: Sequence[Batch]
    events: list[UsageEvent]
    repeated: list[EventIndex]
    _first: dict[Identity, EventIndex] | None = None

    @property
    def first(self) -> dict[Identity, EventIndex]:
        """Where each identity came first. It is made when it is asked for: most commits do not need it."""
        if self._first is None:
            self._first = {}
            for number, start in self.starts():
                self._add_first(self._first, number, start)
        return self._first

    async def find_first(self, slices: Slices) -> None:
        """Makes `first`, in slices where the events are many. The caller has begun a slice."""
        if self._first is None:
            first: dict[Identity, EventIndex] = {}
            for number, start in self.starts():
                self._add_first(first, number, start)
                await slices.pause()
            self._first = first

    def starts(self) -> Iterator[EventIndex]:
        """The indexes from which on EVENTS_AT_ONCE events of a batch are taken together."""
        for number, batch in enumerate(self.batches):
            for start in range(0, len(batch.events), EVENTS_AT_ONCE):
                yield number, start

    def _add_first(self, first: dict[Identity, EventIndex], number: int, start: int) -> None:
        events = self.batches[number].events[start : start + EVENTS_AT_ONCE]
        for index, identity in enumerate(map(_identity, events), start):
            first.setdefault(identity, (number, index))

    def event_at(self, index: EventIndex) -> UsageEvent:
        """The event at an index."""
        number, index_in_batch = index
        return self.batches[number].events[index_in_batch]

    @property
    def settles(self) -> bool:
        """Whether any of the events settles a reservation."""
        return SettlingEvent in set(map(type, self.events))

    @property
    def is_traced(self) -> bool:
        """Whether any of the batches belongs to a trace."""
        return any(batch.trace is not None for batch in self.batches)

    def traces(self) -> list[TraceContext]:
        """The traces of the batches, each once, in the order of arrival."""
        return list(dict.fromkeys(batch.trace for batch in self.batches if batch.trace is not None))

    def trace_of(self, identity: Identity) -> TraceContext | None:
        """The trace of an event; None if it has none, or is not of the group."""
        index = self.first.get(identity)
        return None if index is None else self.batches[index[0]].trace

    @property
    def include_gauges(self) -> bool:
        """Whether any of the batches asks for the gauges that it moved."""
        return any(batch.include_gauges for batch in self.batches)


def group_of_batches(batches: Sequence[Batch]) -> CommitGroup:
    """Finds the first event of each identity, of at most EVENTS_AT_ONCE events."""
    events = [event for batch in batches for event in batch.events]
    if len(set(map(_identity, events))) == len(events):
        return CommitGroup(batches, events, [])
    group = CommitGroup(batches, [], [])
    group.events += [group.event_at(index) for index in group.first.values()]
    group.repeated += _repeated(batches, group.first)
    return group


async def group_in_slices(batches: Sequence[Batch], slices: Slices) -> CommitGroup:
    """The same, for any number of events."""
    if sum(len(batch.events) for batch in batches) <= EVENTS_AT_ONCE:
        return group_of_batches(batches)
    group, identities = CommitGroup(batches, [], []), set[Identity]()
    slices.begin_at_once()
    for number, start in group.starts():
        part = batches[number].events[start : start + EVENTS_AT_ONCE]
        group.events += part
        identities.update(map(_identity, part))
        await slices.pause()
    if len(identities) == len(group.events):
        return group
    await group.find_first(slices)
    first = group.first
    group.events[:] = [group.event_at(index) for index in first.values()]
    await slices.pause()
    group.repeated += _repeated(batches, first)
    return group


def _repeated(batches: Sequence[Batch], first: Mapping[Identity, EventIndex]) -> list[EventIndex]:
    return [
        (number, index)
        for number, batch in enumerate(batches)
        for index, identity in enumerate(map(_identity, batch.events))
        if first[identity] != (number, index)
    ]


# `UsageEvent.identity` as a function that is not written in Python.
_identity = operator.itemgetter(UsageEvent._fields.index("customer_id"), UsageEvent._fields.index("event_id"))

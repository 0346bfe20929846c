"""The group of batches that one commit stores together, with each event once."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from engine.ingest.batches import Batch
from evaluator.events import UsageEvent

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
            for number, batch in enumerate(self.batches):
                for index, event in enumerate(batch.events):
                    self._first.setdefault((event.customer_id, event.event_id), (number, index))
        return self._first

    def event_at(self, index: EventIndex) -> UsageEvent:
        """The event at an index."""
        number, index_in_batch = index
        return self.batches[number].events[index_in_batch]

    @property
    def include_gauges(self) -> bool:
        """Whether any of the batches asks for the gauges that it moved."""
        return any(batch.include_gauges for batch in self.batches)


def group_of_batches(batches: Sequence[Batch]) -> CommitGroup:
    """Finds the first event of each identity."""
    events = [event for batch in batches for event in batch.events]
    if len(set(map(_identity, events))) == len(events):
        return CommitGroup(batches, events, [])
    group = CommitGroup(batches, [], [])
    events = [group.event_at(index) for index in group.first.values()]
    repeated = [
        (number, index)
        for number, batch in enumerate(batches)
        for index, event in enumerate(batch.events)
        if group.first[event.identity] != (number, index)
    ]
    return CommitGroup(batches, events, repeated, group.first)


# `UsageEvent.identity` as a function that is not written in Python.
_identity = operator.itemgetter(UsageEvent._fields.index("customer_id"), UsageEvent._fields.index("event_id"))

"""The group of batches that one commit stores together, with each event once."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.ingest.batches import Batch
from evaluator.events import UsageEvent

EventIndex = tuple[int, int]  # of an event: the number of its batch, and its index there
Identity = tuple[str, str]  # of an event: customer id and event id


@dataclass(frozen=True, slots=True)
class Group:
    """Batches of one organization. first: where each identity came first. repeated: where it came once more."""

    batches: Sequence[Batch]
    first: dict[Identity, EventIndex]
    events: list[UsageEvent]  # the first of each identity, in the order of arrival
    repeated: list[EventIndex]

    def event_at(self, index: EventIndex) -> UsageEvent:
        """The event at an index."""
        number, index_in_batch = index
        return self.batches[number].events[index_in_batch]

    @property
    def include_gauges(self) -> bool:
        """Whether any of the batches asks for the gauges that it moved."""
        return any(batch.include_gauges for batch in self.batches)


def group_of_batches(batches: Sequence[Batch]) -> Group:
    """Finds the first event of each identity."""
    first: dict[Identity, EventIndex] = {}
    events: list[UsageEvent] = []
    repeated: list[EventIndex] = []
    for number, batch in enumerate(batches):
        for index, event in enumerate(batch.events):
            identity = event.customer_id, event.event_id
            if identity in first:
                repeated.append((number, index))
            else:
                first[identity] = number, index
                events.append(event)
    return Group(batches, first, events, repeated)

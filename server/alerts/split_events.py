"""Events of a large request that protobuf decodes: a few at a time, so that no message keeps the event loop for long.

Protobuf takes half a microsecond for an entry of the properties, and a message has space for hundreds of thousands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from generated.tidemark.v1 import alert_service_pb2, error_reason_pb2, usage_pb2
from server.calls.errors import InvalidArgument
from server.calls.shared_errors import malformed_message
from server.calls.wire import GROUP_BEGIN, GROUP_END, LENGTH, fields_of

PART_BYTES = 16_384  # of events that are decoded together
PART_EVENTS = 100
MAX_EVENT_FIELDS = 1_000  # with the entries of the properties; a valid event has fewer than 100
_OTHER_FIELDS = 1_000  # of a request and its batch, beside the events

# Field numbers. The requests of both methods have the same encoding.
_BATCH = alert_service_pb2.EvaluateUsageRequest.BATCH_FIELD_NUMBER
_EVENTS = usage_pb2.UsageBatch.EVENTS_FIELD_NUMBER
_EVENT_ID = usage_pb2.UsageEvent.EVENT_ID_FIELD_NUMBER


@dataclass(frozen=True, slots=True)
class EventPart:
    """Events that follow each other. first: the index of the first one.

    too_many: it is one event with more than MAX_EVENT_FIELDS, of which only the id was decoded.
    """

    first: int
    events: Sequence[usage_pb2.UsageEvent]
    too_many: bool = False


@dataclass(frozen=True, slots=True)
class SplitEvents:
    """The events of a request, still encoded. places: of each, where its field begins and where the next one does."""

    message: bytes
    places: Sequence[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.places)

    def parts(self) -> Iterator[EventPart]:
        """The events, decoded. Raises InvalidArgument for one that cannot be decoded."""
        first = 0
        while first < len(self.places):
            begin, end = self.places[first]
            if end - begin > MAX_EVENT_FIELDS and (cut := self._without_fields(begin, end)) is not None:
                yield EventPart(first, [cut], too_many=True)
                first += 1
                continue
            size, until = end - begin, first + 1
            while until < len(self.places) and until - first < PART_EVENTS:
                begin, end = self.places[until]
                size += end - begin
                if size > PART_BYTES or end - begin > MAX_EVENT_FIELDS:
                    break
                until += 1
            yield EventPart(first, self._decoded(first, until))
            first = until

    def _decoded(self, first: int, until: int) -> Sequence[usage_pb2.UsageEvent]:
        try:
            return usage_pb2.UsageBatch.FromString(_joined(self.message, self.places[first:until])).events
        except DecodeError:
            raise malformed_message() from None

    def _without_fields(self, begin: int, end: int) -> usage_pb2.UsageEvent | None:
        """An event that has too many fields, without those except its id; None for another event."""
        try:
            [(_, _, _, value, after)] = fields_of(self.message, begin, end)
            event_ids: list[tuple[int, int]] = []
            for count, (number, _, field_begin, _, field_end) in enumerate(fields_of(self.message, value, after), 1):
                if number == _EVENT_ID:
                    event_ids.append((field_begin, field_end))
                if count > MAX_EVENT_FIELDS:
                    return usage_pb2.UsageEvent.FromString(_joined(self.message, event_ids))
        except DecodeError:
            raise malformed_message() from None
        return None


def split(message: bytes, most: int) -> tuple[usage_pb2.UsageBatch, SplitEvents]:
    """The batch of an encoded request without its events, and the events. most: events that a batch may have.

    Raises DecodeError, and InvalidArgument for a batch with more events.
    """
    places: list[tuple[int, int]] = []
    others: list[tuple[int, int]] = []
    for number, kind, begin, value, after in fields_of(message, 0, len(message)):
        if number != _BATCH or kind != LENGTH:
            _note(others, (begin, begin), kind)
            continue
        # Protobuf joins a batch that is there several times.
        for number_inside, kind_inside, begin_inside, _, end in fields_of(message, value, after):
            if number_inside == _EVENTS and kind_inside == LENGTH:
                places.append((begin_inside, end))
                if len(places) > most:
                    raise _too_many_events(most)
            else:
                _note(others, (begin_inside, end), kind_inside)
    return usage_pb2.UsageBatch.FromString(_joined(message, others)), SplitEvents(message, places)


def _note(others: list[tuple[int, int]], place: tuple[int, int], kind: int) -> None:
    """Notes a field that is no event. Raises DecodeError for what no request has."""
    if kind in (GROUP_BEGIN, GROUP_END) or len(others) >= _OTHER_FIELDS:
        raise DecodeError("the request has groups, or too many fields")
    others.append(place)


def _joined(message: bytes, places: Sequence[tuple[int, int]]) -> bytes:
    return b"".join(message[begin:end] for begin, end in places)


def _too_many_events(most: int) -> InvalidArgument:
    return InvalidArgument(
        error_reason_pb2.ERROR_REASON_BATCH_TOO_LARGE,
        f"batch.events: the batch has more than {most}; send at most {most}",
        metadata={"events": str(most + 1), "limit": str(most)},
    )

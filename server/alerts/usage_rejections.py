"""Rejections: the events of a request that were not counted, each with its index and its error."""

from collections.abc import Sequence

from engine.ingest.batches import Outcome
from generated.tidemark.v1 import usage_pb2
from runtime.turns import Slices
from server.alerts.event_errors import being_erased, conflict, too_old, unrecorded
from server.alerts.usage_reading import ParsedBatch
from server.calls.errors import ApiError
from server.calls.validation import MAX_ID_LENGTH

# The part of an answer in which rejections are shown in full; the rest are shown in short. Without a max_answer_bytes
# it is 512 KiB, and the room that remains is enough for 5,000 rejections in short: they are stored nowhere else.
FULL_PART = 4
SHORT_ID_BYTES = 40  # of an event_id that is shown in short; a UUID has 36


async def rejections(
    messages: Sequence[usage_pb2.UsageEvent], parsed: ParsedBatch, outcome: Outcome, room: int, slices: Slices
) -> list[usage_pb2.Rejection]:
    """The rejections of a batch, by ascending index. messages: of the whole batch. room: bytes of the answer."""
    errors = _errors(parsed, outcome)
    found = []
    size = 0
    await slices.begin()
    for index in sorted(errors):
        await slices.pause()
        error, event_id = errors[index], messages[index].event_id[:MAX_ID_LENGTH]
        if size > room // FULL_PART:
            error = type(error)(error.reason, "send fewer events in one batch for the details")
            event_id = event_id.encode()[:SHORT_ID_BYTES].decode(errors="ignore")
        found.append(usage_pb2.Rejection(index=index, event_id=event_id, status=error.status()))
        size += found[-1].ByteSize()
    return found


def _errors(parsed: ParsedBatch, outcome: Outcome) -> dict[int, ApiError]:
    """The error of each event that was not counted, by its index in the request."""
    errors = dict(parsed.rejected)
    for number in outcome.conflicting:
        index = parsed.indexes[number]
        errors[index] = conflict(index, parsed.events[number])
    for number in outcome.too_old:
        index = parsed.indexes[number]
        errors[index] = too_old(
            index, parsed.events[number].event_id, "its billing period is closed and its grace is over"
        )
    for number in outcome.of_erased:
        index = parsed.indexes[number]
        errors[index] = being_erased(index, parsed.events[number])
    for number in outcome.unrecorded:
        index = parsed.indexes[number]
        errors[index] = unrecorded(index, parsed.events[number])
    return errors

"""Rejections: the events of a request that were not counted, each with its index and its error."""

from collections.abc import Sequence

from engine.ingest.batches import Outcome
from generated.tidemark.v1 import usage_pb2
from runtime.turns import Slices
from server.alerts.event_errors import being_erased, conflict, too_old, unrecorded
from server.alerts.usage_reading import ParsedBatch
from server.calls.errors import ApiError
from server.calls.validation import MAX_ID_LENGTH

# Bytes of an answer's rejections that are shown in full; the rest are shown in short. Clients take 4 MiB by default,
# and one that cannot read the answer to a batch would send it again for ever. 5,000 in short take less than the 2 MiB
# that then remain of the 3 MiB that an answer's rejections may have.
MAX_FULL_REJECTIONS = 1024 * 1024
SHORT_ID_LENGTH = 40  # characters of an event_id that is shown in short; a UUID has 36


async def rejections(
    messages: Sequence[usage_pb2.UsageEvent], parsed: ParsedBatch, outcome: Outcome, slices: Slices
) -> list[usage_pb2.Rejection]:
    """The rejections of a request, by ascending index. messages: of the whole request."""
    errors = _errors(parsed, outcome)
    found = []
    size = 0
    await slices.begin()
    for index in sorted(errors):
        await slices.pause()
        error, event_id = errors[index], messages[index].event_id[:MAX_ID_LENGTH]
        if size > MAX_FULL_REJECTIONS:
            error, event_id = (
                type(error)(error.reason, "send fewer events in one batch for the details"),
                event_id[:SHORT_ID_LENGTH],
            )
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

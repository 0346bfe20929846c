"""Rejections: the events of a request that were not counted, each with its index and its error."""

from collections.abc import Sequence

from engine.ingest.batches import Outcome
from evaluator.events import UsageEvent
from generated.tidemark.v1 import usage_pb2
from runtime.turns import Slices
from server.alerts.event_errors import being_erased, conflict, too_old, unrecorded
from server.alerts.usage_reading import ParsedBatch
from server.calls.errors import ApiError

# The part of an answer in which rejections are shown in full; the rest are shown in short. Without a max_answer_bytes
# it is 512 KiB, and the room that remains is enough for 5,000 rejections in short: they are stored nowhere else.
FULL_PART = 4
SHORT_ID_BYTES = 40  # of an event_id that is shown in short; a UUID has 36


async def rejections(parsed: ParsedBatch, outcome: Outcome, room: int, slices: Slices) -> list[usage_pb2.Rejection]:
    """The rejections of a batch, by ascending index. room: bytes of the answer."""
    await slices.begin()
    errors = await _errors(parsed, outcome, slices)
    found = []
    size = 0
    for index in sorted(errors):
        await slices.pause()
        event_id, error = errors[index]
        if size > room // FULL_PART:
            error = type(error)(error.reason, "send fewer events in one batch for the details")
            event_id = event_id.encode()[:SHORT_ID_BYTES].decode(errors="ignore")
        found.append(usage_pb2.Rejection(index=index, event_id=event_id, status=error.status()))
        size += found[-1].ByteSize()
    return found


async def _errors(parsed: ParsedBatch, outcome: Outcome, slices: Slices) -> dict[int, tuple[str, ApiError]]:
    """The id and the error of each event that was not counted, by its index in the request."""
    found = {one.index: (one.event_id, one.error) for one in parsed.rejected}
    indexes = _indexes(parsed)
    for numbers, error_of in (
        (outcome.conflicting, conflict),
        (outcome.too_old, _too_old),
        (outcome.of_erased, being_erased),
        (outcome.unrecorded, unrecorded),
    ):
        for number in numbers:
            index, event = indexes[number], parsed.events[number]
            found[index] = event.event_id, error_of(index, event)
            await slices.pause()
    return found


def _indexes(parsed: ParsedBatch) -> Sequence[int]:
    """The index in the request of each valid event."""
    if not parsed.rejected:
        return range(len(parsed.events))
    rejected = {one.index for one in parsed.rejected}
    return [index for index in range(len(parsed.events) + len(rejected)) if index not in rejected]


def _too_old(index: int, event: UsageEvent) -> ApiError:
    return too_old(index, event.event_id, "its billing period is closed and its grace is over")

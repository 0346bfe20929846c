"""Answers to usage: what became of a batch, cut to what every client can read, with a note of what is left out."""

from collections.abc import Iterable, Sequence

from engine.ingest.batches import Outcome
from generated.tidemark.v1 import (
    gauge_pb2,
    usage_pb2,
)
from runtime.turns import Slices
from server.calls.answer_size import MAX_ANSWER_BYTES, fitting_in_slices
from server.calls.validation import to_timestamp
from server.mapping.gauges import gauge_message
from server.mapping.transitions import transition_message

# Bytes of transitions and gauges in one answer; less than rejections may have, because these can be read elsewhere.
MAX_RESULT_BYTES = 2 * 1024 * 1024


async def write_results(
    answer: usage_pb2.UsageOutcome, rejections: Sequence[usage_pb2.Rejection], outcome: Outcome, slices: Slices
) -> None:
    """Fills in rejections, transitions and gauges, in this order of precedence, and says what does not fit.

    Rejections are all shown unless a batch is larger than the default: they are stored nowhere else.
    """
    await slices.begin()
    rejected, _ = await fitting_in_slices(rejections, MAX_ANSWER_BYTES, slices)
    used = sum(one.ByteSize() for one in rejected)
    transitions, room = await fitting_in_slices(
        map(transition_message, outcome.transitions), min(MAX_RESULT_BYTES, MAX_ANSWER_BYTES - used), slices
    )
    complete = len(transitions) == len(outcome.transitions)
    gauges: Iterable[gauge_pb2.Gauge] = (gauge_message(gauge, value) for gauge, value in outcome.gauges)
    shown, _ = await fitting_in_slices(gauges, room if complete else 0, slices)
    answer.rejected.extend(rejected)
    answer.transitions.extend(transitions)
    answer.gauges.extend(shown)
    omitted = usage_pb2.OmittedResults(
        transition_count=len(outcome.transitions) - len(transitions),
        gauge_count=len(outcome.gauges) - len(shown),
        rejection_count=len(rejections) - len(rejected),
    )
    if not complete:
        omitted.ingest_time.CopyFrom(to_timestamp(outcome.transitions[len(transitions)].ingest_time))
    if omitted.ByteSize():
        answer.omitted.CopyFrom(omitted)

"""Outcomes of usage: what became of a batch, cut to the size of an answer, with a note of what is left out."""

from collections.abc import Iterable, Sequence

from engine.evaluation.results import RecordedTransition
from engine.ingest.batches import Outcome
from generated.tidemark.v1 import (
    gauge_pb2,
    usage_pb2,
)
from runtime.turns import Slices
from server.calls.answer_size import add_in_slices, fitting_in_slices
from server.calls.validation import to_timestamp
from server.mapping.decisions import limit_state_message
from server.mapping.gauges import gauge_message
from server.mapping.transitions import transition_message

MAX_OVER_LIMITS = 100  # in one answer


async def write_results(
    answer: usage_pb2.UsageOutcome,
    rejections: Sequence[usage_pb2.Rejection],
    outcome: Outcome,
    room: int,
    slices: Slices,
) -> Sequence[RecordedTransition]:
    """Fills in limits, rejections, transitions and gauges, in this order of precedence, and counts what does not fit.

    Rejections are all shown unless a batch is larger than the default: they are stored nowhere else. Returns the
    transitions that are left out. room: bytes for all of it.
    """
    await slices.begin()
    limits, room = await fitting_in_slices(
        map(limit_state_message, outcome.over_limits[:MAX_OVER_LIMITS]), room, slices
    )
    await add_in_slices(answer.over_limits, limits, slices)
    rejected, room = await fitting_in_slices(rejections, room, slices)
    transitions, room = await fitting_in_slices(
        map(transition_message, outcome.transitions),
        room if len(rejected) == len(rejections) else 0,
        slices,
    )
    left_out = outcome.transitions[len(transitions) :]
    gauges: Iterable[gauge_pb2.Gauge] = (gauge_message(gauge, value) for gauge, value in outcome.gauges)
    shown, _ = await fitting_in_slices(gauges, 0 if left_out else room, slices)
    await add_in_slices(answer.rejected, rejected, slices)
    await add_in_slices(answer.transitions, transitions, slices)
    await add_in_slices(answer.gauges, shown, slices)
    omitted = usage_pb2.OmittedResults(
        transition_count=len(left_out),
        gauge_count=len(outcome.gauges) - len(shown),
        rejection_count=len(rejections) - len(rejected),
    )
    if left_out:
        omitted.ingest_time.CopyFrom(to_timestamp(left_out[0].ingest_time))
    if omitted.ByteSize():
        answer.omitted.CopyFrom(omitted)
    return left_out

"""The trace of each notification: that of the event that caused it, or else the current one."""

from collections.abc import Iterable, Mapping, Sequence

from engine.evaluation.results import RecordedTransition
from engine.evaluation.subjects import Subject
from engine.rules.transaction import Transaction
from evaluator.notifications import DisabledNotification
from runtime.tracing.current import current_trace

Identity = tuple[str, str]  # of an event: customer id and event id; the second is empty where no event is the cause
NO_TRACES: Mapping[str, str] = {}


async def traces_of_transitions(
    transaction: Transaction, transitions: Sequence[RecordedTransition], subjects: Sequence[Subject]
) -> Mapping[str, str]:
    """What is stored for the notifications of transitions, by notification id; those without a trace are left out.

    A notification with several causes belongs to the last one. subjects: the gauges of the transitions.
    """
    if transaction.traces is None and current_trace() is None:
        return NO_TRACES
    causes: dict[str, Identity] = {}
    first: dict[object, str] = {}
    if transaction.traces is not None:
        entries = ((one.movement.watch.gauge, one.movement.entries) for one in subjects)
        first = {gauge: moved[0][1].event_id for gauge, moved in entries if moved}
    for one in transitions:
        if one.notification is not None:
            cause = one.transition.cause
            event_id = first.get(one.gauge, "") if cause is None or cause.event_id is None else cause.event_id
            causes[one.notification.notification_id] = one.gauge.customer_id, event_id
    return await _stored(transaction, causes)


async def traces_of_disablings(
    transaction: Transaction, notifications: Iterable[DisabledNotification]
) -> Mapping[str, str]:
    """The same for alerts that were disabled because of too many groups."""
    if transaction.traces is None and current_trace() is None:
        return NO_TRACES
    return await _stored(
        transaction,
        {one.notification_id: (one.customer_id, (one.cause and one.cause.event_id) or "") for one in notifications},
    )


async def _stored(transaction: Transaction, causes: Mapping[str, Identity]) -> Mapping[str, str]:
    here = current_trace()
    if transaction.traces is None:
        return NO_TRACES if here is None else dict.fromkeys(causes, here.stored)
    slices = transaction.slices()
    await slices.begin()
    await transaction.traces.find_first(slices)
    stored: dict[str, str] = {}
    for notification_id, cause in causes.items():
        trace = transaction.traces.trace_of(cause)
        if trace is None:
            continue
        # The evaluation is nearer than the call, where it belongs to the same trace.
        nearest = here if here is not None and here.trace_id == trace.trace_id else trace
        stored[notification_id] = nearest.stored
        await slices.pause()
    return stored

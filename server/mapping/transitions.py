"""Transitions, as the answers to usage show them."""

from engine.evaluation.results import RecordedTransition
from evaluator.amounts import format_decimal
from generated.tidemark.v1 import (
    condition_pb2,
    transition_pb2,
)
from server.calls.validation import to_timestamp
from server.mapping.gauges import gauge_message
from server.mapping.thresholds import KINDS, threshold_message


def transition_message(recorded: RecordedTransition) -> transition_pb2.Transition:
    """A transition with its evidence; the gauge shows the value that this step brought it to."""
    transition, rule, notification = recorded.transition, recorded.rule, recorded.notification
    shown = transition_pb2.Transition(
        notification_id=notification.notification_id if notification else "",
        alert_id=rule.alert_id,
        alert_display_name=rule.display_name,
        alert_version=rule.version,
        condition_type=condition_pb2.ConditionType.Value(f"CONDITION_TYPE_{rule.condition_type.name}"),
        kind=KINDS[transition.kind],
        threshold=threshold_message(transition.threshold),
        level=format_decimal(transition.level),
        furthest=transition.furthest,
        gauge=gauge_message(recorded.gauge, transition.value, recorded.limit),
        previous_value=format_decimal(transition.previous_value),
        value=format_decimal(transition.value),
        ingest_time=to_timestamp(recorded.ingest_time),
        sequence=notification.sequence if notification else 0,
        late=recorded.late,
        notified=notification is not None,
    )
    if transition.cause is not None:
        shown.event_id = transition.cause.event_id or ""
        shown.event_time.CopyFrom(to_timestamp(transition.cause.event_time))
        shown.voided_events = transition.cause.voided_events
    return shown

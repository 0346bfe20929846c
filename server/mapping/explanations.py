"""Explanations of the alerts of customers as messages of the contract."""

from collections.abc import Sequence
from decimal import Decimal

from engine.explanation import sentences
from engine.explanation.deliveries import SentNotification, Whereabouts
from engine.explanation.findings import ExplainedGauge, Explanation, Next, StepResult
from evaluator.amounts import exact_arithmetic, format_decimal
from evaluator.thresholds import Threshold, ThresholdSet
from generated.tidemark.v1 import explanation_pb2 as messages
from generated.tidemark.v1 import notification_pb2, transition_pb2
from generated.tidemark.v1.threshold_pb2 import TRANSITION_KIND_REACHED
from server.calls.validation import to_timestamp
from server.mapping.accounts import AGGREGATIONS, cycle_message
from server.mapping.alerts import alert_message
from server.mapping.gauges import CHANGE_REASONS, gauge_message, period_message, threshold_state_message
from server.mapping.notifications import notification_message
from server.mapping.thresholds import threshold_message
from server.mapping.webhooks import attempt_message, delivery_message
from store.usage.event_samples import EventSample


def explanation_message(
    explanation: Explanation, whereabouts: Whereabouts, *, with_deliveries: bool
) -> messages.CustomerAlertExplanation:
    """An explanation. with_deliveries: whether the caller may see endpoints, so that `whereabouts` has them."""
    shown = messages.CustomerAlertExplanation(
        alert=alert_message(explanation.definition),
        customer_id=explanation.customer_id,
        read_time=to_timestamp(explanation.time),
        reason=_reason(explanation.reason),
        summary=sentences.of_explanation(explanation),
        steps=[_step_message(one) for one in explanation.steps],
        gauges_truncated=explanation.truncated,
    )
    notifications = [notification_message(one.entry) for one in whereabouts.notifications]
    shown.gauges.extend(_gauge_message(one, notifications) for one in explanation.gauges)
    if explanation.counted is not None:
        shown.counted.CopyFrom(_counted_message(explanation.counted))
    if explanation.groups is not None:
        shown.group_count, shown.group_limit = explanation.groups
    for sent, notification in zip(whereabouts.notifications, notifications, strict=True):
        shown.notifications.append(_sent_message(sent, notification, whereabouts, with_deliveries=with_deliveries))
    for endpoint, outcome in whereabouts.endpoints:
        one = shown.endpoints.add(
            endpoint_id=endpoint.endpoint_id,
            display_name=endpoint.display_name,
            outcome=messages.EndpointOutcome.Value(f"ENDPOINT_OUTCOME_{outcome}"),
            summary=sentences.of_endpoint(endpoint, outcome),
        )
        if endpoint.failing_since is not None:
            one.failing_since_time.CopyFrom(to_timestamp(endpoint.failing_since))
    return shown


def _reason(reason: str) -> messages.ExplanationReason.ValueType:
    return messages.ExplanationReason.Value(f"EXPLANATION_REASON_{reason}")


def _step_message(step: StepResult) -> messages.ExplanationStep:
    return messages.ExplanationStep(
        check=messages.ExplanationCheck.Value(f"EXPLANATION_CHECK_{step.check}"),
        reason=_reason(step.reason),
        summary=step.summary,
    )


def _gauge_message(
    one: ExplainedGauge, notifications: Sequence[notification_pb2.Notification]
) -> messages.GaugeExplanation:
    limit = None if one.limit is None else one.limit.amount
    shown = messages.GaugeExplanation(
        gauge=gauge_message(one.gauge, one.value, limit, None if one.held is None else one.held.amount),
        reason=_reason(one.reason),
        summary=sentences.of_gauge(one),
        awaits_evaluation=one.awaits,
        sequence=one.sequence,
        change_reason=CHANGE_REASONS[one.change_reason],
    )
    if one.gauge.measure.metric_id is not None and one.aggregation is not None:
        shown.aggregation = AGGREGATIONS[one.aggregation]
    if one.cycle is not None:
        shown.billing_cycle.CopyFrom(cycle_message(one.cycle))
    for name, time in (
        ("counts_until_time", one.late_until),
        ("update_time", one.update_time),
        ("change_time", one.change_time),
    ):
        if time is not None:
            getattr(shown, name).CopyFrom(to_timestamp(time))
    if one.limit is not None:
        shown.limit.amount = format_decimal(one.limit.amount)
        shown.limit.plan_id = one.limit.plan_id or ""
    own = [each for each in notifications if each.sequence and _is_about(each, shown)]
    shown.thresholds.extend(_threshold_message(one, threshold, limit, own) for threshold in one.all_thresholds)
    if one.next is not None:
        shown.next.CopyFrom(_next_message(one.next, counts_held=one.gauge.measure.counts_held))
    if one.held is not None:
        shown.hold_count = one.held.number
    for held in one.holding:
        shown.holds.add(
            reservation_id=held.reservation_id,
            amount=format_decimal(held.amount),
            expire_time=to_timestamp(held.expire_time),
        )
    return shown


def _is_about(notification: notification_pb2.Notification, shown: messages.GaugeExplanation) -> bool:
    """Whether a notification is about a gauge, whatever its value was."""
    its, gauge = notification.evaluation.gauge, shown.gauge
    return (
        its.subscription_id == gauge.subscription_id
        and its.billing_period == gauge.billing_period
        and list(its.group) == list(gauge.group)
        and its.WhichOneof("measure") == gauge.WhichOneof("measure")
        and its.balances.balance_id == gauge.balances.balance_id
        and its.balances.segment_number == gauge.balances.segment_number
        and its.invoices.invoice_id == gauge.invoices.invoice_id
    )


def _threshold_message(
    one: ExplainedGauge,
    threshold: Threshold,
    limit: Decimal | None,
    notifications: Sequence[notification_pb2.Notification],
) -> messages.ThresholdExplanation:
    known = one.state.reached.get(threshold.key)
    shown = messages.ThresholdExplanation(
        state=threshold_state_message(threshold, known, limit), summary=sentences.of_threshold(one, threshold)
    )
    with exact_arithmetic():
        level = _level(one.thresholds, threshold, known.recurrences if known else 0)
        if level is not None:
            shown.level = format_decimal(level)
            if one.value is not None and not _is_beyond(one.thresholds, one.value, level):
                shown.distance = format_decimal(abs(level - one.value))
    if threshold.resolve_value is not None:
        shown.resolve_level = format_decimal(threshold.resolve_value)
    if known is not None:
        shown.notification_id = _reporting(threshold, notifications)
    return shown


def _level(thresholds: ThresholdSet, threshold: Threshold, recurrences: int) -> Decimal | None:
    """The level of a threshold, of a recurring one the next; None for a percentage of no limit."""
    if threshold in thresholds.percentages:
        return None
    return threshold.value if threshold.recurring_step is None else thresholds.recurring_level(recurrences + 1)


def _is_beyond(thresholds: ThresholdSet, value: Decimal, level: Decimal) -> bool:
    return thresholds.is_reached(value, Threshold(level))


def _reporting(threshold: Threshold, notifications: Sequence[notification_pb2.Notification]) -> str:
    """The latest of the notifications that reports that a threshold was reached; empty if none does."""
    like = threshold_message(threshold)
    for notification in notifications:
        for transition in notification.evaluation.transitions:
            if transition.kind == TRANSITION_KIND_REACHED and _same(transition, like):
                return notification.notification_id
    return ""


def _same(transition: transition_pb2.Transition, threshold: object) -> bool:
    return all(
        getattr(transition.threshold, name) == getattr(threshold, name)
        for name in ("value", "recurring_step", "percent_of_limit")
    )


def _next_message(following: Next, *, counts_held: bool) -> messages.NextNotification:
    return messages.NextNotification(
        level=format_decimal(following.level),
        amount="" if following.amount is None else format_decimal(following.amount),
        event_count="" if following.events is None else format_decimal(following.events),
        summary=sentences.of_next(following, counts_held=counts_held),
    )


def _counted_message(sample: EventSample) -> messages.CountedEvents:
    shown = messages.CountedEvents(
        billing_period=period_message(sample.period),
        is_complete=sample.is_complete,
        examined_count=sample.examined,
        event_count=sample.counted,
        last_event_id=sample.last_event_id or "",
        late_count=sample.late,
        voided_count=sample.voided,
        other_unit_count=sample.other_unit,
        filtered_count=sample.filtered,
        ungrouped_count=sample.ungrouped,
        other_units=sample.other_units,
    )
    if sample.last_event_time is not None:
        shown.last_event_time.CopyFrom(to_timestamp(sample.last_event_time))
    if sample.last_ingest_time is not None:
        shown.last_ingest_time.CopyFrom(to_timestamp(sample.last_ingest_time))
    return shown


def _sent_message(
    sent: SentNotification,
    notification: notification_pb2.Notification,
    whereabouts: Whereabouts,
    *,
    with_deliveries: bool,
) -> messages.NotificationExplanation:
    shown = messages.NotificationExplanation(
        notification=notification,
        summary=sentences.of_notification(sent, with_deliveries),
        awaits_fan_out=sent.awaits_fan_out,
    )
    for delivery in sent.deliveries:
        attempts = whereabouts.attempts.get(delivery.delivery_id, ())
        shown.deliveries.add(
            delivery=delivery_message(delivery),
            attempts=[attempt_message(one) for one in attempts],
            summary=sentences.of_delivery(delivery, attempts),
        )
    return shown

"""The messages of a notification say what its signed body says, for everything that can be measured."""

from dataclasses import replace

import pytest

from engine.evaluation.results import RecordedTransition
from evaluator.exclusions import ExclusionReason
from evaluator.gauges import Gauge, Measure
from evaluator.notifications import MAX_TRANSITIONS, DisabledNotification, Notification, RequestedDisabling
from evaluator.transitions import Cause, mark_furthest
from generated.tidemark.v1 import customer_alert_pb2, notification_pb2, transition_pb2
from server.calls.validation import to_timestamp
from server.mapping.gauges import DISABLED_REASONS, gauge_message, period_message
from server.mapping.notification_details import write_detail
from server.mapping.transitions import transition_message
from tests.support.evaluator.sent import NOW, PERIOD, RULE, notifications

NOTIFICATIONS = list(notifications())
STATED_ONCE = (
    "notification_id",
    "alert_id",
    "alert_display_name",
    "alert_version",
    "condition_type",
    "gauge",
    "ingest_time",
    "sequence",
    "late",
    "notified",
)


def detailed(body: str) -> notification_pb2.Notification:
    """A notification with only what its body says."""
    shown = notification_pb2.Notification()
    write_detail(body, shown)
    return shown


def short(notification: Notification) -> list[transition_pb2.Transition]:
    """The transitions that a notification shows, without what the notification itself says of all of them."""
    found = []
    last = mark_furthest(notification.transitions[-MAX_TRANSITIONS:], notification.rule.condition_type.direction)
    for transition in last:
        recorded = RecordedTransition(transition, notification.rule, notification.gauge, False, NOW, notification)
        message = transition_message(recorded)
        for name in STATED_ONCE:
            message.ClearField(name)  # type: ignore[arg-type]
        message.threshold.ClearField("notify_on")
        found.append(message)
    return found


@pytest.mark.parametrize("number", range(len(NOTIFICATIONS)))
def test_evaluation_has_the_gauge_and_the_transitions_of_the_body(number: int) -> None:
    one = replace(NOTIFICATIONS[number], late=number % 2 == 1)
    shown = detailed(one.body())
    assert (shown.alert_version, shown.alert_display_name) == (RULE.version, RULE.display_name)
    expected = notification_pb2.Evaluation(
        gauge=gauge_message(one.gauge, one.transitions[-1].value, one.limit),
        previous_value="1.5",
        transitions=short(one),
        omitted_count=max(0, len(one.transitions) - MAX_TRANSITIONS),
        late=one.late,
    )
    assert shown.evaluation == expected


@pytest.mark.parametrize("cause", [Cause("e-1", NOW), None])
def test_disabled_alert_has_its_reason_and_the_first_group_beyond_the_limit(cause: Cause | None) -> None:
    group = (("model", "5001"), ("region", "eu"))
    gauge = Gauge("acme", "acme-pro", Measure(currency="USD", per_subscription=True), group, PERIOD)
    shown = detailed(DisabledNotification("default", RULE, gauge, 5_000, 1, NOW, cause).body())
    expected = notification_pb2.AlertDisabled(
        reason=customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_GROUP_LIMIT,
        subscription_id="acme-pro",
        group_limit=5_000,
        group=gauge_message(gauge, None).group,
        billing_period=period_message(PERIOD),
    )
    if cause is not None:
        expected.event_id = "e-1"
        expected.event_time.CopyFrom(to_timestamp(NOW))
    assert shown.alert_disabled == expected
    assert not shown.HasField("evaluation")


@pytest.mark.parametrize("subscription_id", ["acme-pro", None])
@pytest.mark.parametrize("customer_id", ["acme", ""])
def test_disabled_alert_has_the_reason_that_a_caller_requested_it(
    customer_id: str, subscription_id: str | None
) -> None:
    shown = detailed(RequestedDisabling("default", RULE, customer_id, subscription_id, 1, NOW).body())
    assert shown.alert_disabled == notification_pb2.AlertDisabled(
        reason=customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_REQUESTED, subscription_id=subscription_id or ""
    )


def test_every_reason_has_a_value_of_the_contract() -> None:
    assert set(DISABLED_REASONS) == {None, *ExclusionReason}

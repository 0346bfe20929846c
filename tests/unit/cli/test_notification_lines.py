"""The line of text for a notification."""

import json
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from cli.watch.notification_lines import notification_line
from generated.tidemark.v1.event_type_pb2 import EVENT_TYPE_ALERT_DISABLED, EventType
from generated.tidemark.v1.notification_pb2 import Notification
from server.calls.validation import to_timestamp
from webhooks.example_events import example_body


def plain(notification: Notification) -> str:
    return Text.from_markup(notification_line(notification)).plain


def shown(gauge: dict[str, Any], *transitions: tuple[str, str, str], late: bool = False) -> str:
    data = {
        "customer_id": "acme",
        "gauge": {"customer_id": "acme", **gauge},
        "previous_value": "9.5",
        "value": "60",
        "late": late,
        "transitions": [
            {"kind": kind, "level": level, "threshold": {"value": level, **({"code": code} if code else {})}}
            for kind, level, code in transitions
        ],
    }
    time = to_timestamp(datetime(2026, 3, 15, 12, 30, 5, tzinfo=UTC))
    return plain(
        Notification(
            create_time=time,
            customer_id="acme",
            alert_display_name="[bold] calls",
            body=json.dumps({"data": data}),
        )
    )


def test_line_shows_a_recharge_and_why_a_policy_switched_itself_off() -> None:
    found = [
        plain(
            Notification(
                create_time=to_timestamp(datetime(2026, 3, 15, 12, 30, 5, tzinfo=UTC)),
                customer_id="acme",
                event_type=EventType.Value(f"EVENT_TYPE_{event_type.replace('.', '_').upper()}"),
                body=example_body("tst_1", event_type, "", datetime(2026, 3, 15, tzinfo=UTC)),
            )
        )
        for event_type in ("recharge.requested", "recharge.canceled", "recharge.policy_disabled")
    ]
    assert found == [
        "2026-03-15 12:30:05  acme  recharge test-balance 87.5 USD  requested",
        "2026-03-15 12:30:05  acme  recharge test-balance 87.5 USD  canceled  policy deleted",
        "2026-03-15 12:30:05  acme  recharge test-balance USD  policy disabled  attempts failed",
    ]


def test_line_shows_subscription_group_codes_and_values() -> None:
    gauge = {
        "subscription_id": "pro",
        "metric_id": "calls",
        "group": [{"key": "region", "value": "eu"}],
        "period": {"start_time": "2026-03-01T00:00:00.000000Z", "end_time": "2026-04-01T00:00:00.000000Z"},
    }
    assert shown(gauge, ("REACHED", "10", "warn"), ("REACHED", "50", "")) == (
        "2026-03-15 12:30:05  acme/pro  [bold] calls  calls region=eu  reached 10 (warn), 50  9.5 → 60"
    )


def test_line_shows_reached_and_resolved_of_one_notification_and_late() -> None:
    gauge = {"currency": "USD", "invoice_id": "in_1"}
    assert shown(gauge, ("REACHED", "10", ""), ("RESOLVED", "10", ""), late=True) == (
        "2026-03-15 12:30:05  acme  [bold] calls  USD in_1  reached 10; resolved 10  9.5 → 60  late"
    )


def test_line_of_a_disabled_alert_shows_group_and_reason() -> None:
    data = {
        "customer_id": "acme",
        "subscription_id": "pro",
        "reason": "GROUP_LIMIT",
        "group": [],
    }
    notification = Notification(
        create_time=to_timestamp(datetime(2026, 3, 15, 12, 30, 5, tzinfo=UTC)),
        customer_id="acme",
        event_type=EVENT_TYPE_ALERT_DISABLED,
        alert_display_name="calls",
        body=json.dumps({"data": {**data, "group": [{"key": "region", "value": "eu"}]}}),
    )
    assert plain(notification) == "2026-03-15 12:30:05  acme/pro  calls  region=eu  disabled  group limit"

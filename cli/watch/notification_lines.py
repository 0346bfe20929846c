"""A line of text for each notification."""

import json
from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from generated.tidemark.v1.event_type_pb2 import EventType
from generated.tidemark.v1.notification_pb2 import Notification

ALL_CUSTOMERS = "all customers"  # of a notification about an alert as a whole

_STYLES = {"REACHED": "bad", "RESOLVED": "good"}
# Fields of a gauge that the line shows elsewhere, or leaves out.
_OTHER_FIELDS = {"customer_id", "subscription_id", "group", "period"}


def notification_line(notification: Notification) -> str:
    """Time, customer, alert, and what happened, with rich's markup for colours. The body contains more."""
    data = json.loads(notification.body)["data"]
    gauge = data.get("gauge", data)
    customer = "/".join(filter(None, (notification.customer_id, gauge.get("subscription_id"))))
    parts = [
        f"[quiet]{notification.create_time.ToDatetime():%Y-%m-%d %H:%M:%S}[/]",
        f"[name]{escape(customer or ALL_CUSTOMERS)}[/]",
        # Not of the body: the body of a notification that was stored before 0.1.0 has it under another name.
        escape(notification.alert_display_name),
        *(_transitions(data) if "transitions" in data else _other(notification.event_type, data)),
    ]
    return "  ".join(part for part in parts if part)


def _transitions(data: Mapping[str, Any]) -> list[str]:
    levels_by_kind: dict[str, list[str]] = {}
    for transition in data["transitions"]:
        levels_by_kind.setdefault(transition["kind"], []).append(_level(transition))
    changes = "; ".join(
        f"[{_STYLES.get(kind, 'warn')}]{kind.lower()} {escape(', '.join(levels))}[/]"
        for kind, levels in levels_by_kind.items()
    )
    values = f"[quiet]{escape(data['previous_value'])} → {escape(data['value'])}[/]"
    return [escape(_measure(data["gauge"])), changes, values, "[warn]late[/]" if data["late"] else ""]


def _other(event_type: EventType.ValueType, data: Mapping[str, Any]) -> list[str]:
    """A notification without a gauge: an alert was disabled for a customer, or it is about a recharge."""
    reason = str(data.get("reason", data.get("cancel_reason", ""))).lower().replace("_", " ")
    kind, _, words = EventType.Name(event_type).removeprefix("EVENT_TYPE_").lower().partition("_")
    happened = words.replace("_", " ")
    if kind == "recharge":
        of_balance = " ".join(filter(None, (data["balance_id"], data.get("amount"), data.get("currency"))))
        return [f"recharge {escape(of_balance)}", f"[warn]{happened}[/]", escape(reason)]
    return [escape(_group(data)), f"[warn]{happened}[/]", escape(reason)]


def _measure(gauge: Mapping[str, Any]) -> str:
    fields = [str(value) for name, value in gauge.items() if name not in _OTHER_FIELDS and isinstance(value, str)]
    return " ".join([*fields, _group(gauge)]).rstrip()


def _group(data: Mapping[str, Any]) -> str:
    return " ".join(f"{pair['key']}={pair['value']}" for pair in data.get("group", ()))


def _level(transition: Mapping[str, Any]) -> str:
    code = transition["threshold"].get("code")
    return f"{transition['level']} ({code})" if code else str(transition["level"])

"""One line for each notification."""

import json
from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from generated.tidemark.v1.notification_pb2 import Notification

_STYLES = {"REACHED": "bad", "RESOLVED": "good"}
# Of a gauge: what stands elsewhere in the line, or would be too much for it.
_NOT_MEASURED = {"customer_id", "subscription_id", "group", "period"}


def line(notification: Notification) -> str:
    """A notification as a person reads it, with the markup of its colours; the body has more."""
    data = json.loads(notification.body)["data"]
    gauge = data.get("gauge", data)
    owner = "/".join(filter(None, (notification.customer_id, gauge.get("subscription_id"))))
    parts = [
        f"[quiet]{notification.create_time.ToDatetime():%Y-%m-%d %H:%M:%S}[/]",
        f"[name]{escape(owner)}[/]",
        escape(data["alert_name"]),
        *(_transitions(data) if "transitions" in data else _other(notification.event_type, data)),
    ]
    return "  ".join(part for part in parts if part)


def _transitions(data: Mapping[str, Any]) -> list[str]:
    crossed: dict[str, list[str]] = {}
    for transition in data["transitions"]:
        crossed.setdefault(transition["kind"], []).append(_level(transition))
    told = "; ".join(
        f"[{_STYLES.get(kind, 'warn')}]{kind.lower()} {escape(', '.join(levels))}[/]"
        for kind, levels in crossed.items()
    )
    values = f"[quiet]{escape(data['previous_value'])} → {escape(data['value'])}[/]"
    return [escape(_measure(data["gauge"])), told, values, "[warn]late[/]" if data["late"] else ""]


def _other(event_type: str, data: Mapping[str, Any]) -> list[str]:
    """What is about no gauge, such as that an alert is disabled for a customer."""
    reason = str(data.get("reason", "")).lower().replace("_", " ")
    return [escape(_group(data)), f"[warn]{escape(event_type.rpartition('.')[2])}[/]", escape(reason)]


def _measure(gauge: Mapping[str, Any]) -> str:
    own = [str(value) for name, value in gauge.items() if name not in _NOT_MEASURED and isinstance(value, str)]
    return " ".join([*own, _group(gauge)]).rstrip()


def _group(holder: Mapping[str, Any]) -> str:
    return " ".join(f"{pair['key']}={pair['value']}" for pair in holder.get("group", ()))


def _level(transition: Mapping[str, Any]) -> str:
    code = transition["threshold"].get("code")
    return f"{transition['level']} ({code})" if code else str(transition["level"])

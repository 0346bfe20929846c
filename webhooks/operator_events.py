"""Operator events: notices about endpoints, deliveries, failed evaluations and limits; their types and bodies."""

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from evaluator.notification_json import format_time

EVENT_ID_PREFIX = "evt_"

# Prefixes of the types. An endpoint gets operator events only when its event_types name them.
PREFIXES = ("endpoint.", "delivery.", "evaluation.", "limit.")


class OperatorEventType(StrEnum):
    """The types of operator events."""

    ENDPOINT_FAILING = "endpoint.failing"
    ENDPOINT_DISABLED = "endpoint.disabled"
    ENDPOINT_RECOVERED = "endpoint.recovered"
    DELIVERY_EXHAUSTED = "delivery.exhausted"
    EVALUATION_FAILED = "evaluation.failed"  # not about an endpoint: see store/notifications/evaluation_failures.py
    LIMIT_REFUSED = "limit.refused"  # nor is this one: see store/notifications/refused_limits.py


@dataclass(frozen=True)
class Notice:
    """The content of an operator event."""

    event_type: OperatorEventType
    data: dict[str, object]  # JSON; times are datetimes


@dataclass(frozen=True)
class OperatorEvent:
    """One operator event before it is written."""

    organization_id: int
    endpoint_id: str  # the endpoint that it is about; empty: none
    notice: Notice


def is_operator_event(event_type: str) -> bool:
    """Whether a type is that of an operator event, and not of a notification about a customer."""
    return event_type.startswith(PREFIXES)


@dataclass(frozen=True)
class EvaluationFailure:
    """An evaluation that could not be recorded. alert_id, event_id: unset when the cause is not known."""

    alert_id: str | None
    customer_id: str
    event_id: str | None


def notice_of(failure: EvaluationFailure) -> Notice:
    """The notice of a failed evaluation. It names alert, customer and event; the reason is only in the log."""
    data = {"alert_id": failure.alert_id, "customer_id": failure.customer_id, "event_id": failure.event_id}
    return Notice(
        OperatorEventType.EVALUATION_FAILED, {name: value for name, value in data.items() if value is not None}
    )


@dataclass(frozen=True)
class LimitRefusal:
    """A hard limit that refused usage for the first time in its window.

    customer_id, subscription_id: whose usage counts against it. access: what is limited, as in the API. groups: of
    the usage that counts. Amounts are decimal strings, as they were before the request.
    """

    limit_id: str
    customer_id: str
    subscription_id: str | None
    access: dict[str, str]
    groups: tuple[tuple[str, str], ...]
    amount: str
    counted: str
    held: str
    window: str
    window_start: datetime
    window_end: datetime

    @property
    def notice(self) -> Notice:
        """The notice of it."""
        data: dict[str, object] = {"limit_id": self.limit_id, "customer_id": self.customer_id}
        if self.subscription_id is not None:
            data["subscription_id"] = self.subscription_id
        data |= self.access
        if self.groups:
            data["groups"] = [{"key": key, "value": value} for key, value in self.groups]
        data |= {"amount": self.amount, "counted": self.counted, "held": self.held, "window": self.window}
        data |= {"window_start_time": self.window_start, "window_end_time": self.window_end}
        return Notice(OperatorEventType.LIMIT_REFUSED, data)


def body_of(event_id: str, event: OperatorEvent, now: datetime) -> str:
    """The JSON that is posted, byte for byte."""
    return json.dumps(
        {
            "id": event_id,
            "type": event.notice.event_type,
            "timestamp": format_time(now),
            "data": ({"endpoint_id": event.endpoint_id} if event.endpoint_id else {})
            | {
                name: format_time(value) if isinstance(value, datetime) else value
                for name, value in event.notice.data.items()
            },
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )

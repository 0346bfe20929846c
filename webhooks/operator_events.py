"""Operator events: their types, and the bodies that are posted."""

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from evaluator.notification_json import format_time

EVENT_ID_PREFIX = "evt_"

# An endpoint gets these only when its event_types name them.
PREFIXES = ("endpoint.", "delivery.", "evaluation.")


class OperatorEventType(StrEnum):
    """What operators are told about their endpoints, and about evaluations that fail."""

    ENDPOINT_FAILING = "endpoint.failing"
    ENDPOINT_DISABLED = "endpoint.disabled"
    ENDPOINT_RECOVERED = "endpoint.recovered"
    DELIVERY_EXHAUSTED = "delivery.exhausted"
    EVALUATION_FAILED = "evaluation.failed"  # about no endpoint: see store/notifications/evaluation_failures.py


@dataclass(frozen=True)
class Notice:
    """Something that operators are told once per endpoint."""

    event_type: OperatorEventType
    data: dict[str, object]  # JSON; times are datetimes


@dataclass(frozen=True)
class OperatorEvent:
    """One operator event before it is written."""

    organization_id: int
    endpoint_id: str  # whom it is about; empty: no endpoint
    notice: Notice


def is_operator_event(event_type: str) -> bool:
    """Whether events of that type are for operators only, and not about what customers use."""
    return event_type.startswith(PREFIXES)


@dataclass(frozen=True)
class EvaluationFailure:
    """An evaluation that could not be recorded; alert_id, event_id: unset where none is known to be the cause."""

    alert_id: str | None
    customer_id: str
    event_id: str | None


def notice_of(failure: EvaluationFailure) -> Notice:
    """What operators are told of a failure: whose, and of what; never why, which is in the log of the service."""
    data = {"alert_id": failure.alert_id, "customer_id": failure.customer_id, "event_id": failure.event_id}
    return Notice(
        OperatorEventType.EVALUATION_FAILED, {name: value for name, value in data.items() if value is not None}
    )


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

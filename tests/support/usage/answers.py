"""Short forms of answers and stored notifications, with the fields that most tests compare."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from generated.tidemark.v1 import (
    error_reason_pb2,
    gauge_pb2,
    threshold_pb2,
    transition_pb2,
    usage_pb2,
)

Outcome = usage_pb2.UsageOutcome


class ShortTransition(NamedTuple):
    """The fields of a transition that most tests compare."""

    kind: str
    level: str
    previous_value: str
    value: str
    event_id: str


class Refusal(NamedTuple):
    """The fields of a rejection that most tests compare; at: index of the event; paths: those in its BadRequest."""

    at: int
    code: str
    reason: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stored:
    """A row of notification."""

    customer_id: str
    notification_id: str
    alert_id: str
    sequence: int
    event_type: str
    body: dict[str, Any]

    @property
    def transitions(self) -> list[ShortTransition]:
        """The transitions in its body."""
        return [
            ShortTransition(one["kind"], one["level"], one["previous_value"], one["value"], one.get("event_id", ""))
            for one in self.body["data"]["transitions"]
        ]


def shortened(transitions: Iterable[transition_pb2.Transition]) -> list[ShortTransition]:
    """The transitions of an answer, in short form."""
    return [
        ShortTransition(
            threshold_pb2.TransitionKind.Name(one.kind).removeprefix("TRANSITION_KIND_"),
            one.level,
            one.previous_value,
            one.value,
            one.event_id,
        )
        for one in transitions
    ]


def values(gauges: Iterable[gauge_pb2.Gauge]) -> dict[tuple[str, ...], Decimal]:
    """The values of the gauges of an answer, by customer and subscription, measure and group."""
    found: dict[tuple[str, ...], Decimal] = {}
    for gauge in gauges:
        who = (gauge.customer_id, gauge.subscription_id) if gauge.subscription_id else (gauge.customer_id,)
        what = gauge.usage.metric_id or gauge.cost.currency
        key = (*who, what, *(item.value for item in gauge.group))
        assert key not in found, f"the answer has the gauge {key} twice"
        found[key] = Decimal(gauge.value)
    return found


def refusals(answer: Outcome) -> list[Refusal]:
    """The rejected events of an answer, in short form."""
    return [Refusal(one.index, *explained(one.status)) for one in answer.rejected]


def explained(status: status_pb2.Status) -> tuple[str, str, tuple[str, ...]]:
    """Code, reason and violated paths of a status; checks that it has an ErrorInfo with a known reason."""
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    info = _detail(status, error_details_pb2.ErrorInfo())
    assert info is not None
    assert info.domain == "tidemark.dev"
    assert error_reason_pb2.ErrorReason.Value(info.reason) > 0
    assert status.message
    bad = _detail(status, error_details_pb2.BadRequest())
    paths = tuple(violation.field for violation in bad.field_violations) if bad is not None else ()
    return code.name, info.reason.removeprefix("ERROR_REASON_"), paths


def _detail(status: status_pb2.Status, into: Any) -> Any:
    """The detail of that type, or None."""
    message: Message = into
    return next((into for detail in status.details if detail.Unpack(message)), None)

"""Notifications: the immutable record of one evaluation of one alert on one gauge, or that an alert was disabled.

Webhooks, the stream and the history carry `body()` byte for byte.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from evaluator.alerts import AlertRule
from evaluator.amounts import format_decimal
from evaluator.exclusions import ExclusionReason
from evaluator.gauges import Gauge
from evaluator.ids import digest_id
from evaluator.notification_json import (
    alert_json,
    format_time,
    gauge_json,
    group_json,
    last_that_fit,
    notification_json,
    period_json,
    transition_json,
)
from evaluator.thresholds import TransitionKind
from evaluator.transitions import Cause, Transition, mark_furthest

ID_PREFIX = "ntf_"

REACHED_TYPE = "alert.reached"
RESOLVED_TYPE = "alert.resolved"
DISABLED_TYPE = "alert.disabled"
TRANSITION_TYPES = (REACHED_TYPE, RESOLVED_TYPE)
EVENT_TYPES = (*TRANSITION_TYPES, DISABLED_TYPE)

# A gauge whose value swings a thousand times within one commit must not make a body that receivers reject. The last
# transitions show the result; `omitted` counts those before them.
MAX_TRANSITIONS = 50
MAX_BODY_BYTES = 20_000  # UTF-8; long names and codes leave room for fewer transitions, but at least for the last one


def notification_id_of(organization: str, alert_id: str, gauge_id: UUID, sequence: int) -> str:
    """The id of a notification of an alert on a gauge. organization: its name."""
    return digest_id(ID_PREFIX, organization, alert_id, gauge_id, sequence)


@dataclass(frozen=True)
class Notification:
    """The transitions of one alert on one gauge in one evaluation.

    sequence: counts the notifications of one alert on one gauge, from 1. late: the gauge's period had ended when
    the events arrived. transitions: those whose thresholds ask for notifications, in order; at least one. limit: of
    the gauge, where the alert has percentage thresholds.
    """

    organization: str
    rule: AlertRule
    gauge: Gauge
    sequence: int
    ingest_time: datetime
    late: bool
    transitions: tuple[Transition, ...]
    limit: Decimal | None = None

    @property
    def customer_id(self) -> str:
        """The customer of the gauge."""
        return self.gauge.customer_id

    @property
    def alert_id(self) -> str:
        """The alert that was evaluated."""
        return self.rule.alert_id

    @property
    def condition_type(self) -> str:
        """The alert's condition."""
        return self.rule.condition_type.value

    @property
    def gauge_id(self) -> UUID:
        """The gauge that was evaluated."""
        return self.gauge.gauge_id

    @property
    def notification_id(self) -> str:
        """Follows from organization, alert, gauge and sequence: every replica computes the same id."""
        return notification_id_of(self.organization, self.alert_id, self.gauge_id, self.sequence)

    @property
    def event_type(self) -> str:
        """`alert.reached` if any threshold was reached, otherwise `alert.resolved`."""
        reached = any(transition.kind is TransitionKind.REACHED for transition in self.transitions)
        return REACHED_TYPE if reached else RESOLVED_TYPE

    def body(self) -> str:
        """The webhook body, of at most MAX_BODY_BYTES."""
        envelope = self.notification_id, self.event_type, self.ingest_time
        data: dict[str, Any] = {
            **alert_json(self.rule, self.customer_id),
            "gauge": gauge_json(self.gauge, self.limit),
            "previous_value": format_decimal(self.transitions[0].previous_value),
            "value": format_decimal(self.transitions[-1].value),
            "sequence": self.sequence,
            "late": self.late,
            "ingest_time": format_time(self.ingest_time),
            "transitions": [],
        }
        size = len(notification_json(*envelope, data).encode()) + len(',"omitted":') + len(str(len(self.transitions)))
        data["transitions"] = self._shown_transitions(MAX_BODY_BYTES - size)
        omitted = len(self.transitions) - len(data["transitions"])
        if omitted:
            data["omitted"] = omitted
        return notification_json(*envelope, data)

    def _shown_transitions(self, room: int) -> list[dict[str, Any]]:
        """The last transitions, as many as fit into `room` bytes."""
        direction = self.rule.condition_type.direction
        # The furthest of the evaluation may be one that does not notify, or that does not fit.
        shown = mark_furthest(self.transitions[-MAX_TRANSITIONS:], direction)
        fitting = last_that_fit([transition_json(one) for one in shown], room)
        if len(fitting) == len(shown):
            return list(fitting)
        return [transition_json(one) for one in mark_furthest(shown[-len(fitting) :], direction)]


@dataclass(frozen=True)
class DisabledNotification:
    """An alert was disabled for a customer because its usage had too many groups.

    gauge: of the first group beyond the limit. limit: how many groups one billing period may have.
    epoch: the organization's; within one epoch a customer is excluded from an alert at most once.
    cause: the event that brought that group; None where the group is older than the alert.
    """

    organization: str
    rule: AlertRule
    gauge: Gauge
    limit: int
    epoch: int
    ingest_time: datetime
    cause: Cause | None

    reason = ExclusionReason.GROUP_LIMIT
    event_type = DISABLED_TYPE
    gauge_id = None  # it is about the customer, not about one gauge
    sequence = 0  # so it has no number among the notifications of a gauge

    @property
    def customer_id(self) -> str:
        """The customer for which the alert is disabled."""
        return self.gauge.customer_id

    @property
    def alert_id(self) -> str:
        """The alert that is disabled."""
        return self.rule.alert_id

    @property
    def condition_type(self) -> str:
        """The alert's condition."""
        return self.rule.condition_type.value

    @property
    def notification_id(self) -> str:
        """Follows from organization, alert, customer and epoch: every replica computes the same id."""
        return digest_id(ID_PREFIX, self.organization, self.alert_id, self.customer_id, self.reason, self.epoch)

    def body(self) -> str:
        """The webhook body."""
        gauge = self.gauge
        data = alert_json(self.rule, self.customer_id)
        if gauge.subscription_id is not None:
            data["subscription_id"] = gauge.subscription_id
        data["reason"] = self.reason.value
        data["limit"] = self.limit
        data["group"] = group_json(gauge.group)
        data["period"] = period_json(gauge.period)
        data["ingest_time"] = format_time(self.ingest_time)
        if self.cause is not None:
            data["event_id"] = self.cause.event_id
            data["event_time"] = format_time(self.cause.event_time)
        return notification_json(self.notification_id, self.event_type, self.ingest_time, data)


@dataclass(frozen=True)
class RequestedDisabling:
    """A caller disabled an alert: for a customer, for one of its subscriptions, or (customer_id empty) as a whole.

    epoch: the organization's, which each such change raises.
    """

    organization: str
    rule: AlertRule
    customer_id: str
    subscription_id: str | None
    epoch: int
    request_time: datetime

    reason = ExclusionReason.REQUESTED
    event_type = DISABLED_TYPE
    gauge_id = None
    sequence = 0

    @property
    def alert_id(self) -> str:
        """The alert that is disabled."""
        return self.rule.alert_id

    @property
    def condition_type(self) -> str:
        """The alert's condition."""
        return self.rule.condition_type.value

    @property
    def notification_id(self) -> str:
        """Follows from organization, alert, customer, subscription and epoch."""
        about = self.customer_id, self.subscription_id or ""
        return digest_id(ID_PREFIX, self.organization, self.alert_id, *about, self.reason, self.epoch)

    def body(self) -> str:
        """The webhook body."""
        data = alert_json(self.rule, self.customer_id)
        if not self.customer_id:
            del data["customer_id"]
        if self.subscription_id is not None:
            data["subscription_id"] = self.subscription_id
        data["reason"] = self.reason.value
        return notification_json(self.notification_id, self.event_type, self.request_time, data)

"""Exclusions: whom an alert covers and is not evaluated for all the same, and the notification that says so."""

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from evaluator.alerts import AlertRule
from evaluator.gauges import Gauge
from evaluator.ids import digest_id
from evaluator.notifications import DISABLED_TYPE, ID_PREFIX, format_time
from evaluator.transitions import Cause

MAX_GROUPS = 5_000  # of one alert and customer, or subscription, in one billing period


class ExclusionReason(StrEnum):
    """Why an alert is not evaluated for somebody whom it covers."""

    GROUP_LIMIT = "GROUP_LIMIT"  # usage had too many groups
    REQUESTED = "REQUESTED"  # somebody asked for it


class Excluded(NamedTuple):
    """A customer, or with subscription_id one of its subscriptions only, for whom an alert is not evaluated."""

    customer_id: str
    alert_id: str
    subscription_id: str | None


@dataclass(frozen=True)
class Disabled:
    """What is sent when an alert is disabled for a customer because its usage had too many groups.

    gauge: of the group that was one too many. limit: how many groups one billing period may have.
    epoch: of the organization's rules; a customer is excluded from an alert once while one stands.
    cause: the event that brought that group; unset where it was there before the alert.
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
    gauge_id = None  # it is about the customer
    sequence = 0  # and has no place among the notifications of a gauge

    @property
    def customer_id(self) -> str:
        """Whom it is about."""
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
        """The same for the same alert, customer and epoch, whoever computes it."""
        return digest_id(ID_PREFIX, self.organization, self.alert_id, self.customer_id, self.reason, self.epoch)

    def body(self) -> str:
        """The webhook body: JSON with times in RFC 3339."""
        rule, gauge = self.rule, self.gauge
        data: dict[str, Any] = {
            "alert_id": rule.alert_id,
            "alert_name": rule.name,
            "alert_version": rule.version,
            "condition": self.condition_type,
            "customer_id": gauge.customer_id,
        }
        if gauge.subscription_id is not None:
            data["subscription_id"] = gauge.subscription_id
        data["reason"] = self.reason.value
        data["limit"] = self.limit
        data["group"] = [{"key": key, "value": value} for key, value in gauge.group]
        data["period"] = {
            "start_time": format_time(gauge.period.start),
            "end_time": format_time(gauge.period.end),
        }
        data["ingest_time"] = format_time(self.ingest_time)
        if self.cause is not None:
            data["event_id"] = self.cause.event_id
            data["event_time"] = format_time(self.cause.event_time)
        record = {
            "id": self.notification_id,
            "type": self.event_type,
            "timestamp": format_time(self.ingest_time),
            "data": data,
        }
        return json.dumps(record, ensure_ascii=False, separators=(",", ":"))

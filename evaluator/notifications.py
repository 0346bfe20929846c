"""Notifications: the immutable record of what one evaluation of one alert on one gauge found, and its one JSON form.

Webhooks, and whatever else shows a notification, hand out this text byte for byte.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from evaluator.alerts import AlertRule
from evaluator.amounts import format_decimal
from evaluator.balances import BalanceReading
from evaluator.gauges import BALANCE_KEY, EVER, SEGMENT_KEY, Gauge, Group
from evaluator.ids import digest_id
from evaluator.thresholds import Kind, Threshold
from evaluator.transitions import Transition, mark_furthest

ID_PREFIX = "ntf_"

REACHED_TYPE = "alert.reached"
RESOLVED_TYPE = "alert.resolved"
DISABLED_TYPE = "alert.disabled"
TRANSITION_TYPES = (REACHED_TYPE, RESOLVED_TYPE)
EVENT_TYPES = (*TRANSITION_TYPES, DISABLED_TYPE)

# A gauge that swings a thousand times within one commit would make a body no receiver wants. The last ones say
# how it ended; `omitted` says how many came before them.
MAX_TRANSITIONS = 50
MAX_BODY_BYTES = 20_000  # UTF-8; long names and codes make fewer transitions fit, at least the last one


@dataclass(frozen=True)
class Notification:
    """What is sent.

    sequence: counts the notifications of one alert on one gauge, from 1. late: the gauge's period had ended when
    the events came in. transitions: those whose thresholds ask to be told, in order. previous_value, value: of
    the gauge, before and after the evaluation's transitions. limit: of the gauge, where thresholds are in percent of
    it.
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
        """Whom it is about."""
        return self.gauge.customer_id

    @property
    def alert_id(self) -> str:
        """The alert that found it."""
        return self.rule.alert_id

    @property
    def condition_type(self) -> str:
        """The alert's condition."""
        return self.rule.condition_type.value

    @property
    def gauge_id(self) -> UUID:
        """The gauge that it is about."""
        return self.gauge.gauge_id

    @property
    def notification_id(self) -> str:
        """The same for the same alert, gauge and sequence, whoever computes it."""
        return digest_id(ID_PREFIX, self.organization, self.rule.alert_id, self.gauge.gauge_id, self.sequence)

    @property
    def event_type(self) -> str:
        """`alert.reached` when anything was reached, otherwise `alert.resolved`."""
        reached = any(transition.kind is Kind.REACHED for transition in self.transitions)
        return REACHED_TYPE if reached else RESOLVED_TYPE

    def body(self) -> str:
        """The webhook body: JSON with decimals as strings and times in RFC 3339."""
        rule = self.rule
        data: dict[str, Any] = {
            "alert_id": rule.alert_id,
            "alert_name": rule.name,
            "alert_version": rule.version,
            "condition": rule.condition_type.value,
            "customer_id": self.gauge.customer_id,
            "gauge": gauge_json(self.gauge, self.limit),
            "previous_value": format_decimal(self.transitions[0].previous_value),
            "value": format_decimal(self.transitions[-1].value),
            "sequence": self.sequence,
            "late": self.late,
            "ingest_time": format_time(self.ingest_time),
            "transitions": [],
        }
        record = {
            "id": self.notification_id,
            "type": self.event_type,
            "timestamp": format_time(self.ingest_time),
            "data": data,
        }
        room = MAX_BODY_BYTES - len(_json(record).encode()) - len(',"omitted":') - len(str(len(self.transitions)))
        # The furthest of the evaluation may be one that is not told, or does not fit.
        shown = mark_furthest(self.transitions[-MAX_TRANSITIONS:], rule.condition_type.direction)
        fitting = _last_that_fit([transition_json(one) for one in shown], room)
        if len(fitting) < len(shown):
            shown = mark_furthest(shown[-len(fitting) :], rule.condition_type.direction)
            fitting = [transition_json(one) for one in shown]
        data["transitions"] = fitting
        omitted = len(self.transitions) - len(data["transitions"])
        if omitted:
            data["omitted"] = omitted
        return _json(record)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _last_that_fit(transitions: list[dict[str, Any]], room: int) -> list[dict[str, Any]]:
    """The last transitions that take no more than `room` bytes, commas included; at least the very last one."""
    first = len(transitions)
    while first:
        room -= len(_json(transitions[first - 1]).encode()) + 1
        if room < 0 and first < len(transitions):
            break
        first -= 1
    return transitions[first:]


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC, to the microsecond."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def gauge_json(gauge: Gauge, limit: Decimal | None) -> dict[str, Any]:
    """What a gauge measures, as the notification shows it, and the limit that it is compared with."""
    shown: dict[str, Any] = {"customer_id": gauge.customer_id}
    if gauge.subscription_id is not None:
        shown["subscription_id"] = gauge.subscription_id
    measure = gauge.measure
    if measure.metric_id is not None:
        shown["metric_id"] = measure.metric_id
    elif measure.currency is not None:
        shown["currency"] = measure.currency
    if measure.prices:
        shown["price_filters"] = [
            {"field": item.field.value, "operator": item.operator.value, "values": list(item.values)}
            for item in measure.prices
        ]
    if measure.invoices is not None:
        shown.update(gauge.group)  # the invoice's id, unless it is the month's total
    elif measure.balances is not None:
        shown["reading"] = measure.balances.reading.value
        if measure.balances.reading in (BalanceReading.USED_PERCENT, BalanceReading.DAYS_LEFT):
            of_one = dict(gauge.group)
            shown["balance_id"] = of_one[BALANCE_KEY]
            if SEGMENT_KEY in of_one:
                shown["segment_number"] = int(of_one[SEGMENT_KEY])
        elif gauge.group:
            shown["group"] = _group_json(gauge.group)
    elif measure.days_in_plan:
        shown["reading"] = "DAYS_LEFT"
    else:
        shown["group"] = _group_json(gauge.group)
    if gauge.period != EVER:
        shown["period"] = {
            "start_time": format_time(gauge.period.start),
            "end_time": format_time(gauge.period.end),
        }
    if limit is not None:
        shown["limit"] = format_decimal(limit)
    return shown


def _group_json(group: Group) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in group]


def transition_json(transition: Transition) -> dict[str, Any]:
    """One transition, with its evidence."""
    shown: dict[str, Any] = {
        "kind": transition.kind.value,
        "threshold": threshold_json(transition.threshold),
        "level": format_decimal(transition.level),
        "furthest": transition.furthest,
        "previous_value": format_decimal(transition.previous_value),
        "value": format_decimal(transition.value),
    }
    if transition.cause is not None:
        if transition.cause.event_id is not None:
            shown["event_id"] = transition.cause.event_id
        shown["event_time"] = format_time(transition.cause.event_time)
    return shown


def threshold_json(threshold: Threshold) -> dict[str, Any]:
    """A threshold as it was defined, without what was left unset."""
    shown: dict[str, Any] = {}
    if threshold.code:
        shown["code"] = threshold.code
    name, number = threshold.defined_by
    shown[name] = format_decimal(number)
    if threshold.severity is not None:
        shown["severity"] = threshold.severity.value
    if (resolve_value := threshold.defined_resolve_value) is not None:
        shown["resolve_value"] = format_decimal(resolve_value)
    return shown

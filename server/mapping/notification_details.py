"""What the body of a notification says, as messages of the contract.

The body is the stored record. The alert and the gauge may have changed or be deleted since, so the messages are made
from the body and not from their rows.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from evaluator.balances import BalanceReading, Unit
from evaluator.exclusions import ExclusionReason
from evaluator.notifications import DISABLED_TYPE
from evaluator.recharge_notifications import POLICY_DISABLED_TYPE, RECHARGE_TYPES
from evaluator.recharges import RechargeState
from evaluator.thresholds import Severity, TransitionKind
from generated.tidemark.v1 import (
    billing_period_pb2,
    filter_pb2,
    gauge_pb2,
    notification_pb2,
    threshold_pb2,
    transition_pb2,
)
from server.calls.validation import to_timestamp
from server.mapping.gauges import DISABLED_REASONS
from server.mapping.recharges import STATES, cancel_reason_number, disabled_reason_number, write_access
from server.mapping.thresholds import KINDS, SEVERITIES


def write_detail(body: str, shown: notification_pb2.Notification) -> None:
    """Sets the fields that say what the body says."""
    content = orjson.loads(body)
    data = content["data"]
    if content["type"] in RECHARGE_TYPES:
        _write_recharge(content["type"], data, shown)
        return
    shown.alert_version = data["alert_version"]
    # Bodies of versions before 0.1.0 have it as alert_name.
    shown.alert_display_name = data.get("alert_display_name") or data.get("alert_name", "")
    if content["type"] == DISABLED_TYPE:
        _write_disabled(data, shown.alert_disabled)
    else:
        _write_evaluation(data, shown.evaluation)


def _write_recharge(event_type: str, data: Mapping[str, Any], shown: notification_pb2.Notification) -> None:
    if event_type == POLICY_DISABLED_TYPE:
        disabled = shown.recharge_policy_disabled
        disabled.balance_id = data["balance_id"]
        disabled.reason = disabled_reason_number(data["reason"])
        disabled.failed_attempts = data["failed_attempts"]
        disabled.max_attempts = data["max_attempts"]
        disabled.last_recharge_id = data.get("last_recharge_id", "")
        return
    recharge = shown.recharge
    for name in ("recharge_id", "customer_id", "balance_id", "sequence", "attempt", "amount", "remaining"):
        setattr(recharge, name, data[name])
    recharge.state = STATES[RechargeState(data["state"])]
    write_access(recharge, Unit(data.get("currency"), data.get("metric_id")))
    recharge.create_time.CopyFrom(_timestamp(data["request_time"]))
    recharge.expire_time.CopyFrom(_timestamp(data["expire_time"]))
    if (end_time := data.get("end_time")) is not None:
        recharge.end_time.CopyFrom(_timestamp(end_time))
    if (reason := data.get("cancel_reason")) is not None:
        recharge.cancel_reason = cancel_reason_number(reason)


def _write_evaluation(data: Mapping[str, Any], shown: notification_pb2.Evaluation) -> None:
    _write_gauge(data, shown.gauge)
    shown.previous_value = data["previous_value"]
    shown.omitted_count = data.get("omitted", 0)
    shown.late = data["late"]
    for one in data["transitions"]:
        _write_transition(one, shown.transitions.add())


def _write_transition(one: Mapping[str, Any], shown: transition_pb2.Transition) -> None:
    shown.kind = KINDS[TransitionKind(one["kind"])]
    _write_threshold(one["threshold"], shown.threshold)
    shown.level = one["level"]
    shown.furthest = one["furthest"]
    shown.previous_value = one["previous_value"]
    shown.value = one["value"]
    if (event_id := one.get("event_id")) is not None:
        shown.event_id = event_id
    if (event_time := one.get("event_time")) is not None:
        shown.event_time.CopyFrom(_timestamp(event_time))
    shown.voided_events = one.get("voided_events", 0)


def _write_threshold(one: Mapping[str, str], shown: threshold_pb2.Threshold) -> None:
    for name, value in one.items():
        if name == "severity":
            shown.severity = SEVERITIES[Severity(value)]
        else:
            setattr(shown, name, value)


def _write_gauge(data: Mapping[str, Any], shown: gauge_pb2.Gauge) -> None:
    gauge = data["gauge"]
    shown.customer_id = gauge["customer_id"]
    shown.subscription_id = gauge.get("subscription_id", "")
    shown.value = data["value"]
    shown.limit = gauge.get("limit", "")
    shown.counts_held = gauge.get("counts_held", False)
    _write_group(gauge.get("group", ()), shown.group)
    if (period := gauge.get("period")) is not None:
        _write_period(period, shown.billing_period)
    if "reading" in gauge:
        if gauge["reading"] == BalanceReading.DAYS_LEFT and "balance_id" not in gauge:
            shown.plan.SetInParent()
        else:
            _write_balances(gauge, shown.balances)
    elif "group" not in gauge:
        shown.invoices.currency = gauge["currency"]
        shown.invoices.invoice_id = gauge.get("invoice_id", "")
    elif "metric_id" in gauge:
        shown.usage.metric_id = gauge["metric_id"]
    else:
        shown.cost.currency = gauge["currency"]
        for one in gauge.get("price_filters", ()):
            shown.cost.price_filters.add(
                field=filter_pb2.PriceField.Value(f"PRICE_FIELD_{one['field']}"),
                operator=filter_pb2.FilterOperator.Value(f"FILTER_OPERATOR_{one['operator']}"),
                values=one["values"],
            )
        for one in gauge.get("custom_field_filters", ()):
            shown.cost.custom_field_filters.add(
                entity=filter_pb2.CustomFieldEntity.Value(f"CUSTOM_FIELD_ENTITY_{one['entity']}"),
                key=one["key"],
                value=one["value"],
            )


def _write_balances(gauge: Mapping[str, Any], shown: gauge_pb2.BalanceMeasure) -> None:
    shown.reading = gauge_pb2.BalanceReading.Value(f"BALANCE_READING_{gauge['reading']}")
    if "metric_id" in gauge:
        shown.quantity.metric_id = gauge["metric_id"]
    elif "currency" in gauge:
        shown.spend.currency = gauge["currency"]
    shown.balance_id = gauge.get("balance_id", "")
    shown.segment_number = gauge.get("segment_number", 0)


def _write_disabled(data: Mapping[str, Any], shown: notification_pb2.AlertDisabled) -> None:
    shown.reason = DISABLED_REASONS[ExclusionReason(data["reason"])]
    shown.subscription_id = data.get("subscription_id", "")
    shown.group_limit = data.get("limit", 0)
    _write_group(data.get("group", ()), shown.group)
    if (period := data.get("period")) is not None:
        _write_period(period, shown.billing_period)
    shown.event_id = data.get("event_id", "")
    if (event_time := data.get("event_time")) is not None:
        shown.event_time.CopyFrom(_timestamp(event_time))


def _write_group(group: Iterable[Mapping[str, str]], shown: Any) -> None:
    for pair in group:
        shown.add(key=pair["key"], value=pair["value"])


def _write_period(period: Mapping[str, str], shown: billing_period_pb2.BillingPeriod) -> None:
    shown.start_time.CopyFrom(_timestamp(period["start_time"]))
    shown.end_time.CopyFrom(_timestamp(period["end_time"]))


def _timestamp(text: str) -> Timestamp:
    return to_timestamp(datetime.fromisoformat(text))

"""JSON of notifications: the parts that their bodies have in common.

Decimals are strings, and times are RFC 3339 in UTC.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from evaluator.alerts import AlertRule
from evaluator.amounts import format_decimal
from evaluator.balances import BalanceReading, FieldEntity
from evaluator.gauges import BALANCE_KEY, EVER, SEGMENT_KEY, Gauge, Group
from evaluator.periods import Period
from evaluator.thresholds import Threshold
from evaluator.transitions import Transition


def notification_json(notification_id: str, event_type: str, time: datetime, data: Mapping[str, Any]) -> str:
    """The body of a notification, as text: the parts that all types have, around the `data` of its type."""
    return to_json({"id": notification_id, "type": event_type, "timestamp": format_time(time), "data": data})


def alert_json(rule: AlertRule, customer_id: str) -> dict[str, Any]:
    """The alert and the customer that a notification is about: the first fields of its data."""
    return {
        "alert_id": rule.alert_id,
        "alert_display_name": rule.display_name,
        "alert_version": rule.version,
        "condition": rule.condition_type.value,
        "customer_id": customer_id,
    }


def gauge_json(gauge: Gauge, limit: Decimal | None) -> dict[str, Any]:
    """A gauge: what it measures, and the limit that its value is compared with."""
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
    if measure.contract_fields:
        shown["custom_field_filters"] = [
            {"entity": FieldEntity.CONTRACT.value, "key": key, "value": value}
            for key, value in measure.contract_fields
        ]
    if measure.invoices is not None:
        shown.update(gauge.group)  # the id of the invoice, unless the gauge is the total of a month
    elif measure.balances is not None:
        shown.update(_balances_json(gauge, measure.balances.reading))
    elif measure.days_in_plan:
        shown["reading"] = BalanceReading.DAYS_LEFT.value
    else:
        shown["group"] = group_json(gauge.group)
    if measure.counts_held:
        shown["counts_held"] = True
    if gauge.period != EVER:
        shown["period"] = period_json(gauge.period)
    if limit is not None:
        shown["limit"] = format_decimal(limit)
    return shown


def _balances_json(gauge: Gauge, reading: BalanceReading) -> dict[str, Any]:
    shown: dict[str, Any] = {"reading": reading.value}
    if reading in (BalanceReading.USED_PERCENT, BalanceReading.DAYS_LEFT):
        of_one = dict(gauge.group)
        shown["balance_id"] = of_one[BALANCE_KEY]
        if SEGMENT_KEY in of_one:
            shown["segment_number"] = int(of_one[SEGMENT_KEY])
    elif gauge.group:
        shown["group"] = group_json(gauge.group)
    return shown


def group_json(group: Group) -> list[dict[str, str]]:
    """The values of group keys."""
    return [{"key": key, "value": value} for key, value in group]


def period_json(period: Period) -> dict[str, str]:
    """A billing period."""
    return {"start_time": format_time(period.start), "end_time": format_time(period.end)}


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
        if transition.cause.voided_events:
            shown["voided_events"] = transition.cause.voided_events
    return shown


def threshold_json(threshold: Threshold) -> dict[str, Any]:
    """A threshold as it was defined, without unset fields."""
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


def last_that_fit(items: Sequence[dict[str, Any]], room: int) -> Sequence[dict[str, Any]]:
    """The last items that take at most `room` bytes with their commas; at least the very last one."""
    first = len(items)
    while first:
        room -= len(to_json(items[first - 1]).encode()) + 1
        if room < 0 and first < len(items):
            break
        first -= 1
    return items[first:]


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC, to the microsecond."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def to_json(value: Any) -> str:
    """The one spelling of JSON in bodies: no spaces, and characters outside ASCII as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

"""The definition of an alert in words."""

from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message

from console.words import amounts
from console.words.gauges import Unit
from console.words.names import enum_words, words_of
from generated.tidemark.v1 import alert_pb2, filter_pb2, threshold_pb2
from generated.tidemark.v1.threshold_pb2 import TRANSITION_KIND_REACHED, TRANSITION_KIND_RESOLVED

# What each condition measures, and what follows in the sentence. {…}: fields of the condition.
_MEASURES = {
    "spend_threshold_reached": "the cost in {currency} of {who} in the billing period",
    "usage_threshold_reached": "the usage of {metric_id} by {who} in the billing period",
    "usage_exceeded": "the usage of {metric_id} by {who} in the billing period",
    "cost_exceeded": "the cost of {who} in the billing period",
    "spend_exceeded": "the cost in {currency} of {who} in the billing period",
    "monthly_invoice_total_spend_threshold_reached": "the total of all invoices in {currency} of {who} in a month",
    "invoice_total_reached": "the total of an invoice in {currency} of {who}",
    "low_remaining_commit_balance_reached": "what remains of the commits of {who}",
    "low_remaining_commit_percentage_reached": "the share that remains of the commits of {who}",
    "low_remaining_contract_credit_balance_reached": "what remains of the contract credits of {who}",
    "low_remaining_contract_credit_percentage_reached": "the share that remains of the contract credits of {who}",
    "low_remaining_contract_credit_and_commit_balance_reached": (
        "what remains of the contract credits and commits of {who}"
    ),
    "low_remaining_contract_credit_and_commit_percentage_reached": (
        "the share that remains of the contract credits and commits of {who}"
    ),
    "low_remaining_days_for_commit_segment_reached": "the number of days left of a commit segment of {who}",
    "low_remaining_days_for_contract_credit_segment_reached": (
        "the number of days left of a contract credit segment of {who}"
    ),
    "low_remaining_days_in_plan_reached": "the number of days left in the plan of {who}",
    "low_remaining_seat_balance_reached": "what remains of the credits of a seat of {who}",
    "low_credit_balance_reached": "what remains of the credit grants of {who}",
    "low_remaining_credit_percentage_reached": "the share that remains of the credit grants of {who}",
    "credit_balance_depleted": "the credit balance in {currency} of {who}",
    "credit_balance_dropped": "the credit balance in {currency} of {who}",
    "credit_balance_recovered": "the credit balance in {currency} of {who}",
    "license_balance_threshold_reached": "how much of an allotment of the licence {license_type} {who} has used",
}
_WITHOUT_THRESHOLDS = {
    "credit_balance_depleted": "runs out: it falls to zero or below",
    "credit_balance_recovered": "comes back above zero",
}
_RISING = frozenset(
    {
        "spend_threshold_reached",
        "usage_threshold_reached",
        "usage_exceeded",
        "cost_exceeded",
        "spend_exceeded",
        "monthly_invoice_total_spend_threshold_reached",
        "invoice_total_reached",
        "license_balance_threshold_reached",
    }
)
_OF_SUBSCRIPTIONS = frozenset({"usage_exceeded", "cost_exceeded", "spend_exceeded"})


def condition_of(alert: alert_pb2.Alert) -> tuple[str, Any]:
    """The case of the condition, and its message; empty texts for an alert without one."""
    case = alert.WhichOneof("condition") or ""
    return case, getattr(alert, case) if case else None


def is_rising(alert: alert_pb2.Alert) -> bool:
    """Whether thresholds are reached from below."""
    return condition_of(alert)[0] in _RISING


def has_series(alert: alert_pb2.Alert) -> bool:
    """Whether the alert measures usage or cost, of which there are curves."""
    case = condition_of(alert)[0]
    return case in ("spend_threshold_reached", "usage_threshold_reached") or case in _OF_SUBSCRIPTIONS


def unit_of(alert: alert_pb2.Alert) -> Unit:
    """The unit of the alert's thresholds."""
    case, condition = condition_of(alert)
    if "percentage" in case or case == "license_balance_threshold_reached":
        return Unit("percent")
    if "days" in case:
        return Unit("days")
    if hasattr(condition, "metric_id"):
        return Unit("quantity", condition.metric_id)
    if condition is not None and "access" in condition.DESCRIPTOR.oneofs_by_name:
        if condition.WhichOneof("access") == "quantity":
            return Unit("quantity", condition.quantity.metric_id)
        return Unit("money", condition.spend.currency or "USD")
    return Unit("money", getattr(condition, "currency", "") or "USD")


def scope_words(alert: alert_pb2.Alert) -> str:
    """Whom the alert covers: all customers, customers on plan pro, customer acme."""
    scope = alert.scope
    target = scope.WhichOneof("target")
    of_subscriptions = condition_of(alert)[0] in _OF_SUBSCRIPTIONS
    match target:
        case "all_customers":
            return "every customer"
        case "plan":
            return f"every {'subscription' if of_subscriptions else 'customer'} on plan {scope.plan.plan_id}"
        case "customer":
            return f"customer {scope.customer.customer_id}"
        case "subscription":
            one = scope.subscription
            return f"subscription {one.subscription_id} of customer {one.customer_id}"
        case "customer_plan":
            both = scope.customer_plan
            of = (
                f"subscriptions of customer {both.customer_id}"
                if of_subscriptions
                else f"customer {both.customer_id}"
            )
            return f"{of} on plan {both.plan_id}"
    return "nobody yet"


def sentence(alert: alert_pb2.Alert) -> str:
    """What the alert says, in one sentence."""
    case, condition = condition_of(alert)
    if not case:
        return "This alert has no condition yet."
    values = {"who": scope_words(alert)}
    for name in ("currency", "metric_id", "license_type"):
        values[name] = getattr(condition, name, "") or {"currency": "USD"}.get(name, "…")
    measure = _MEASURES.get(case, words_of(case) + " of {who}").format_map(values)
    filters = list(filter_words(case, condition))
    if filters:
        measure = f"{measure} ({'; '.join(filters)})"
    if case in _WITHOUT_THRESHOLDS:
        return f"Notifies when {measure} {_WITHOUT_THRESHOLDS[case]}."
    verb = "reaches" if case in _RISING else "falls to"
    return f"Notifies when {measure} {verb} {levels(alert)}."


def levels(alert: alert_pb2.Alert) -> str:
    """The levels of the thresholds, in their order: `$50, $100 and every further $25`."""
    unit = unit_of(alert)
    parts = [threshold_words(one, unit) for one in alert.thresholds]
    if not parts:
        return "a threshold (there is none yet)"
    if len(parts) > 6:
        parts = [*parts[:5], f"{len(parts) - 5} more levels"]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def threshold_words(threshold: threshold_pb2.Threshold, unit: Unit) -> str:
    """The level of a threshold."""
    if threshold.recurring_step:
        return f"every further {unit(threshold.recurring_step)}"
    if threshold.percent_of_limit:
        return f"{amounts.grouped(threshold.percent_of_limit)}\u00a0% of the limit"
    return unit(threshold.value)


def threshold_details(threshold: threshold_pb2.Threshold, unit: Unit) -> list[str]:
    """What else a threshold says: its severity, when it resolves, what it notifies."""
    details = []
    if severity := enum_words(threshold_pb2.Severity.DESCRIPTOR, threshold.severity):
        details.append(severity.lower())
    if threshold.resolve_value:
        percent = threshold.percent_of_limit
        level = (
            f"{amounts.grouped(threshold.resolve_value)}\u00a0% of the limit"
            if percent
            else unit(threshold.resolve_value)
        )
        details.append(f"resolves at {level}")
    kinds = set(threshold.notify_on) or {TRANSITION_KIND_REACHED}
    if kinds == {TRANSITION_KIND_RESOLVED}:
        details.append("notifies only when it resolves")
    elif TRANSITION_KIND_RESOLVED in kinds:
        details.append("notifies also when it resolves")
    return details


def filter_words(case: str, condition: Any) -> Iterable[str]:
    """What selects or divides the measure."""
    names = {field.name for field, _ in condition.ListFields()}
    if "group_values" in names:
        for one in condition.group_values:
            yield f"{one.key} is {one.value or 'empty'}" if one.HasField("value") else f"each {one.key} on its own"
    if "grouping_keys" in names:
        yield f"each {' and '.join(condition.grouping_keys)} on its own"
    if "seat_filter" in names:
        seat = condition.seat_filter
        value = seat.seat_group_value if seat.HasField("seat_group_value") else ""
        yield f"{seat.seat_group_key} {value}" if value else f"each {seat.seat_group_key} on its own"
    for one in getattr(condition, "custom_field_filters", ()):
        yield f"{_entity(one)} field {one.key} is {one.value}"
    for one in getattr(condition, "price_filters", ()):
        operator = "is" if one.operator == filter_pb2.FILTER_OPERATOR_INCLUDES else "is not"
        field = enum_words(filter_pb2.PriceField.DESCRIPTOR, one.field).lower()
        yield f"{field} {operator} {' or '.join(one.values)}"
    for name in ("invoice_types_filter", "credit_grant_type_filters"):
        if name in names:
            yield f"of type {' or '.join(getattr(condition, name))}"
    if "alert_specifiers" in names:
        yield f"balances that {len(condition.alert_specifiers)} specifiers select"
    if "threshold_overrides" in names:
        yield f"{len(condition.threshold_overrides)} groups have thresholds of their own"


def _entity(one: Message) -> str:
    return enum_words(filter_pb2.CustomFieldEntity.DESCRIPTOR, one.entity).lower()  # type: ignore[attr-defined]

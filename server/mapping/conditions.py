"""Conditions and scopes: read from requests, with every violation, and written to answers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evaluator.alerts import MAX_GROUP_KEYS, ConditionType, GroupSelector, Scope, ScopeKind
from evaluator.definitions import DEFAULT_CURRENCY, Condition
from generated.tidemark.v1 import (
    alert_pb2,
    condition_pb2,
    filter_pb2,
    scope_pb2,
)
from server.calls.validation import Violations
from server.mapping.balance_conditions import (
    BALANCE_TYPES,
    read_balance_condition,
    write_balance_condition,
)
from server.mapping.fact_conditions import (
    filter_messages,
    invoice_total_reached,
    monthly_invoice_total,
    read_contract_fields,
    write_invoice_total_reached,
    write_monthly_invoice_total,
)
from server.mapping.overrides import MAX_GROUP_VALUE_LENGTH, override_message, read_overrides
from server.mapping.price_filters import price_filter_messages, read_price_filters

CONDITION_TYPES: Mapping[ConditionType, condition_pb2.ConditionType.ValueType] = {
    each: condition_pb2.ConditionType.Value(f"CONDITION_TYPE_{each.name}") for each in ConditionType
}

_CUSTOMER_SCOPES: tuple[ScopeKind, ...] = (
    ScopeKind.ALL_CUSTOMERS,
    ScopeKind.PLAN,
    ScopeKind.CUSTOMER,
    ScopeKind.CUSTOMER_PLAN,
)
MAX_SPEND_FILTER_BYTES = 5_000  # UTF-8, keys and values of custom fields; every notification contains them
_SUBSCRIPTION_SCOPES: tuple[ScopeKind, ...] = (ScopeKind.PLAN, ScopeKind.SUBSCRIPTION, ScopeKind.CUSTOMER_PLAN)


def read_condition(violations: Violations, path: str, alert: alert_pb2.Alert) -> Condition | None:
    """The condition of an alert; None when none is set, which is a violation."""
    case = alert.WhichOneof("condition")
    if case is None:
        violations.add(f"{path}.condition", "it is required: set one of its cases, such as usage_exceeded")
        return None
    return _READERS[ConditionType(case)](violations, f"{path}.{case}", getattr(alert, case))


def write_condition(condition: Condition, alert: alert_pb2.Alert) -> None:
    """Writes a condition to the alert of an answer."""
    groups = condition.groups
    match condition.condition_type:
        case ConditionType.SPEND_THRESHOLD_REACHED:
            alert.spend_threshold_reached.currency = condition.currency or ""
            alert.spend_threshold_reached.group_values.extend(map(_selector_message, groups))
            alert.spend_threshold_reached.custom_field_filters.extend(filter_messages(condition.contract_fields))
        case ConditionType.USAGE_THRESHOLD_REACHED:
            alert.usage_threshold_reached.metric_id = condition.metric_id or ""
            alert.usage_threshold_reached.group_values.extend(map(_selector_message, groups))
        case ConditionType.USAGE_EXCEEDED:
            alert.usage_exceeded.metric_id = condition.metric_id or ""
        case ConditionType.COST_EXCEEDED:
            alert.cost_exceeded.currency = condition.currency or ""
            alert.cost_exceeded.grouping_keys.extend(selector.key for selector in groups)
            alert.cost_exceeded.threshold_overrides.extend(map(override_message, condition.overrides))
            alert.cost_exceeded.price_filters.extend(price_filter_messages(condition.prices))
        case ConditionType.SPEND_EXCEEDED:
            alert.spend_exceeded.currency = condition.currency or ""
            alert.spend_exceeded.price_filters.extend(price_filter_messages(condition.prices))
        case ConditionType.INVOICE_TOTAL_REACHED:
            write_invoice_total_reached(condition, alert.invoice_total_reached)
        case ConditionType.MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED:
            write_monthly_invoice_total(condition, alert.monthly_invoice_total_spend_threshold_reached)
        case ConditionType.LOW_REMAINING_DAYS_IN_PLAN_REACHED:
            alert.low_remaining_days_in_plan_reached.SetInParent()
        case condition_type:
            write_balance_condition(condition, getattr(alert, condition_type))


def read_scope(
    violations: Violations, path: str, alert: alert_pb2.Alert, condition_type: ConditionType | None
) -> Scope | None:
    """The scope of an alert; None without one. It is a violation if it is missing or not one of the condition's."""
    target = alert.scope.WhichOneof("target")
    if target is None:
        violations.add(f"{path}.scope", "it is required: set one of its cases, such as all_customers")
        return None
    at, scope = f"{path}.scope.{target}", alert.scope
    if target == "plan":
        read = Scope(ScopeKind.PLAN, plan_id=violations.identifier(f"{at}.plan_id", scope.plan.plan_id))
    elif target == "customer":
        customer_id = violations.identifier(f"{at}.customer_id", scope.customer.customer_id)
        read = Scope(ScopeKind.CUSTOMER, customer_id=customer_id)
    elif target == "subscription":
        read = Scope(
            ScopeKind.SUBSCRIPTION,
            customer_id=violations.identifier(f"{at}.customer_id", scope.subscription.customer_id),
            subscription_id=violations.identifier(f"{at}.subscription_id", scope.subscription.subscription_id),
        )
    elif target == "customer_plan":
        read = Scope(
            ScopeKind.CUSTOMER_PLAN,
            plan_id=violations.identifier(f"{at}.plan_id", scope.customer_plan.plan_id),
            customer_id=violations.identifier(f"{at}.customer_id", scope.customer_plan.customer_id),
        )
    else:
        read = Scope(ScopeKind.ALL_CUSTOMERS)
    if condition_type is not None:
        allowed = _scopes_of(condition_type)
        if read.kind not in allowed:
            names = " or ".join(one.lower() for one in allowed)
            violations.add(f"{path}.scope", f"{condition_type} does not take the scope {target}: set {names}")
    return read


def _scopes_of(condition_type: ConditionType) -> tuple[ScopeKind, ...]:
    if condition_type.of_one_customer:
        return ScopeKind.CUSTOMER, ScopeKind.CUSTOMER_PLAN
    return _SUBSCRIPTION_SCOPES if condition_type.per_subscription else _CUSTOMER_SCOPES


def scope_message(scope: Scope) -> scope_pb2.AlertScope:
    """A scope as answers show it."""
    shown = scope_pb2.AlertScope()
    match scope.kind:
        case ScopeKind.ALL_CUSTOMERS:
            shown.all_customers.SetInParent()
        case ScopeKind.PLAN:
            shown.plan.plan_id = scope.plan_id or ""
        case ScopeKind.CUSTOMER:
            shown.customer.customer_id = scope.customer_id or ""
        case ScopeKind.SUBSCRIPTION:
            shown.subscription.customer_id = scope.customer_id or ""
            shown.subscription.subscription_id = scope.subscription_id or ""
        case ScopeKind.CUSTOMER_PLAN:
            shown.customer_plan.customer_id = scope.customer_id or ""
            shown.customer_plan.plan_id = scope.plan_id or ""
    return shown


def _spend_threshold_reached(
    violations: Violations,
    at: str,
    condition: condition_pb2.SpendThresholdReachedCondition,
) -> Condition:
    path = f"{at}.custom_field_filters"
    contract_fields = read_contract_fields(violations, path, condition.custom_field_filters, "usage")
    size = sum(len(text.encode()) for field in contract_fields for text in field)
    if size > MAX_SPEND_FILTER_BYTES:
        violations.add(path, f"its keys and values have {size} bytes; give at most {MAX_SPEND_FILTER_BYTES} in all")
    return Condition(
        ConditionType.SPEND_THRESHOLD_REACHED,
        currency=violations.currency(f"{at}.currency", condition.currency, default=DEFAULT_CURRENCY),
        groups=_selectors(violations, f"{at}.group_values", condition.group_values),
        contract_fields=contract_fields,
    )


def _usage_threshold_reached(
    violations: Violations,
    at: str,
    condition: condition_pb2.UsageThresholdReachedCondition,
) -> Condition:
    return Condition(
        ConditionType.USAGE_THRESHOLD_REACHED,
        metric_id=violations.identifier(f"{at}.metric_id", condition.metric_id),
        groups=_selectors(violations, f"{at}.group_values", condition.group_values),
    )


def _usage_exceeded(violations: Violations, at: str, condition: condition_pb2.UsageExceededCondition) -> Condition:
    return Condition(
        ConditionType.USAGE_EXCEEDED,
        metric_id=violations.identifier(f"{at}.metric_id", condition.metric_id),
    )


def _cost_exceeded(violations: Violations, at: str, condition: condition_pb2.CostExceededCondition) -> Condition:
    if condition.grouping_keys and not condition.currency:
        violations.add(f"{at}.currency", "it is required with grouping_keys")
    return Condition(
        ConditionType.COST_EXCEEDED,
        # If it is unset, the store takes the currency from the scope when it creates the alert.
        currency=violations.currency(f"{at}.currency", condition.currency, default="") or None,
        groups=_grouping_keys(violations, f"{at}.grouping_keys", condition.grouping_keys),
        overrides=read_overrides(
            violations,
            f"{at}.threshold_overrides",
            condition.threshold_overrides,
            condition.grouping_keys,
        ),
        prices=read_price_filters(violations, f"{at}.price_filters", condition.price_filters),
    )


def _spend_exceeded(violations: Violations, at: str, condition: condition_pb2.SpendExceededCondition) -> Condition:
    if not condition.currency:
        violations.add(f"{at}.currency", "it is required")
    return Condition(
        ConditionType.SPEND_EXCEEDED,
        currency=violations.currency(f"{at}.currency", condition.currency, default=DEFAULT_CURRENCY),
        prices=read_price_filters(violations, f"{at}.price_filters", condition.price_filters),
    )


def _days_in_plan(
    violations: Violations,
    at: str,
    condition: condition_pb2.LowRemainingDaysInPlanReachedCondition,
) -> Condition:
    return Condition(ConditionType.LOW_REMAINING_DAYS_IN_PLAN_REACHED)


_READERS: Mapping[ConditionType, Callable[[Violations, str, Any], Condition]] = {
    ConditionType.SPEND_THRESHOLD_REACHED: _spend_threshold_reached,
    ConditionType.USAGE_THRESHOLD_REACHED: _usage_threshold_reached,
    ConditionType.USAGE_EXCEEDED: _usage_exceeded,
    ConditionType.COST_EXCEEDED: _cost_exceeded,
    ConditionType.SPEND_EXCEEDED: _spend_exceeded,
    ConditionType.INVOICE_TOTAL_REACHED: invoice_total_reached,
    ConditionType.MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED: monthly_invoice_total,
    ConditionType.LOW_REMAINING_DAYS_IN_PLAN_REACHED: _days_in_plan,
    **{each: read_balance_condition(each) for each in BALANCE_TYPES},
}


def _selectors(
    violations: Violations, path: str, selectors: Sequence[filter_pb2.GroupSelector]
) -> tuple[GroupSelector, ...]:
    keys = _keys(violations, path, [selector.key for selector in selectors], ".key")
    for index, selector in enumerate(selectors[: len(keys)]):
        violations.text(f"{path}[{index}].value", selector.value, max_length=MAX_GROUP_VALUE_LENGTH)
    return tuple(
        GroupSelector(key, selector.value if selector.HasField("value") else None)
        for key, selector in zip(keys, selectors, strict=False)
    )


def _grouping_keys(violations: Violations, path: str, keys: Sequence[str]) -> tuple[GroupSelector, ...]:
    return tuple(GroupSelector(key) for key in _keys(violations, path, list(keys), ""))


def _keys(violations: Violations, path: str, keys: list[str], leaf: str) -> list[str]:
    """The names of properties, at most 3, each once; empty where there are too many."""
    if len(keys) > MAX_GROUP_KEYS:
        violations.add(path, f"it has {len(keys)} keys; an alert groups by at most {MAX_GROUP_KEYS}")
        return []
    for index, key in enumerate(keys):
        at = f"{path}[{index}]{leaf}"
        if key and keys.index(key) != index:
            violations.add(at, f"{path}[{keys.index(key)}] is the same key")
        violations.identifier(at, key)
    return keys


def _selector_message(selector: GroupSelector) -> filter_pb2.GroupSelector:
    return filter_pb2.GroupSelector(key=selector.key, value=selector.value)

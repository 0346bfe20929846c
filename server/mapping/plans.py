"""Plans and limits as messages of the contract, and the checks of what callers send."""

from datetime import datetime
from decimal import Decimal

from evaluator.amounts import ZERO, format_decimal
from generated.tidemark.v1 import (
    access_pb2,
    limit_pb2,
    plan_pb2,
    scope_pb2,
)
from server.calls.validation import Violations, to_timestamp
from server.mapping.limits import enforcement_value, read_window, window_message
from store.accounts.plans import StoredPlan
from store.limits.limits import LimitSubject, StoredLimit

MAX_GROUPS = 3  # of one limit
MAX_VALUE_LENGTH = 256  # characters of a property's value


def read_as_of_time(
    violations: Violations, path: str, message: plan_pb2.Plan | limit_pb2.Limit, now: datetime
) -> datetime:
    """When the fact was known; `now` when the caller does not say."""
    if not message.HasField("as_of_time"):
        return now
    return violations.past_time(f"{path}.as_of_time", message.as_of_time, now)


def read_subject(violations: Violations, path: str, sent: limit_pb2.Limit) -> LimitSubject:
    """What is limited."""
    customer_id = plan_id = currency = metric_id = None
    match sent.WhichOneof("holder"):
        case "customer":
            customer_id = violations.identifier(f"{path}.customer.customer_id", sent.customer.customer_id)
        case "plan":
            plan_id = violations.identifier(f"{path}.plan.plan_id", sent.plan.plan_id)
        case None:
            violations.add(f"{path}.holder", "one of customer and plan is required")
    match sent.WhichOneof("access"):
        case "spend":
            if not sent.spend.currency:
                violations.add(f"{path}.spend.currency", "it is required")
            currency = violations.currency(f"{path}.spend.currency", sent.spend.currency, default="")
        case "quantity":
            metric_id = violations.identifier(f"{path}.quantity.metric_id", sent.quantity.metric_id)
        case None:
            violations.add(f"{path}.access", "one of spend and quantity is required")
    groups = _read_groups(violations, f"{path}.groups", sent)
    window = read_window(violations, f"{path}.window", sent)
    return LimitSubject(customer_id, plan_id, currency, metric_id, groups, window)


def read_amount(violations: Violations, path: str, text: str) -> Decimal | None:
    """The limit; None when there is none any more."""
    if not text:
        return None
    amount = violations.decimal(path, text)
    if amount < ZERO:
        violations.add(path, "it is negative")
    return amount


def plan_message(plan: StoredPlan) -> plan_pb2.Plan:
    """The message for a plan."""
    return plan_pb2.Plan(
        plan_id=plan.plan_id,
        display_name=plan.display_name,
        custom_fields=plan.custom_fields,
        as_of_time=to_timestamp(plan.as_of_time),
        create_time=to_timestamp(plan.create_time),
        update_time=to_timestamp(plan.update_time),
    )


def limit_message(limit: StoredLimit) -> limit_pb2.Limit:
    """The message for a limit."""
    subject = limit.subject
    message = limit_pb2.Limit(
        limit_id=limit.limit_id,
        display_name=limit.display_name,
        groups=[limit_pb2.LimitGroup(key=key, value=value) for key, value in subject.groups],
        amount="" if limit.amount is None else format_decimal(limit.amount),
        as_of_time=to_timestamp(limit.as_of_time),
        create_time=to_timestamp(limit.create_time),
        update_time=to_timestamp(limit.update_time),
        enforcement=enforcement_value(limit.enforcement),
        window=window_message(subject.window),
    )
    if subject.customer_id is not None:
        message.customer.CopyFrom(scope_pb2.CustomerScope(customer_id=subject.customer_id))
    if subject.plan_id is not None:
        message.plan.CopyFrom(scope_pb2.PlanScope(plan_id=subject.plan_id))
    if subject.currency is not None:
        message.spend.CopyFrom(access_pb2.SpendAccess(currency=subject.currency))
    if subject.metric_id is not None:
        message.quantity.CopyFrom(access_pb2.QuantityAccess(metric_id=subject.metric_id))
    return message


def _read_groups(violations: Violations, path: str, sent: limit_pb2.Limit) -> tuple[tuple[str, str | None], ...]:
    """The properties with their values, by property."""
    if len(sent.groups) > MAX_GROUPS:
        violations.add(path, f"there are {len(sent.groups)}; a limit has at most {MAX_GROUPS}")
        return ()
    groups: dict[str, str | None] = {}
    for index, group in enumerate(sent.groups):
        violations.identifier(f"{path}[{index}].key", group.key)
        if group.key in groups:
            violations.add(f"{path}[{index}].key", "it was named before")
        if group.HasField("value"):
            violations.text(f"{path}[{index}].value", group.value, max_length=MAX_VALUE_LENGTH)
        groups[group.key] = group.value if group.HasField("value") else None
    return tuple(sorted(groups.items()))

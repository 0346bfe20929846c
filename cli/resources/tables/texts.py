"""Short texts of messages for the cells of tables. They take any message that has the fields."""

from typing import Any

from cli.resources.tables.model import Shown

_SEVERITIES = {1: "info", 2: "warning", 3: "critical"}


def amount(field: str) -> Shown:
    """The amount in that field with the unit of the message: `12.5 USD`, `300 api_calls`."""

    def shown(message: Any) -> str:
        value = getattr(message, field)
        return f"{value} {unit(message)}".strip() if value else ""

    return shown


def unit(message: Any) -> str:
    """The unit of a message with `spend` and `quantity`, or with `currency`."""
    names = message.DESCRIPTOR.fields_by_name
    if "spend" in names and message.HasField("spend"):
        return str(message.spend.currency)
    if "quantity" in names and names["quantity"].message_type is not None and message.HasField("quantity"):
        return str(message.quantity.metric_id)
    return str(message.currency) if "currency" in names else ""


def total(invoice: Any) -> str:
    """The total of an invoice with its currency."""
    return f"{invoice.total or '0'} {invoice.currency or 'USD'}"


def condition(alert: Any) -> str:
    """The short name of an alert's condition, as `tidemark alerts create` takes it."""
    return short_condition(alert.WhichOneof("condition") or "")


def short_condition(name: str) -> str:
    """The short name of a condition: `spend` for spend_threshold_reached."""
    for start in ("low_remaining_", "low_"):
        if name.startswith(start):
            name = name.removeprefix(start)
            break
    for end in ("_threshold_reached", "_reached"):
        if name.endswith(end):
            name = name.removesuffix(end)
            break
    return name.replace("_", "-")


def measured(alert: Any) -> str:
    """What an alert measures: the metric, the currency, or the type of its condition."""
    name = alert.WhichOneof("condition")
    if not name:
        return ""
    what = getattr(alert, name)
    names = what.DESCRIPTOR.fields_by_name
    found = str(what.metric_id) if "metric_id" in names else unit(what)
    groups = ",".join(
        f"{one.key}={one.value or '*'}" for one in getattr(what, "group_values", ()) or getattr(what, "groups", ())
    )
    return " ".join(part for part in (found, groups) if part)


def scope(alert: Any) -> str:
    """The scope of an alert: `all`, `plan pro`, `customer acme`, `acme on pro`, `acme/main`."""
    target = alert.scope
    match target.WhichOneof("target"):
        case "all_customers":
            return "all"
        case "plan":
            return f"plan {target.plan.plan_id}"
        case "customer":
            return f"customer {target.customer.customer_id}"
        case "subscription":
            return f"{target.subscription.customer_id}/{target.subscription.subscription_id}"
        case "customer_plan":
            return f"{target.customer_plan.customer_id} on {target.customer_plan.plan_id}"
        case _:
            return ""


def thresholds(alert: Any) -> str:
    """The thresholds of an alert: `80%, 100 critical, +50`."""
    return ", ".join(threshold(one) for one in alert.thresholds)


def threshold(one: Any) -> str:
    """One threshold: its value, `+` and its step, or its percentage of the limit; then the severity."""
    if one.recurring_step:
        level = f"+{one.recurring_step}"
    elif one.percent_of_limit:
        level = f"{one.percent_of_limit}% of limit"
    else:
        level = one.value or "0"
    severity = _SEVERITIES.get(one.severity, "")
    return f"{level} {severity}".strip()


def holder(limit: Any) -> str:
    """Who has a limit: a customer or a plan."""
    match limit.WhichOneof("holder"):
        case "customer":
            return f"customer {limit.customer.customer_id}"
        case "plan":
            return f"plan {limit.plan.plan_id}"
        case _:
            return ""


def window(limit: Any) -> str:
    """The window of a limit."""
    found = limit.window
    match found.WhichOneof("kind"):
        case "calendar":
            return {1: "hour", 2: "day", 3: "week", 4: "month"}.get(found.calendar.unit, "calendar")
        case "rolling":
            return f"rolling {duration(found.rolling.duration)}"
        case _:
            return "billing period"


def duration(message: Any) -> str:
    """A duration of protobuf: `7d`, `90s`, `1h30m`."""
    seconds = int(message.seconds)
    if not seconds:
        return f"{message.nanos // 1_000_000}ms" if message.nanos else "0s"
    parts = []
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number}{name}")
    return "".join(parts)


def took(attempt: Any) -> str:
    """How long an attempt took."""
    length = attempt.duration
    return f"{length.seconds * 1000 + length.nanos // 1_000_000} ms"


def groups(limit: Any) -> str:
    """The groups of a limit."""
    return ",".join(f"{one.key}={one.value or '*'}" for one in limit.groups)


def customer_and_subscription(message: Any) -> str:
    """`acme`, or `acme/main`."""
    return f"{message.customer_id}/{message.subscription_id}" if message.subscription_id else str(message.customer_id)


def alarms(customer_alert: Any) -> str:
    """How many gauges are in alarm, and the first of their levels."""
    reached = [state.level for gauge in customer_alert.gauges for state in gauge.thresholds if state.in_alarm]
    return ", ".join(reached[:3]) + (f" (+{len(reached) - 3})" if len(reached) > 3 else "")


def values(customer_alert: Any) -> str:
    """The values of the gauges."""
    found = [gauge.gauge.value for gauge in customer_alert.gauges]
    return ", ".join(found[:3]) + (f" (+{len(found) - 3})" if len(found) > 3 else "")


def crossing(notification: Any) -> str:
    """What a notification says in a few words: `1200 reached 1000`."""
    detail = notification.WhichOneof("detail")
    if detail == "evaluation":
        evaluation = notification.evaluation
        levels = [f"{'reached' if one.kind == 1 else 'resolved'} {one.level}" for one in evaluation.transitions]
        more = f" (+{len(levels) - 1 + evaluation.omitted_count})" if len(levels) > 1 else ""
        return f"{evaluation.gauge.value} {levels[0]}{more}" if levels else str(evaluation.gauge.value)
    if detail == "recharge":
        return f"{notification.recharge.amount} {unit(notification.recharge)}"
    return ""


def actor(entry: Any) -> str:
    """Who made a change."""
    return str(entry.actor.display_name or entry.actor.actor_id or entry.actor.identity) or "(without a key)"


def quota_limit(quota: Any) -> str:
    """The limit of a quota."""
    return f"{quota.limit:,}" if quota.HasField("limit") else "none"

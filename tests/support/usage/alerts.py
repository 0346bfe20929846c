"""Alerts on usage and cost as tests define them: short forms of thresholds, groups and scopes."""

from collections.abc import Iterable, Sequence

from generated.tidemark.v1 import (
    alert_pb2,
    condition_pb2,
    filter_pb2,
    scope_pb2,
    threshold_pb2,
)

ALL_CUSTOMERS = scope_pb2.AlertScope(all_customers=scope_pb2.AllCustomersScope())
REACHED, RESOLVED = threshold_pb2.TRANSITION_KIND_REACHED, threshold_pb2.TRANSITION_KIND_RESOLVED
BOTH = (REACHED, RESOLVED)


def thresholds(*levels: str) -> list[threshold_pb2.Threshold]:
    """Thresholds with a value and no other option."""
    return _at(levels)


def _at(levels: Iterable[str]) -> list[threshold_pb2.Threshold]:
    return [threshold_pb2.Threshold(value=level) for level in levels]


def usage_alert(
    *levels: str,
    metric: str = "calls",
    scope: scope_pb2.AlertScope = ALL_CUSTOMERS,
    groups: Iterable[tuple[str, str | None]] = (),
    thresholds: Sequence[threshold_pb2.Threshold] = (),
) -> alert_pb2.Alert:
    """usage_threshold_reached, by default of all customers."""
    return alert_pb2.Alert(
        display_name="usage",
        scope=scope,
        usage_threshold_reached=condition_pb2.UsageThresholdReachedCondition(
            metric_id=metric, group_values=_selectors(groups)
        ),
        thresholds=thresholds or _at(levels),
    )


def spend_alert(
    *levels: str,
    currency: str = "",
    scope: scope_pb2.AlertScope = ALL_CUSTOMERS,
    groups: Iterable[tuple[str, str | None]] = (),
) -> alert_pb2.Alert:
    """spend_threshold_reached, by default of all customers."""
    return alert_pb2.Alert(
        display_name="spend",
        scope=scope,
        spend_threshold_reached=condition_pb2.SpendThresholdReachedCondition(
            currency=currency, group_values=_selectors(groups)
        ),
        thresholds=_at(levels),
    )


def on_customer(customer_id: str = "acme") -> scope_pb2.AlertScope:
    """The scope of one customer."""
    return scope_pb2.AlertScope(customer=scope_pb2.CustomerScope(customer_id=customer_id))


def on_customer_plan(customer_id: str, plan_id: str) -> scope_pb2.AlertScope:
    """The scope of one customer on one plan."""
    scope = scope_pb2.CustomerPlanScope(customer_id=customer_id, plan_id=plan_id)
    return scope_pb2.AlertScope(customer_plan=scope)


def on_plan(plan_id: str) -> scope_pb2.AlertScope:
    """The scope of one plan."""
    return scope_pb2.AlertScope(plan=scope_pb2.PlanScope(plan_id=plan_id))


def on_subscription(subscription_id: str, customer_id: str = "acme") -> scope_pb2.AlertScope:
    """The scope of one subscription."""
    return scope_pb2.AlertScope(
        subscription=scope_pb2.SubscriptionScope(customer_id=customer_id, subscription_id=subscription_id)
    )


def _selectors(groups: Iterable[tuple[str, str | None]]) -> list[filter_pb2.GroupSelector]:
    return [filter_pb2.GroupSelector(key=key, value=value) for key, value in groups]

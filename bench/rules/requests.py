"""The alerts and facts that the part creates, as messages of the contract."""

from collections.abc import Sequence

from bench.support import load
from generated.tidemark.v1 import (
    access_pb2,
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_pb2,
    filter_pb2,
    limit_pb2,
    scope_pb2,
    subscription_pb2,
    threshold_pb2,
)

PLANS = 7  # does not divide the number of customers, so each call puts a customer on another plan
GROUP_KEYS = ("model", "region", "tier", "zone")  # properties of grouped usage; each has one value for each customer
GROUP_VALUES = 20


def group_value(number: int) -> str:
    """The value of every group key of a customer."""
    return f"value-{number % GROUP_VALUES:02d}"


def for_customer(number: int) -> alert_pb2.Alert:
    """An alert of one customer, with a threshold out of reach."""
    customer = scope_pb2.CustomerScope(customer_id=load.customer(number))
    return _alert("of one", scope_pb2.AlertScope(customer=customer), _usage(), _value())


def for_all(group_key: str | None = None) -> alert_pb2.Alert:
    """An alert of all customers, perhaps with a gauge for each value of a property; its threshold is out of reach."""
    return _alert("of all", _all(), _usage(group_key), _value())


def of_limits() -> alert_pb2.Alert:
    """An alert of all customers on a share of their limits."""
    return _alert("of limits", _all(), _usage(), threshold_pb2.Threshold(percent_of_limit="80"))


def batch(numbers: Sequence[int]) -> alert_service_pb2.BatchCreateAlertsRequest:
    """A request for an alert for each of these customers."""
    requests = [alert_service_pb2.CreateAlertRequest(alert=for_customer(number)) for number in numbers]
    return alert_service_pb2.BatchCreateAlertsRequest(requests=requests)


def customer(customer_number: int, number: int) -> customer_pb2.Customer:
    """A customer with a plan, which usage alone does not give it; another plan for each number."""
    return customer_pb2.Customer(
        customer_id=load.customer(customer_number),
        display_name=f"Customer {number}",
        plan_id=f"plan-{number % PLANS}",
    )


def subscription(customer_number: int, number: int) -> subscription_pb2.Subscription:
    """A subscription of a customer."""
    return subscription_pb2.Subscription(
        subscription_id=f"subscription-{number}",
        customer_id=load.customer(customer_number),
        plan_id=f"plan-{number % PLANS}",
    )


def limit(customer_number: int, number: int) -> limit_pb2.Limit:
    """The limit of a customer's usage; another amount for each number."""
    return limit_pb2.Limit(
        limit_id=f"limit-{customer_number}",
        customer=scope_pb2.CustomerScope(customer_id=load.customer(customer_number)),
        quantity=access_pb2.QuantityAccess(metric_id=load.METRIC),
        amount=str(load.OUT_OF_REACH + number),
    )


def _all() -> scope_pb2.AlertScope:
    return scope_pb2.AlertScope(all_customers=scope_pb2.AllCustomersScope())


def _usage(group_key: str | None = None) -> condition_pb2.UsageThresholdReachedCondition:
    groups = [] if group_key is None else [filter_pb2.GroupSelector(key=group_key)]
    return condition_pb2.UsageThresholdReachedCondition(metric_id=load.METRIC, group_values=groups)


def _value() -> threshold_pb2.Threshold:
    return threshold_pb2.Threshold(value=str(load.OUT_OF_REACH))


def _alert(
    name: str,
    scope: scope_pb2.AlertScope,
    usage: condition_pb2.UsageThresholdReachedCondition,
    threshold: threshold_pb2.Threshold,
) -> alert_pb2.Alert:
    return alert_pb2.Alert(display_name=name, scope=scope, usage_threshold_reached=usage, thresholds=[threshold])

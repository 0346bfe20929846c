"""Thresholds that are percentages of a limit, for tests: limits, customers, thresholds and what was notified."""

from collections.abc import Iterable

from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    alert_pb2,
    customer_alert_pb2,
    customer_pb2,
    limit_pb2,
    threshold_pb2,
)
from tests.support.usage.caller import (
    BOTH,
    Caller,
)

EVALUATING = customer_alert_pb2.CUSTOMER_ALERT_STATUS_EVALUATING
BY_SEAT = [("seat", None)]


async def put_limit(
    caller: Caller,
    amount: str,
    *,
    customer: str = "acme",
    plan: str = "",
    currency: str = "",
    groups: Iterable[tuple[str, str | None]] = (),
) -> None:
    """Puts a limit on the usage of calls, or on the cost in a currency; an empty amount removes the limit."""
    groups = list(groups)
    holder = f"plan {plan}" if plan else customer
    limit = limit_pb2.Limit(
        limit_id=f"{holder} {currency} {groups}",
        groups=[limit_pb2.LimitGroup(key=key, value=value) for key, value in groups],
        amount=amount,
    )
    if plan:
        limit.plan.plan_id = plan
    else:
        limit.customer.customer_id = customer
    if currency:
        limit.spend.CopyFrom(access_pb2.SpendAccess(currency=currency))
    else:
        limit.quantity.metric_id = "calls"
    request = account_service_pb2.PutLimitRequest(limit=limit)
    await caller.accounts.PutLimit(request, metadata=caller.metadata)


async def put_customer(caller: Caller, customer: str, plan: str = "") -> None:
    """Puts a customer on a plan."""
    await caller.put_customer(customer_pb2.Customer(customer_id=customer, plan_id=plan))


def percent(*percentages: str, resolve: str = "") -> list[threshold_pb2.Threshold]:
    """Percentage thresholds that notify of both kinds."""
    return [
        threshold_pb2.Threshold(percent_of_limit=one, resolve_value=resolve, notify_on=BOTH) for one in percentages
    ]


async def notified(caller: Caller, alert: alert_pb2.Alert, customer: str = "acme") -> list[tuple[str, str]]:
    """Kind and level of all transitions that an alert has notified for a customer."""
    stored = await caller.notifications()
    own = [one for one in stored if (one.alert_id, one.customer_id) == (alert.alert_id, customer)]
    own.sort(key=lambda one: one.sequence)
    return [(crossing.kind, crossing.level) for one in own for crossing in one.transitions]

"""Limits, customers and subscriptions of a story: put by calls, and noted in the reference model."""

from datetime import UTC, datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from generated.tidemark.v1 import (
    account_service_pb2,
    billing_period_pb2,
    customer_pb2,
    limit_pb2,
    metric_pb2,
    subscription_pb2,
)
from tests.reference.enforced_limits import HARD, MONTH, NONE, ROLLING, ROLLING_MINUTES, SOFT, Limit, LimitModel
from tests.support.enforcement.gateway import put_limit
from tests.support.enforcement.hold_story import (
    CUSTOMERS,
    GOLD,
    MAIN,
    REQUEST_METRIC,
    SILVER,
    ZONES,
    ChangePlan,
    ChangeZone,
    Delete,
    Move,
    Put,
    Subscribe,
)
from tests.support.enforcement.hold_usage import text
from tests.support.usage.caller import DEADLINE, Caller

ENFORCEMENTS = {
    NONE: limit_pb2.LIMIT_ENFORCEMENT_NONE,
    SOFT: limit_pb2.LIMIT_ENFORCEMENT_SOFT,
    HARD: limit_pb2.LIMIT_ENFORCEMENT_HARD,
}
_Key = TypeVar("_Key")


class Facts:
    """The facts of one organization, and of its model."""

    def __init__(self, caller: Caller, limits: LimitModel) -> None:
        self._caller = caller
        self._limits = limits
        self._zones: dict[str, str] = {}

    async def begin(self) -> None:
        """The metric that counts events, and the customers, parents first."""
        await self._caller.put_metric(REQUEST_METRIC, metric_pb2.AGGREGATION_COUNT)
        for customer in CUSTOMERS:
            await self._put_customer(customer)

    async def put(self, put: Put) -> None:
        """Puts a limit."""
        of_plan = put.holder in (GOLD, SILVER)
        limit = Limit(put.holder, of_plan, put.unit, put.groups, put.window, put.amount, put.enforcement)
        self._limits.limits.pop(limit.limit_id, None)
        self._limits.limits[limit.limit_id] = limit
        fields: dict[str, Any] = {"plan" if of_plan else "customer": put.holder}
        fields["currency" if put.unit[0] == "cost" else "metric"] = put.unit[1]
        if put.window == ROLLING:
            fields["window"] = {"rolling": {"duration": {"seconds": 60 * ROLLING_MINUTES}}}
        elif put.window != MONTH:
            fields["window"] = {"calendar": {"unit": f"CALENDAR_UNIT_{put.window}"}}
        await put_limit(
            self._caller,
            text(put.amount),
            limit.limit_id,
            enforcement=ENFORCEMENTS[put.enforcement],
            groups=[{"key": name, "value": value} if value else {"key": name} for name, value in put.groups],
            **fields,
        )

    async def delete(self, change: Delete) -> None:
        """Deletes a limit, if there is any."""
        known = self._limits.limits
        if known:
            limit_id = list(known)[-min(change.back, len(known))]
            del known[limit_id]
            request = account_service_pb2.DeleteLimitRequest(limit_id=limit_id)
            await self._caller.accounts.DeleteLimit(request, metadata=self._caller.metadata, timeout=DEADLINE)

    async def change(self, change: Move | ChangePlan | ChangeZone | Subscribe) -> None:
        """Changes a customer, or its subscription."""
        customer, limits = change.customer, self._limits
        match change:
            case Move():
                set_or_remove(limits.parents, customer, change.parent)
            case ChangePlan():
                set_or_remove(limits.plans, customer, change.plan)
            case ChangeZone():
                self._zones[customer] = change.zone
                limits.zones[customer] = ZONES[change.zone]
            case Subscribe():
                set_or_remove(limits.subscriptions, (customer, MAIN), change.plan)
                await self._caller.put_subscription(
                    subscription_pb2.Subscription(
                        subscription_id=MAIN, customer_id=customer, plan_id=change.plan or ""
                    )
                )
                return
        await self._put_customer(customer)

    async def _put_customer(self, customer: str) -> None:
        cycle = None
        if zone := self._zones.get(customer):
            cycle = billing_period_pb2.BillingCycle(
                cadence=billing_period_pb2.CADENCE_MONTH, interval_count=1, time_zone=zone
            )
            cycle.anchor_time.FromDatetime(datetime(1970, 1, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC))
        await self._caller.put_customer(
            customer_pb2.Customer(
                customer_id=customer,
                parent_customer_id=self._limits.parents.get(customer, ""),
                plan_id=self._limits.plans.get(customer, ""),
                billing_cycle=cycle,
            )
        )


def set_or_remove(known: dict[_Key, str], key: _Key, value: str | None) -> None:
    """Sets what is known, or forgets it."""
    known.pop(key, None)
    if value is not None:
        known[key] = value

"""Alerts on one customer that hold only while it, or its subscription, is on a plan."""

from datetime import UTC, datetime, timedelta

import grpc
import pytest

from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    alert_pb2,
    alert_service_pb2,
    billing_period_pb2,
    condition_pb2,
    customer_alert_pb2,
    customer_pb2,
    limit_pb2,
    scope_pb2,
    subscription_pb2,
    threshold_pb2,
)
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from tests.support.balances.holder import GRANT, Holder
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import (
    BOTH,
    Caller,
    ShortTransition,
    beside,
    on_customer_plan,
    on_plan,
    shortened,
    thresholds,
    usage_alert,
    values,
)

pytestmark = shares_server

IN_ALARM = customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM
ON_GOLD = on_customer_plan("acme", "gold")


def exceeded(scope: scope_pb2.AlertScope, level: str) -> alert_pb2.Alert:
    condition = condition_pb2.UsageExceededCondition(metric_id="calls")
    return alert_pb2.Alert(display_name="u", scope=scope, usage_exceeded=condition, thresholds=thresholds(level))


async def put(caller: Caller, plan: str, customer: str = "acme") -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id=customer, plan_id=plan))


async def put_subscription(caller: Caller, subscription: str, plan: str, customer: str = "acme") -> None:
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id=customer, subscription_id=subscription, plan_id=plan)
    )


async def listed(caller: Caller, customer: str = "acme") -> set[str]:
    """The ids of the alerts that cover the customer."""
    answer = await caller.alerts.ListCustomerAlerts(
        alert_service_pb2.ListCustomerAlertsRequest(customer_id=customer), metadata=caller.metadata
    )
    return {one.alert.alert_id for one in answer.customer_alerts}


async def test_alert_on_a_customer_and_a_plan_covers_neither_alone(caller: Caller) -> None:
    await put(caller, "gold", "other")
    alert = await caller.create(usage_alert("10", scope=ON_GOLD))
    assert alert.scope == ON_GOLD
    sent = [caller.event(f"e-{customer}", "12", customer) for customer in ("acme", "other")]
    assert not (await caller.send(*sent, gauges=True)).gauges
    assert await listed(caller) == await listed(caller, "other") == set()
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await caller.state(alert.alert_id)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    await put(caller, "silver")
    assert not await caller.notifications()
    await put(caller, "gold")
    assert [(one.customer_id, one.transitions) for one in await caller.notifications()] == [
        ("acme", [ShortTransition("REACHED", "10", "12", "12", "")])
    ]
    assert await listed(caller) == {alert.alert_id}
    assert await listed(caller, "other") == set()


async def test_customer_that_leaves_the_plan_and_returns_is_counted_without_a_gap(caller: Caller) -> None:
    await put(caller, "gold")
    alert = await caller.create(usage_alert("100", scope=ON_GOLD))
    await caller.send(caller.event("e1", "30"))
    await put(caller, "silver")
    async with beside(caller) as other:
        away = await other.send(other.event("e2", "50"), gauges=True)
        assert not away.gauges
        await put(caller, "gold")
        answer = await other.send(other.event("e3", "30"), gauges=True)
    assert values(answer.gauges) == {("acme", "calls"): 110}
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "100", "80", "110", "e3")]
    assert (await caller.state(alert.alert_id)).status == IN_ALARM


async def test_only_the_customers_subscriptions_on_the_plan_are_covered(caller: Caller) -> None:
    await put_subscription(caller, "pro", "gold")
    await put_subscription(caller, "free", "silver")
    await put_subscription(caller, "pro", "gold", "other")
    alert = await caller.create(exceeded(ON_GOLD, "10"))
    answer = await caller.send(
        caller.event("e1", "11", subscription="pro"),
        caller.event("e2", "12", subscription="free"),
        caller.event("e3", "13", "other", subscription="pro"),
    )
    assert [(one.gauge.subscription_id, one.value) for one in answer.transitions] == [("pro", "11")]
    await put_subscription(caller, "free", "gold")
    assert sorted(one.transitions[0].value for one in await caller.notifications()) == ["11", "12"]
    assert {one.gauge.subscription_id for one in (await caller.state(alert.alert_id)).gauges} == {"pro", "free"}


async def test_changed_billing_cycle_evaluates_the_subscriptions_of_every_plan(
    caller: Caller, clock: ManualClock
) -> None:
    for subscription, plan in (("pro", "gold"), ("free", "silver")):
        await put_subscription(caller, subscription, plan)
        await caller.create(exceeded(on_customer_plan("acme", plan), "10"))
        await caller.create(exceeded(on_plan(plan), "11"))
        long_ago = clock.now() - timedelta(days=20)
        await caller.send(
            caller.event(f"{plan}-1", "6", subscription=subscription, at=long_ago),
            caller.event(f"{plan}-2", "6", subscription=subscription),
        )
    assert not await caller.notifications()
    cycle = billing_period_pb2.BillingCycle(
        anchor_time=to_timestamp(datetime(2026, 1, 1, tzinfo=UTC)), cadence=billing_period_pb2.CADENCE_QUARTER
    )
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", billing_cycle=cycle))
    notified = [
        (one.body["data"]["gauge"]["subscription_id"], one.transitions) for one in await caller.notifications()
    ]
    assert sorted((subscription, item[0].level) for subscription, item in notified) == [
        ("free", "10"),
        ("free", "11"),
        ("pro", "10"),
        ("pro", "11"),
    ]


async def test_balance_of_the_customer_is_evaluated_when_it_joins_the_plan(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("g1", "5", kind=GRANT)
    alert = alert_pb2.Alert(
        display_name="b",
        scope=ON_GOLD,
        credit_balance_dropped=condition_pb2.CreditBalanceDroppedCondition(),
        thresholds=[threshold_pb2.Threshold(value="10", notify_on=BOTH)],
    )
    created = await caller.create(alert)
    await acme.adjust("g1", "-1")
    assert not await caller.notifications()
    await put(caller, "gold")
    await acme.adjust("g1", "7")
    assert [item.kind for one in await caller.notifications() for item in one.transitions] == ["REACHED", "RESOLVED"]
    await put(caller, "")
    await acme.adjust("g1", "-8")
    assert len(await caller.notifications()) == 2
    with pytest.raises(grpc.aio.AioRpcError):
        await caller.state(created.alert_id)


async def test_limit_of_the_plan_applies_to_the_customer_on_it(caller: Caller) -> None:
    await put(caller, "gold")
    await caller.create(usage_alert(thresholds=[threshold_pb2.Threshold(percent_of_limit="50")], scope=ON_GOLD))
    await caller.send(caller.event("e1", "30"))
    for plan, amount in (("silver", "1"), ("gold", "60")):
        limit = limit_pb2.Limit(
            limit_id=plan,
            plan=scope_pb2.PlanScope(plan_id=plan),
            quantity=access_pb2.QuantityAccess(metric_id="calls"),
            amount=amount,
        )
        await caller.accounts.PutLimit(account_service_pb2.PutLimitRequest(limit=limit), metadata=caller.metadata)
        answer = await caller.send(caller.event(f"after {plan}", "0"))
        assert [one.level for one in answer.transitions] in ([], ["30"])
        levels = [item.level for one in await caller.notifications() for item in one.transitions]
        assert levels == ([] if plan == "silver" else ["30"])


async def test_one_alert_of_a_type_for_each_customer_and_plan(caller: Caller) -> None:
    first = await caller.create_only(exceeded(ON_GOLD, "1"))
    for scope in (on_plan("gold"), on_customer_plan("acme", "silver"), on_customer_plan("other", "gold")):
        await caller.create_only(exceeded(scope, "1"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await caller.create_only(exceeded(ON_GOLD, "2"))
    assert error.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert first.alert_id in (error.value.details() or "")
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", currency="EUR"))
    cost = alert_pb2.Alert(
        display_name="c",
        scope=ON_GOLD,
        cost_exceeded=condition_pb2.CostExceededCondition(),
        thresholds=thresholds("1"),
    )
    assert (await caller.create_only(cost)).cost_exceeded.currency == "EUR"


async def test_alarms_list_the_customer_only_while_it_is_on_the_plan(caller: Caller) -> None:
    await put(caller, "gold")
    await caller.create(usage_alert("10", scope=ON_GOLD))
    await caller.send(caller.event("e1", "12"))

    async def alarms() -> int:
        request = alert_service_pb2.ListCustomerAlertsRequest(statuses=[IN_ALARM])
        listed = await caller.alerts.ListCustomerAlerts(request, metadata=caller.metadata)
        summary = await caller.alerts.SummarizeCustomerAlerts(
            alert_service_pb2.SummarizeCustomerAlertsRequest(), metadata=caller.metadata
        )
        assert len(summary.alerts) == len(listed.customer_alerts)
        return len(listed.customer_alerts)

    assert await alarms() == 1
    await put(caller, "silver")
    assert await alarms() == 0

"""Metrics, subscriptions, plans and limits are deleted when nothing uses them, whatever usage does meanwhile."""

import pytest

from generated.tidemark.v1 import account_service_pb2 as messages
from generated.tidemark.v1 import (
    alert_pb2,
    condition_pb2,
    customer_pb2,
    metric_pb2,
    plan_pb2,
    subscription_pb2,
    threshold_pb2,
)
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.balances.holder import Holder
from tests.support.facts.refusals import assert_refused, assert_violations
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import BOTH, Caller, beside, on_plan, on_subscription, thresholds, until, usage_alert
from tests.support.usage.deleting import (
    MAX,
    NOT_FOUND,
    SUM,
    assert_gone,
    assert_used,
    delete,
    forget_events,
    get,
    only_alert,
    put_limit,
)
from tests.support.usage.organizations import create_organization

pytestmark = shares_server


async def test_a_metric_is_deleted_once_nothing_uses_it(caller: Caller) -> None:
    await caller.put_metric("calls", MAX)
    alert = await caller.create(usage_alert("10"))
    await put_limit(caller, "l1", "5", customer="acme")
    holder = Holder(caller)
    await holder.put("b1", "10", metric="calls")
    await caller.send(caller.event("e1", "3"))
    await assert_used(caller, "Metric", "ALERT", alert.alert_id, metric_id="calls")
    await caller.archive(alert.alert_id)
    await assert_used(caller, "Metric", "LIMIT", "l1", metric_id="calls")
    await delete(caller, "Limit", limit_id="l1")
    await assert_used(caller, "Metric", "BALANCE", "b1", metric_id="calls")
    await holder.void("b1")
    await assert_used(caller, "Metric", "USAGE", metric_id="calls")
    await forget_events(caller)
    await assert_gone(caller, "Metric", metric_id="calls")


async def test_usage_creates_a_deleted_metric_anew_on_every_server(caller: Caller) -> None:
    await caller.put_metric("calls", MAX)
    async with beside(caller) as other:
        await caller.send(caller.event("e1", "3"))
        await other.send(caller.event("e2", "4"))
        await forget_events(caller)
        await delete(caller, "Metric", metric_id="calls")
        await other.send(caller.event("e3", "5"))
        assert (await get(caller, "Metric", metric_id="calls")).aggregation == SUM
        await caller.create(usage_alert("100"))
        await caller.send(caller.event("e4", "6"))
        answer = await other.send(caller.event("e5", "7"), gauges=True)
        assert [gauge.value for gauge in answer.gauges] == ["18"]


async def test_a_deleted_metric_can_be_put_with_another_aggregation(caller: Caller) -> None:
    await caller.put_metric("calls", MAX)
    await caller.send(caller.event("e1", "3"))
    await forget_events(caller)
    await delete(caller, "Metric", metric_id="calls")
    await caller.put_metric("calls", metric_pb2.AGGREGATION_COUNT)
    await caller.create(usage_alert("100"))
    answer = await caller.send(caller.event("e2", "7"), gauges=True)
    assert [gauge.value for gauge in answer.gauges] == ["1"]
    await assert_used(caller, "Metric", "ALERT", (await only_alert(caller)), metric_id="calls")


async def test_a_subscription_is_deleted_once_nothing_uses_it(caller: Caller) -> None:
    ids = {"customer_id": "acme", "subscription_id": "pro"}
    sent = subscription_pb2.Subscription(customer_id="acme", subscription_id="pro", currency="EUR", plan_id="gold")
    await caller.put_subscription(sent)
    condition = condition_pb2.UsageExceededCondition(metric_id="calls")
    alert = await caller.create(
        alert_pb2.Alert(
            display_name="pro", scope=on_subscription("pro"), thresholds=thresholds("10"), usage_exceeded=condition
        )
    )
    await caller.send(caller.event("e1", subscription="pro"))
    await assert_used(caller, "Subscription", "ALERT", alert.alert_id, **ids)
    await caller.archive(alert.alert_id)
    await assert_used(caller, "Subscription", "USAGE", **ids)
    await forget_events(caller)
    await assert_gone(caller, "Subscription", **ids)
    await caller.send(caller.event("e2", subscription="pro", cost="1"))
    created = await get(caller, "Subscription", **ids)
    assert (created.currency, created.plan_id) == ("", "")
    [[currency]] = await caller.rows("SELECT currency FROM event WHERE organization_id = %(organization_id)s")
    assert currency == "USD"


async def test_a_plan_is_deleted_once_nothing_uses_it(caller: Caller) -> None:
    await caller.accounts.PutPlan(
        messages.PutPlanRequest(plan=plan_pb2.Plan(plan_id="gold")), metadata=caller.metadata
    )
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="gold"))
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="acme", subscription_id="s1", plan_id="gold")
    )
    alert = await caller.create(usage_alert("10", scope=on_plan("gold")))
    await put_limit(caller, "l1", "5", plan="gold")
    await assert_used(caller, "Plan", "CUSTOMER", "acme", plan_id="gold")
    await caller.put_customer(customer_pb2.Customer(customer_id="acme"))
    await assert_used(caller, "Plan", "SUBSCRIPTION", "s1", plan_id="gold")
    await delete(caller, "Subscription", customer_id="acme", subscription_id="s1")
    await assert_used(caller, "Plan", "ALERT", alert.alert_id, plan_id="gold")
    await caller.archive(alert.alert_id)
    await assert_used(caller, "Plan", "LIMIT", "l1", plan_id="gold")
    await delete(caller, "Limit", limit_id="l1")
    await assert_gone(caller, "Plan", plan_id="gold")


@pytest.mark.parametrize("of", [{"customer": "acme"}, {"plan": "gold"}], ids=["customer", "plan"])
async def test_a_deleted_limit_resolves_its_percentages_on_every_server(caller: Caller, of: dict[str, str]) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="gold"))
    await put_limit(caller, "l1", "10", **of)
    percent = [threshold_pb2.Threshold(percent_of_limit="50", notify_on=BOTH)]
    await caller.create(usage_alert(thresholds=percent))
    async with beside(caller) as other:
        await other.send(caller.event("e1", "5"))
        await assert_gone(caller, "Limit", limit_id="l1")

        async def resolved() -> bool:
            kinds = [part.kind for one in await caller.notifications() for part in one.transitions]
            return kinds == ["REACHED", "RESOLVED"]

        await until(resolved)
        assert not (await other.send(caller.event("e2", "9"))).transitions
        await put_limit(caller, "l1", "100", customer="acme", metric="others")
        await put_limit(caller, "l2", "20", **of)

        async def reached_again() -> bool:
            kinds = [part.kind for one in await caller.notifications() for part in one.transitions]
            return kinds == ["REACHED", "RESOLVED", "REACHED"]

        await until(reached_again)
    listed = await caller.accounts.ListLimits(
        messages.ListLimitsRequest(include_total_size=True), metadata=caller.metadata
    )
    assert [one.limit_id for one in listed.limits] == ["l1", "l2"]
    assert listed.total_size == 2


async def test_a_deletion_is_of_one_organization(caller: Caller, clock: ManualClock) -> None:
    await caller.put_metric("calls", MAX)
    database = Database(caller.database_url, pool_size=1)
    _, key = await create_organization(database, clock)
    await database.close()
    theirs = (("authorization", f"Bearer {key}"),)
    call = caller.accounts.DeleteMetric(messages.DeleteMetricRequest(metric_id="calls"), metadata=theirs)
    await assert_refused(call, NOT_FOUND, "METRIC_NOT_FOUND")
    put = messages.PutMetricRequest(metric=metric_pb2.Metric(metric_id="calls"))
    await caller.accounts.PutMetric(put, metadata=theirs)
    await caller.send(caller.event("e1"))
    await caller.accounts.DeleteMetric(messages.DeleteMetricRequest(metric_id="calls"), metadata=theirs)
    assert (await get(caller, "Metric", metric_id="calls")).aggregation == MAX


async def test_violations_of_deletions_are_named(caller: Caller) -> None:
    await assert_violations(delete(caller, "Metric", metric_id=" "), "metric_id")
    await assert_violations(delete(caller, "Subscription", customer_id=" "), "customer_id", "subscription_id")
    await assert_violations(delete(caller, "Plan"), "plan_id")
    await assert_violations(delete(caller, "Limit", limit_id="a\n"), "limit_id")

"""Customers and subscriptions join and leave plans that have alerts."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.backfill.parts import Part, evaluate_part
from engine.puts import noted_customers
from generated.tidemark.v1 import (
    alert_pb2,
    billing_period_pb2,
    customer_alert_pb2,
    customer_pb2,
    subscription_pb2,
    threshold_pb2,
)
from server.calls.validation import to_timestamp
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import BOTH, Caller, ShortTransition, on_plan, shortened, usage_alert, values

pytestmark = shares_server

GOLD = on_plan("gold")


async def put(caller: Caller, plan: str, customer: str = "acme") -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id=customer, plan_id=plan))


async def test_customer_that_leaves_a_plan_and_returns_is_counted_without_a_gap(caller: Caller) -> None:
    await put(caller, "gold")
    await caller.create(usage_alert("100", scope=GOLD))
    await caller.send(caller.event("e1", "30"))
    await put(caller, "silver")
    away = await caller.send(caller.event("e2", "50"), gauges=True)
    assert not away.gauges
    await put(caller, "gold")
    answer = await caller.send(caller.event("e3", "30"), gauges=True)
    assert values(answer.gauges) == {("acme", "calls"): 110}
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "100", "80", "110", "e3")]


async def test_customer_that_joins_a_plan_above_a_threshold_notifies_immediately(caller: Caller) -> None:
    alert = await caller.create(usage_alert("100", scope=GOLD))
    await caller.send(caller.event("e1", "130"))
    await put(caller, "gold")
    assert [one.transitions for one in await caller.notifications()] == [
        [ShortTransition("REACHED", "100", "130", "130", "")]
    ]
    assert (await caller.state(alert.alert_id)).status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM
    assert not (await caller.send(caller.event("e2", "5"))).transitions


async def test_subscription_that_joins_a_plan_above_a_threshold_notifies_immediately(caller: Caller) -> None:
    alert = alert_pb2.Alert(display_name="plan", scope=GOLD, thresholds=[threshold_pb2.Threshold(value="10")])
    alert.cost_exceeded.grouping_keys.append("model")
    alert.cost_exceeded.currency = "USD"
    await caller.create(alert)
    await caller.send(
        caller.event("e1", cost="12", subscription="pro", model="large"),
        caller.event("e2", cost="8", subscription="pro", model="small"),
        caller.event("e3", cost="80", subscription="other", model="large"),
    )
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="acme", subscription_id="pro", plan_id="gold")
    )
    [stored] = await caller.notifications()
    assert stored.transitions == [ShortTransition("REACHED", "10", "12", "12", "")]
    assert stored.body["data"]["gauge"]["group"] == [{"key": "model", "value": "large"}]
    answer = await caller.send(caller.event("e4", cost="2", subscription="pro", model="small"))
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "10", "8", "10", "e4")]


async def test_every_alert_of_a_plan_notifies_once_when_a_customer_joins(caller: Caller) -> None:
    """Some of the alerts share gauges: all are evaluated, none of them twice."""
    alerts = [
        await caller.create(alert)
        for alert in (
            usage_alert("100", scope=GOLD),
            usage_alert("120", scope=GOLD),
            usage_alert("5", scope=GOLD, groups=[("region", "eu")]),
            usage_alert("5", scope=GOLD, groups=[("region", None)]),
            usage_alert("1", scope=on_plan("silver")),
            usage_alert("131", scope=GOLD),
        )
    ]
    await caller.send(caller.event("e1", "124"), caller.event("e2", "6", region="eu"), caller.event("e3", "0.5"))
    for _ in range(2):
        await put(caller, "gold")
    notified = [one.alert_id for one in await caller.notifications()]
    assert sorted(notified) == sorted(alert.alert_id for alert in alerts[:4])


async def test_changed_billing_cycle_is_evaluated_immediately(caller: Caller) -> None:
    """A customer can be at or above a threshold in its new, longer period without new usage."""
    await caller.create(usage_alert("10"))
    await caller.send(caller.event("e1", "6", at=caller.clock.now() - timedelta(days=20)), caller.event("e2", "6"))
    assert await caller.notifications() == []
    cycle = billing_period_pb2.BillingCycle(
        anchor_time=to_timestamp(datetime(2026, 1, 1, tzinfo=UTC)), cadence=billing_period_pb2.CADENCE_QUARTER
    )
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", billing_cycle=cycle))
    assert [one.transitions for one in await caller.notifications()] == [
        [ShortTransition("REACHED", "10", "12", "12", "")]
    ]


async def test_customer_that_returns_to_a_plan_above_a_threshold_does_not_notify_again(caller: Caller) -> None:
    await put(caller, "gold")
    alert = await caller.create(
        usage_alert(thresholds=[threshold_pb2.Threshold(value="100", notify_on=BOTH)], scope=GOLD)
    )
    await caller.send(caller.event("e1", "130"))
    for plan in ("silver", "gold"):
        await put(caller, plan)
        assert not (await caller.send(caller.event(f"e-{plan}", "1"))).transitions
    assert (await caller.state(alert.alert_id)).gauges[0].gauge.value == "132"
    await put(caller, "")
    await caller.send(caller.event("e2", "-100"))
    await put(caller, "gold")
    assert not (await caller.send(caller.event("e3", "1"))).transitions
    [_, stored] = await caller.notifications()
    assert stored.transitions == [ShortTransition("RESOLVED", "100", "32", "32", "")]
    assert [one.sequence for one in await caller.notifications()] == [1, 2]


async def test_put_without_a_change_notifies_nothing(caller: Caller) -> None:
    await put(caller, "gold")
    await caller.create(usage_alert("100", scope=GOLD))
    await caller.send(caller.event("e1", "130"))
    for number in range(3):
        await put(caller, "gold")
        answer = await caller.send(caller.event(f"n{number}", "1"), gauges=True)
        assert not answer.transitions
    assert values(answer.gauges) == {("acme", "calls"): 133}
    assert len(await caller.notifications()) == 1


async def test_subscription_is_covered_only_while_it_is_on_the_plan(caller: Caller) -> None:
    alert = alert_pb2.Alert(display_name="plan", scope=GOLD, thresholds=[threshold_pb2.Threshold(value="10")])
    alert.usage_exceeded.metric_id = "calls"
    await caller.create(alert)
    answer = await caller.send(caller.event("e1", "8", subscription="pro"), caller.event("e2", "8"), gauges=True)
    assert not answer.gauges
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="acme", subscription_id="pro", plan_id="gold")
    )
    answer = await caller.send(caller.event("e3", "2", subscription="pro"), gauges=True)
    assert values(answer.gauges) == {("acme", "pro", "calls"): 10}
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "10", "8", "10", "e3")]
    await caller.put_subscription(subscription_pb2.Subscription(customer_id="acme", subscription_id="pro"))
    answer = await caller.send(caller.event("e4", "-9", subscription="pro"), gauges=True)
    assert not answer.gauges
    assert not answer.transitions


async def test_plan_alert_evaluates_only_customers_on_the_plan(caller: Caller) -> None:
    for number in range(6):
        await put(caller, "gold" if number % 2 else "silver", f"c{number}")
        await caller.send(caller.event("e1", "15", f"c{number}"))
    await caller.create(usage_alert("10", scope=GOLD))
    assert [one.customer_id for one in await caller.notifications()] == ["c1", "c3", "c5"]


@own_server
async def test_alert_that_fails_to_evaluate_blocks_neither_the_put_nor_other_alerts(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await caller.create(usage_alert("10", scope=GOLD))
    good = await caller.create(usage_alert("5", scope=GOLD, groups=[("region", "eu")]))
    await caller.send(caller.event("e1", "12", region="eu"))

    async def unless_bad(*args: Any, **options: Any) -> Part:
        if args[1].alert_id == bad.alert_id:
            raise RuntimeError("it cannot be evaluated")
        return await evaluate_part(*args, **options)

    with monkeypatch.context() as broken:
        broken.setattr(noted_customers, "evaluate_part", unless_bad)
        await put(caller, "gold")
    assert [one.alert_id for one in await caller.notifications()] == [good.alert_id]
    answer = await caller.send(caller.event("e2", "0"))
    assert [one.alert_id for one in answer.transitions] == [bad.alert_id]

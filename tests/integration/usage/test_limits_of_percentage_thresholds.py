"""Which limit a percentage threshold is compared with: that of its customer, plan, subscription or currency."""

from typing import Any

import pytest

from engine.backfill.backfills import Backfills
from evaluator.balances import Unit
from generated.tidemark.v1 import (
    account_service_pb2,
    alert_pb2,
    condition_pb2,
    customer_pb2,
    invoice_pb2,
    scope_pb2,
    subscription_pb2,
)
from server.calls.validation import to_timestamp
from store.alerts import compared_with_limits
from store.identity import organizations
from store.postgres.database import Database
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import (
    ALL_CUSTOMERS,
    Caller,
    ShortTransition,
    beside,
    calling,
    on_customer,
    on_plan,
    shortened,
    spend_alert,
    usage_alert,
)
from tests.support.usage.percentages import EVALUATING, notified, percent, put_customer, put_limit

pytestmark = shares_server


async def test_plan_limit_applies_to_each_customer_of_the_plan(caller: Caller) -> None:
    for customer, plan in (("acme", "gold"), ("bolt", "gold"), ("core", "silver")):
        await put_customer(caller, customer, plan)
        await caller.send(caller.event("e1", "90", customer))
    await put_limit(caller, "200", customer="bolt")
    alert = await caller.create(usage_alert(thresholds=percent("80")))
    for amount in ("100", "80", "1000"):
        await put_limit(caller, amount, plan="gold")
        await caller.backfilled(alert.alert_id)
    assert await notified(caller, alert) == [("REACHED", "80"), ("RESOLVED", "800")]
    assert (await caller.state(alert.alert_id)).alert.version == 1
    await put_limit(caller, "50", plan="gold")
    await caller.backfilled(alert.alert_id)
    assert await notified(caller, alert, "bolt") == []
    # Without a limit of its own the customer has the limit of its plan.
    await put_limit(caller, "", customer="bolt")
    assert await notified(caller, alert, "bolt") == [("REACHED", "40")]
    await put_limit(caller, "150", customer="bolt")
    assert await notified(caller, alert, "bolt") == [("REACHED", "40"), ("RESOLVED", "120")]
    assert await notified(caller, alert, "core") == []


async def test_limit_of_a_plan_concerns_wide_alerts_and_those_of_its_customers(caller: Caller) -> None:
    """Also those of customers that join the plan, and of alerts that are created, between the read and the lock."""
    await put_customer(caller, "acme", "gold")
    await put_customer(caller, "core", "silver")
    await put_customer(caller, "late", "silver")
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="bolt", subscription_id="pro", plan_id="gold")
    )

    async def create(scope: scope_pb2.AlertScope, **fields: Any) -> str:
        wanted = usage_alert(thresholds=percent("80"), scope=scope, **fields)
        return (await caller.create_only(wanted)).alert_id

    concerned = [
        await create(scope) for scope in (ALL_CUSTOMERS, on_plan("gold"), on_customer(), on_customer("bolt"))
    ]
    joined = await create(on_customer("late"))
    await create(on_plan("silver"))
    await create(on_customer("core"))
    await create(on_customer(), metric="other")
    await create(on_customer(), groups=[("seat", None)])
    await caller.create_only(usage_alert("80", scope=on_customer()))
    database = Database(caller.database_url, pool_size=1)
    try:
        async with database.transaction() as connection:
            organization_id = await organizations.find(connection, caller.organization)
            assert organization_id is not None
            wanted = connection, organization_id, "gold", Unit(metric_id="calls"), ()
            epoch = await organizations.current_epoch(connection, organization_id)
            assert sorted(await compared_with_limits.of_plan(*wanted)) == sorted(concerned)
            assert await compared_with_limits.of_plan(*wanted, since=epoch) == []
        await put_customer(caller, "late", "gold")
        created = await create(on_customer("bolt"))
        async with database.transaction() as connection:
            wanted = connection, organization_id, "gold", Unit(metric_id="calls"), ()
            found = await compared_with_limits.of_plan(*wanted, since=epoch)
            assert sorted(found) == sorted([joined, created])
    finally:
        await database.close()


async def test_customer_that_joins_a_plan_gets_its_limit(caller: Caller) -> None:
    await put_limit(caller, "100", plan="gold")
    await put_limit(caller, "1000", plan="silver")
    alert = await caller.create(usage_alert(thresholds=percent("80")))
    await caller.send(caller.event("e1", "500"))
    await put_customer(caller, "acme", "gold")
    await caller.send(caller.event("e2", "1"))
    assert await notified(caller, alert) == [("REACHED", "80")]
    await put_customer(caller, "acme", "silver")
    await caller.send(caller.event("e3", "1"))
    assert await notified(caller, alert) == [("REACHED", "80"), ("RESOLVED", "800")]


async def test_subscription_has_the_limit_of_its_customer_or_else_of_its_plan(caller: Caller) -> None:
    pro = subscription_pb2.Subscription(customer_id="acme", subscription_id="pro", plan_id="gold")
    await caller.put_subscription(pro)
    await put_customer(caller, "acme", "silver")
    await put_limit(caller, "100", plan="gold")
    await put_limit(caller, "1", plan="silver")
    condition = condition_pb2.UsageExceededCondition(metric_id="calls")
    alert = await caller.create(
        alert_pb2.Alert(
            display_name="plan", scope=on_plan("gold"), usage_exceeded=condition, thresholds=percent("50")
        )
    )
    answer = await caller.send(caller.event("e1", "60", subscription="pro"))
    assert [(one.level, one.gauge.limit) for one in answer.transitions] == [("50", "100")]
    await put_limit(caller, "200")
    assert await notified(caller, alert) == [("REACHED", "50"), ("RESOLVED", "100")]
    await put_limit(caller, "")
    assert await notified(caller, alert) == [("REACHED", "50"), ("RESOLVED", "100"), ("REACHED", "50")]
    assert (await caller.state(alert.alert_id)).gauges[0].gauge.limit == "100"


async def test_spend_limit_applies_to_its_own_currency(caller: Caller) -> None:
    wanted = spend_alert()
    wanted.thresholds.extend(percent("80"))
    alert = await caller.create(wanted)
    await caller.send(caller.event("e1", cost="9", currency="USD"), caller.event("e2", cost="9", currency="EUR"))
    await put_limit(caller, "10", currency="EUR")
    await put_limit(caller, "10")
    assert await notified(caller, alert) == []
    await put_limit(caller, "10", currency="USD")
    assert await notified(caller, alert) == [("REACHED", "8")]


async def test_limit_put_before_its_customer_applies_to_it(caller: Caller) -> None:
    alert = await caller.create(usage_alert(thresholds=percent("80")))
    await put_limit(caller, "10", customer="new")
    assert not (await caller.send(caller.event("e1", "7", "new"))).transitions
    answer = await caller.send(caller.event("e2", "1", "new"))
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "8", "7", "8", "e2")]
    assert (await caller.state(alert.alert_id, "new")).gauges[0].gauge.limit == "10"


async def test_limits_apply_on_other_replicas_and_on_later_ones(caller: Caller) -> None:
    alert = await caller.create(usage_alert(thresholds=percent("80")))
    async with beside(caller) as other:
        await other.send(other.event("e1", "50"))
        await put_limit(caller, "70")
        answer = await other.send(other.event("e2", "6"))
        assert [one.level for one in shortened(answer.transitions)] == ["56"]
        await put_limit(other, "100")
        answer = await caller.send(caller.event("e3", "24"))
        assert [one.level for one in shortened(answer.transitions)] == ["80"]
        await put_customer(other, "bolt", "gold")
        await put_limit(other, "10", plan="gold")
    async with calling(caller.database_url, caller.clock, caller.organization, caller.key) as later:
        answer = await later.send(later.event("e4", "-1"), later.event("e1", "8", "bolt"))
        found = [(one.kind, one.level) for one in shortened(answer.transitions)]
        assert sorted(found) == [("REACHED", "8"), ("RESOLVED", "80")]
    assert await notified(caller, alert) == [
        ("REACHED", "56"),
        ("RESOLVED", "80"),
        ("REACHED", "80"),
        ("RESOLVED", "80"),
    ]


@own_server
async def test_usage_applies_a_plan_limit_before_the_re_evaluation(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_customer(caller, "acme", "gold")
    await put_customer(caller, "bolt", "gold")
    alert = await caller.create(usage_alert(thresholds=percent("80")))
    await caller.send(caller.event("e1", "90"), caller.event("e1", "90", "bolt"))
    run_once = Backfills.run_once
    held = True

    async def unless_held(backfills: Backfills) -> bool:
        return not held and await run_once(backfills)

    monkeypatch.setattr(Backfills, "run_once", unless_held)
    await put_limit(caller, "100", plan="gold")
    assert (await caller.state(alert.alert_id)).status == EVALUATING
    answer = await caller.send(caller.event("e2", "1"))
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "80", "90", "90", "")]
    held = False
    await put_limit(caller, "99", plan="gold")
    await caller.backfilled(alert.alert_id)
    assert await notified(caller, alert) == [("REACHED", "80")]
    assert await notified(caller, alert, "bolt") == [("REACHED", "79.2")]


async def test_monthly_invoice_total_is_compared_with_the_spend_limit(caller: Caller) -> None:
    condition = condition_pb2.MonthlyInvoiceTotalSpendThresholdReachedCondition(currency="USD")
    alert = await caller.create(
        alert_pb2.Alert(
            display_name="month",
            scope=ALL_CUSTOMERS,
            monthly_invoice_total_spend_threshold_reached=condition,
            thresholds=percent("50"),
        )
    )
    await put_customer(caller, "acme", "gold")
    await put_limit(caller, "100", plan="gold", currency="USD")
    await caller.backfilled(alert.alert_id)
    invoice = invoice_pb2.Invoice(
        invoice_id="i1",
        customer_id="acme",
        currency="USD",
        total="60",
        status=invoice_pb2.INVOICE_STATUS_ISSUED,
        period_end_time=to_timestamp(caller.clock.now()),
    )
    request = account_service_pb2.PutInvoiceRequest(invoice=invoice)
    await caller.accounts.PutInvoice(request, metadata=caller.metadata)
    expected = [("REACHED", "50")]
    assert await notified(caller, alert) == expected
    assert (await caller.notifications())[0].body["data"]["gauge"]["limit"] == "100"
    for amount, found in (("200", ("RESOLVED", "100")), ("", ("REACHED", "50"))):
        await put_limit(caller, amount, currency="USD")
        expected.append(found)
        assert await notified(caller, alert) == expected
    await put_limit(caller, "", plan="gold", currency="USD")
    await caller.backfilled(alert.alert_id)
    assert await notified(caller, alert) == [*expected, ("RESOLVED", "50")]


async def test_spend_limit_of_a_cached_customer_leaves_its_limit_of_calls(caller: Caller) -> None:
    await caller.create(usage_alert(thresholds=percent("100")))
    await put_limit(caller, "10")
    await caller.send(caller.event("e1", "4"))
    await put_limit(caller, "5", currency="USD")
    answer = await caller.send(caller.event("e2", "6"))
    assert [(one.level, one.event_id) for one in shortened(answer.transitions)] == [("10", "e2")]


async def test_customer_limit_of_zero_is_not_replaced_by_the_plan_limit(caller: Caller) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="pro"))
    await put_limit(caller, "10", plan="pro")
    await put_limit(caller, "0")
    await caller.create(usage_alert(thresholds=percent("100")))
    answer = await caller.send(caller.event("e1", "1"))
    assert [(one.level, one.event_id) for one in shortened(answer.transitions)] == [("0", "e1")]

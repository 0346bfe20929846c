"""Percentage thresholds: limits that are put before and after usage, changed and removed."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest

from engine.backfill.backfills import Backfills
from evaluator.amounts import format_decimal
from evaluator.balances import Unit
from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_alert_pb2,
    customer_pb2,
    filter_pb2,
    invoice_pb2,
    limit_pb2,
    scope_pb2,
    subscription_pb2,
    threshold_pb2,
)
from server.calls.validation import to_timestamp
from store.alerts import compared_with_limits
from store.identity import organizations
from store.postgres.database import Database
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import (
    ALL_CUSTOMERS,
    BOTH,
    Caller,
    ShortTransition,
    beside,
    calling,
    on_customer,
    on_plan,
    shortened,
    spend_alert,
    usage_alert,
    values,
)

pytestmark = shares_server

IN_ALARM, OK = customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM, customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK
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


async def test_usage_reaches_percentage_thresholds(caller: Caller) -> None:
    await put_limit(caller, "50")
    alert = await caller.create(usage_alert(thresholds=percent("80", "100", "150", "0.5")))
    assert not (await caller.send(caller.event("e1", "0.24"))).transitions
    answer = await caller.send(caller.event("e2", "39.76"))
    assert shortened(answer.transitions) == [
        ShortTransition("REACHED", "0.25", "0.24", "40", "e2"),
        ShortTransition("REACHED", "40", "0.24", "40", "e2"),
    ]
    shown = answer.transitions[1]
    assert (shown.threshold.percent_of_limit, shown.threshold.value, shown.gauge.limit) == ("80", "", "50")
    answer = await caller.send(caller.event("e3", "35"))
    assert [one.level for one in shortened(answer.transitions)] == ["50", "75"]
    first, second = await caller.notifications()
    assert first.body["data"]["gauge"]["limit"] == "50"
    assert first.body["data"]["transitions"][1]["threshold"] == {"percent_of_limit": "80"}
    assert (second.sequence, second.body["data"]["previous_value"]) == (2, "40")
    state = await caller.state(alert.alert_id)
    assert state.status == IN_ALARM
    assert state.gauges[0].gauge.limit == "50"
    assert [(one.threshold.percent_of_limit, one.in_alarm, one.level) for one in state.gauges[0].thresholds] == [
        ("80", True, "40"),
        ("100", True, "50"),
        ("150", True, "75"),
        ("0.5", True, "0.25"),
    ]


async def test_put_limit_evaluates_its_customer_before_it_answers(caller: Caller) -> None:
    alert = await caller.create(usage_alert(thresholds=percent("80", "100")))
    await caller.send(caller.event("e1", "90"), caller.event("e1", "90", "other"))
    assert await notified(caller, alert) == []
    expected: list[tuple[str, str]] = []
    for amount, found in (
        ("100", [("REACHED", "80")]),
        ("90", [("REACHED", "90")]),
        ("112.5", [("RESOLVED", "112.5")]),
        ("1000", [("RESOLVED", "800")]),
        ("1000", []),
        ("10", [("REACHED", "8"), ("REACHED", "10")]),
        ("", [("RESOLVED", "10"), ("RESOLVED", "8")]),
        ("60", [("REACHED", "48"), ("REACHED", "60")]),
    ):
        await put_limit(caller, amount)
        expected += found
        assert await notified(caller, alert) == expected
        [shown] = (await caller.state(alert.alert_id)).gauges
        assert shown.gauge.limit == amount
        levels = [format_decimal(Decimal(amount) * Decimal("0.8")), amount] if amount else ["", ""]
        assert [one.level for one in shown.thresholds] == levels
    assert shown.change_reason == customer_alert_pb2.CHANGE_REASON_EVALUATION
    sequences = sorted(one.sequence for one in await caller.notifications())
    assert sequences == list(range(1, 8))
    assert await notified(caller, alert, "other") == []
    # The gauge keeps its value, and its trip levels follow the limit.
    answer = await caller.send(caller.event("e2", "-31"), gauges=True)
    assert values(answer.gauges) == {("acme", "calls"): 59}
    assert shortened(answer.transitions) == [ShortTransition("RESOLVED", "60", "90", "59", "e2")]


async def test_percentage_threshold_without_a_limit_is_not_reached(caller: Caller) -> None:
    alert = await caller.create(usage_alert(thresholds=[*percent("80"), threshold_pb2.Threshold(value="1000")]))
    assert not (await caller.send(caller.event("e1", "999"))).transitions
    state = await caller.state(alert.alert_id)
    assert state.status == OK
    assert [(one.in_alarm, one.level) for one in state.gauges[0].thresholds] == [(False, ""), (False, "")]
    answer = await caller.send(caller.event("e2", "1"))
    assert shortened(answer.transitions) == [ShortTransition("REACHED", "1000", "999", "1000", "e2")]


async def test_each_group_has_its_own_limit(caller: Caller) -> None:
    await put_limit(caller, "1000")  # on all usage together, and so not on a seat
    await put_limit(caller, "10", groups=BY_SEAT)
    await put_limit(caller, "100", groups=[("seat", "ann")])
    alert = await caller.create(usage_alert(thresholds=percent("80"), groups=BY_SEAT))
    answer = await caller.send(*(caller.event(f"e-{seat}", "50", seat=seat) for seat in ("ann", "bob", "cid")))
    assert [(one.gauge.group[0].value, one.level, one.gauge.limit) for one in answer.transitions] == [
        ("bob", "8", "10"),
        ("cid", "8", "10"),
    ]
    await put_limit(caller, "40", groups=[("seat", "cid")])  # still above its level
    await put_limit(caller, "", groups=[("seat", "ann")])  # the limit of each seat applies now
    assert sorted(await notified(caller, alert)) == [("REACHED", "8")] * 3
    await put_limit(caller, "80", groups=[("seat", "cid")])
    assert sorted(await notified(caller, alert)) == [("REACHED", "8")] * 3 + [("RESOLVED", "64")]
    await put_limit(caller, "", groups=BY_SEAT)
    assert sorted(await notified(caller, alert))[4:] == [("RESOLVED", "8")] * 2
    state = await caller.state(alert.alert_id)
    limits = {gauge.gauge.group[0].value: gauge.gauge.limit for gauge in state.gauges}
    assert limits == {"ann": "", "bob": "", "cid": "80"}


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


async def test_threshold_override_can_be_a_percentage(caller: Caller) -> None:
    condition = condition_pb2.CostExceededCondition(currency="USD", grouping_keys=["seat"])
    ann = filter_pb2.GroupSelector(key="seat", value="ann")
    condition.threshold_overrides.add(group_values=[ann], thresholds=percent("50"))
    wanted = alert_pb2.Alert(display_name="cost", scope=on_plan("gold"), cost_exceeded=condition)
    wanted.thresholds.add(value="80")
    alert = await caller.create(wanted)
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="acme", subscription_id="pro", plan_id="gold")
    )
    for seat in ("ann", "bob"):
        event = caller.event(f"e-{seat}", cost="60", currency="USD", subscription="pro", seat=seat)
        assert not (await caller.send(event)).transitions
    await put_limit(caller, "100", currency="USD", groups=BY_SEAT)
    assert await notified(caller, alert) == [("REACHED", "50")]


async def test_changed_limit_does_not_evaluate_alerts_without_percentages(caller: Caller) -> None:
    plain = await caller.create(usage_alert("50", "95"))
    alert = await caller.create(usage_alert(thresholds=[*percent("80"), threshold_pb2.Threshold(value="70")]))
    await caller.send(caller.event("e1", "90"))
    before = await caller.state(plain.alert_id)
    for amount in ("100", "1000", ""):
        await put_limit(caller, amount)
    assert await notified(caller, alert) == [("REACHED", "70"), ("REACHED", "80"), ("RESOLVED", "800")]
    assert await notified(caller, plain) == [("REACHED", "50")]
    assert await caller.state(plain.alert_id) == before
    answer = await caller.send(caller.event("e2", "5"))
    assert [one.level for one in shortened(answer.transitions)] == ["95"]
    assert [one.gauge.limit for one in answer.transitions] == [""]


async def test_percentage_threshold_resolves_at_a_percentage(caller: Caller) -> None:
    await put_limit(caller, "1000")
    alert = await caller.create(usage_alert(thresholds=percent("80", resolve="70")))
    for number, amount in enumerate(("800", "-99", "-1", "99")):
        await caller.send(caller.event(f"e{number}", amount))
    expected = [("REACHED", "800"), ("RESOLVED", "800")]
    assert await notified(caller, alert) == expected
    [shown] = (await caller.state(alert.alert_id)).gauges[0].thresholds
    assert (shown.threshold.percent_of_limit, shown.threshold.resolve_value) == ("80", "70")
    await put_limit(caller, "900")
    expected.append(("REACHED", "720"))
    assert await notified(caller, alert) == expected
    await put_limit(caller, "1100")  # 799 is below the level of 880 and above the resolve value of 770
    assert await notified(caller, alert) == expected
    await put_limit(caller, "1200")
    assert await notified(caller, alert) == [*expected, ("RESOLVED", "960")]


async def test_silently_reached_percentage_threshold_stays_silent(caller: Caller) -> None:
    await put_limit(caller, "100")
    await caller.send(caller.event("e1", "90"))
    alert = await caller.create(usage_alert(thresholds=percent("80", "100")), evaluate=False)
    await put_limit(caller, "90")
    assert await notified(caller, alert) == [("REACHED", "90")]
    await put_limit(caller, "1000")
    assert await notified(caller, alert) == [("REACHED", "90"), ("RESOLVED", "1000")]


async def test_update_alert_replaces_percentage_thresholds(caller: Caller) -> None:
    await put_limit(caller, "100")
    alert = await caller.create(usage_alert(thresholds=percent("80")))
    await caller.send(caller.event("e1", "85"))

    async def edit(replacement: list[threshold_pb2.Threshold]) -> list[tuple[str, str]]:
        changed = alert_pb2.Alert(alert_id=alert.alert_id, thresholds=replacement)
        request = alert_service_pb2.UpdateAlertRequest(alert=changed)
        await caller.alerts.UpdateAlert(request, metadata=caller.metadata)
        await caller.backfilled(alert.alert_id)
        return await notified(caller, alert)

    expected = [("REACHED", "80")]
    assert await edit(percent("80", "90", resolve="10")) == expected
    expected += [("RESOLVED", "80"), ("REACHED", "50")]
    assert sorted(await edit(percent("50"))) == sorted(expected)
    expected += [("RESOLVED", "50"), ("REACHED", "50")]  # a fixed value is another threshold, even at the same level
    assert sorted(await edit([threshold_pb2.Threshold(value="50", notify_on=BOTH)])) == sorted(expected)
    await put_limit(caller, "1")
    assert len(await notified(caller, alert)) == len(expected)


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

"""Warnings of unknown ids: the alert is nevertheless created or changed, and the answer names each id."""

from collections.abc import Iterable

from google.protobuf import field_mask_pb2

from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_pb2,
    limit_pb2,
    metric_pb2,
    plan_pb2,
    scope_pb2,
    subscription_pb2,
    threshold_pb2,
    warning_pb2,
)
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller, on_customer_plan, thresholds, usage_alert

pytestmark = shares_server

Warned = tuple[str, str, str]  # reason, path and id


def warned(warnings: Iterable[warning_pb2.Warning]) -> list[Warned]:
    """The warnings without their texts; each text names the unknown id."""
    found = []
    for one in warnings:
        assert one.unknown_id in one.message
        reason = warning_pb2.WarningReason.Name(one.reason).removeprefix("WARNING_REASON_")
        found.append((reason, one.field, one.unknown_id))
    return found


async def warnings_of(caller: Caller, alert: alert_pb2.Alert, request_id: str = "") -> list[Warned]:
    """Creates an alert; returns the warnings of the answer."""
    request = alert_service_pb2.CreateAlertRequest(alert=alert, request_id=request_id)
    answer = await caller.alerts.CreateAlert(request, metadata=caller.metadata)
    assert answer.alert.alert_id
    return warned(answer.warnings)


def on_plan(plan_id: str) -> scope_pb2.AlertScope:
    return scope_pb2.AlertScope(plan=scope_pb2.PlanScope(plan_id=plan_id))


def of_customer(customer_id: str) -> scope_pb2.AlertScope:
    return scope_pb2.AlertScope(customer=scope_pb2.CustomerScope(customer_id=customer_id))


def of_subscription(customer_id: str, subscription_id: str, metric_id: str) -> alert_pb2.Alert:
    scope = scope_pb2.SubscriptionScope(customer_id=customer_id, subscription_id=subscription_id)
    return alert_pb2.Alert(
        display_name="subscription",
        scope=scope_pb2.AlertScope(subscription=scope),
        usage_exceeded=condition_pb2.UsageExceededCondition(metric_id=metric_id),
        thresholds=thresholds("1"),
    )


async def put_limit(caller: Caller, amount: str) -> list[Warned]:
    limit = limit_pb2.Limit(
        limit_id="limit",
        customer=scope_pb2.CustomerScope(customer_id="acme"),
        quantity=access_pb2.QuantityAccess(metric_id="calls"),
        amount=amount,
    )
    request = account_service_pb2.PutLimitRequest(limit=limit)
    return warned((await caller.accounts.PutLimit(request, metadata=caller.metadata)).warnings)


async def test_create_alert_warns_of_an_unknown_metric_until_usage_or_a_put_names_it(caller: Caller) -> None:
    await caller.send(caller.event("e1"))
    assert await warnings_of(caller, usage_alert("5")) == []
    misspelt = ("METRIC_UNKNOWN", "alert.usage_threshold_reached.metric_id", "cals")
    assert await warnings_of(caller, usage_alert("5", metric="cals")) == [misspelt]
    # An alert that names the metric does not make it known.
    assert await warnings_of(caller, usage_alert("6", metric="cals")) == [misspelt]
    answer = await caller.send(caller.event("e2", "5", metric="cals"))
    assert [one.level for one in answer.transitions] == ["5"]
    assert await warnings_of(caller, usage_alert("7", metric="cals")) == []
    await caller.put_metric("put", metric_pb2.AGGREGATION_MAX)
    assert await warnings_of(caller, usage_alert("8", metric="put")) == []


async def test_metric_of_another_organization_is_unknown(caller: Caller) -> None:
    await caller.rows(
        "INSERT INTO organization (name, create_time) VALUES (%(name)s, now()) RETURNING 1",
        name=f"beside {caller.organization}",
    )
    await caller.rows(
        "INSERT INTO metric (organization_id, metric_id, aggregation, create_time, update_time, changed_epoch)"
        " SELECT organization_id, 'theirs', 'SUM', now(), now(), 0 FROM organization WHERE name = %(name)s"
        " RETURNING 1",
        name=f"beside {caller.organization}",
    )
    assert [one[0] for one in await warnings_of(caller, usage_alert("5", metric="theirs"))] == ["METRIC_UNKNOWN"]


async def test_plan_is_known_after_a_put_or_when_a_customer_or_subscription_is_on_it(caller: Caller) -> None:
    await caller.send(caller.event("e1"))
    for plan in ("put", "of a customer", "of a subscription"):
        expected = [("PLAN_UNKNOWN", "alert.scope.plan.plan_id", plan)]
        assert await warnings_of(caller, usage_alert("5", scope=on_plan(plan))) == expected
    await caller.accounts.PutPlan(
        account_service_pb2.PutPlanRequest(plan=plan_pb2.Plan(plan_id="put")), metadata=caller.metadata
    )
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="of a customer"))
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="acme", subscription_id="pro", plan_id="of a subscription")
    )
    for plan in ("put", "of a customer", "of a subscription"):
        assert await warnings_of(caller, usage_alert("5", scope=on_plan(plan))) == []


async def test_customer_and_plan_of_one_scope_are_warned_of_separately(caller: Caller) -> None:
    alert = usage_alert("5", scope=on_customer_plan("acme", "gold"))
    customer = ("CUSTOMER_UNKNOWN", "alert.scope.customer_plan.customer_id", "acme")
    plan = ("PLAN_UNKNOWN", "alert.scope.customer_plan.plan_id", "gold")
    assert await warnings_of(caller, alert) == [
        plan,
        customer,
        ("METRIC_UNKNOWN", "alert.usage_threshold_reached.metric_id", "calls"),
    ]
    await caller.send(caller.event("e1"))
    assert await warnings_of(caller, alert) == [plan]
    await caller.put_customer(customer_pb2.Customer(customer_id="other", plan_id="gold"))
    assert await warnings_of(caller, alert) == []


async def test_customer_and_subscription_are_known_after_usage_names_them(caller: Caller) -> None:
    assert await warnings_of(caller, usage_alert("5", scope=of_customer("acme"))) == [
        ("CUSTOMER_UNKNOWN", "alert.scope.customer.customer_id", "acme"),
        ("METRIC_UNKNOWN", "alert.usage_threshold_reached.metric_id", "calls"),
    ]
    held = condition_pb2.LowRemainingCommitBalanceReachedCondition(
        quantity=access_pb2.QuantityAccess(metric_id="seats")
    )
    balance = alert_pb2.Alert(
        display_name="b",
        scope=of_customer("acme"),
        low_remaining_commit_balance_reached=held,
        thresholds=thresholds("5"),
    )
    assert await warnings_of(caller, balance) == [
        ("CUSTOMER_UNKNOWN", "alert.scope.customer.customer_id", "acme"),
        ("METRIC_UNKNOWN", "alert.low_remaining_commit_balance_reached.quantity.metric_id", "seats"),
    ]
    assert await warnings_of(caller, of_subscription("acme", "pro", "seats")) == [
        ("CUSTOMER_UNKNOWN", "alert.scope.subscription.customer_id", "acme"),
        ("SUBSCRIPTION_UNKNOWN", "alert.scope.subscription.subscription_id", "pro"),
        ("METRIC_UNKNOWN", "alert.usage_exceeded.metric_id", "seats"),
    ]
    await caller.send(caller.event("e1", subscription="pro"))
    assert await warnings_of(caller, usage_alert("5", scope=of_customer("acme"))) == []
    assert await warnings_of(caller, of_subscription("acme", "pro", "calls")) == []
    assert await warnings_of(caller, of_subscription("acme", "prop", "calls")) == [
        ("SUBSCRIPTION_UNKNOWN", "alert.scope.subscription.subscription_id", "prop")
    ]


async def test_percentage_threshold_without_a_limit_is_warned_of(caller: Caller) -> None:
    await caller.send(caller.event("e1"))
    chosen = [threshold_pb2.Threshold(value="1"), threshold_pb2.Threshold(percent_of_limit="80")]
    expected = [("LIMIT_UNKNOWN", "alert.thresholds[1].percent_of_limit", "calls")]
    assert await warnings_of(caller, usage_alert(thresholds=chosen)) == expected
    await put_limit(caller, "100")
    assert await warnings_of(caller, usage_alert(thresholds=chosen)) == []
    await put_limit(caller, "")
    assert await warnings_of(caller, usage_alert(thresholds=chosen)) == expected
    spend = alert_pb2.Alert(
        display_name="spend",
        scope=of_customer("acme"),
        spend_threshold_reached=condition_pb2.SpendThresholdReachedCondition(currency="EUR"),
        thresholds=chosen[1:],
    )
    assert await warnings_of(caller, spend) == [("LIMIT_UNKNOWN", "alert.thresholds[0].percent_of_limit", "EUR")]


async def test_repeated_request_gets_the_warnings_of_the_first_answer(caller: Caller) -> None:
    expected = [("METRIC_UNKNOWN", "alert.usage_threshold_reached.metric_id", "calls")]
    assert await warnings_of(caller, usage_alert("5"), "request") == expected
    await caller.send(caller.event("e1"))
    assert await warnings_of(caller, usage_alert("5"), "request") == expected


async def test_update_alert_warns_of_ids_that_are_unknown_at_the_update(caller: Caller) -> None:
    created = await caller.create_only(usage_alert("5"))

    async def edited(*changed: threshold_pb2.Threshold) -> list[Warned]:
        request = alert_service_pb2.UpdateAlertRequest(
            alert=alert_pb2.Alert(alert_id=created.alert_id, thresholds=changed),
            update_mask=field_mask_pb2.FieldMask(paths=["thresholds"]),
        )
        answer = await caller.alerts.UpdateAlert(request, metadata=caller.metadata)
        return warned(answer.warnings)

    assert await edited(*thresholds("6")) == [("METRIC_UNKNOWN", "alert.usage_threshold_reached.metric_id", "calls")]
    await caller.send(caller.event("e1"))
    assert await edited(*thresholds("7")) == []
    assert await edited(threshold_pb2.Threshold(percent_of_limit="80")) == [
        ("LIMIT_UNKNOWN", "alert.thresholds[0].percent_of_limit", "calls")
    ]


async def test_put_limit_warns_of_an_unknown_customer_and_metric(caller: Caller) -> None:
    assert await put_limit(caller, "10") == [
        ("CUSTOMER_UNKNOWN", "limit.customer.customer_id", "acme"),
        ("METRIC_UNKNOWN", "limit.quantity.metric_id", "calls"),
    ]
    await caller.send(caller.event("e1"))
    assert await put_limit(caller, "20") == []


async def test_enable_and_disable_alert_warn_of_an_unknown_customer(caller: Caller) -> None:
    await caller.send(caller.event("e1"))
    created = await caller.create_only(usage_alert("5"))
    unknown = [("CUSTOMER_UNKNOWN", "customer_id", "acne")]
    for customer, expected in (("acne", unknown), ("acme", []), ("", [])):
        off = alert_service_pb2.DisableAlertRequest(alert_id=created.alert_id, customer_id=customer)
        assert warned((await caller.alerts.DisableAlert(off, metadata=caller.metadata)).warnings) == expected
    for customer, expected in (("acne", unknown), ("acme", []), ("", [])):
        on = alert_service_pb2.EnableAlertRequest(alert_id=created.alert_id, customer_id=customer)
        assert warned((await caller.alerts.EnableAlert(on, metadata=caller.metadata)).warnings) == expected

"""Metrics, subscriptions, plans and limits are deleted when nothing uses them, whatever usage does meanwhile."""

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from engine.facts import deletions
from engine.rules.registry import RulesRegistry
from evaluator.amounts import ZERO
from evaluator.events import UsageEvent
from evaluator.routing import Router
from generated.tidemark.v1 import account_service_pb2 as messages
from generated.tidemark.v1 import (
    alert_pb2,
    condition_pb2,
    customer_pb2,
    limit_pb2,
    metric_pb2,
    plan_pb2,
    subscription_pb2,
    threshold_pb2,
    usage_pb2,
)
from runtime.clock import ManualClock
from store.accounts import deletions as stored_deletions
from store.accounts import uses
from store.accounts.deletions import FactKey, FactKind
from store.identity import organizations
from store.postgres.database import Connection, Database
from tests.support.balances.holder import Holder
from tests.support.facts.refusals import assert_refused, assert_violations
from tests.support.server.running import metadata_of, reason_of
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import BOTH, Caller, beside, on_plan, on_subscription, thresholds, until, usage_alert
from tests.support.usage.organizations import create_organization

pytestmark = shares_server


NOT_FOUND = grpc.StatusCode.NOT_FOUND
SUM, MAX = metric_pb2.AGGREGATION_SUM, metric_pb2.AGGREGATION_MAX


async def delete(caller: Caller, noun: str, **fields: Any) -> None:
    request = getattr(messages, f"Delete{noun}Request")(**fields)
    await getattr(caller.accounts, f"Delete{noun}")(request, metadata=caller.metadata)


async def get(caller: Caller, noun: str, **ids: str) -> Any:
    request = getattr(messages, f"Get{noun}Request")(**ids)
    answer = await getattr(caller.accounts, f"Get{noun}")(request, metadata=caller.metadata)
    return getattr(answer, noun.lower())


async def assert_used(caller: Caller, noun: str, by: str, by_id: str = "", **ids: str) -> None:
    """The deletion is refused, also with validate_only, and changes nothing."""
    before = await get(caller, noun, **ids)
    for validate_only in (True, False):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await delete(caller, noun, **ids, validate_only=validate_only)
        assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert reason_of(raised.value) == "ERROR_REASON_IN_USE"
        expected = {**ids, "used_by": by} | ({"used_by_id": by_id} if by_id else {})
        assert metadata_of(raised.value) == expected
    assert await get(caller, noun, **ids) == before


async def assert_gone(caller: Caller, noun: str, **ids: str) -> None:
    """The deletion is made: once, and again with allow_missing."""
    await delete(caller, noun, **ids, validate_only=True)
    await get(caller, noun, **ids)
    await delete(caller, noun, **ids)
    await assert_refused(get(caller, noun, **ids), NOT_FOUND, f"{noun.upper()}_NOT_FOUND")
    await assert_refused(delete(caller, noun, **ids), NOT_FOUND, f"{noun.upper()}_NOT_FOUND")
    await delete(caller, noun, **ids, allow_missing=True)


async def put_limit(caller: Caller, limit_id: str, amount: str, **of: str) -> None:
    limit = limit_pb2.Limit(limit_id=limit_id, amount=amount)
    if "plan" in of:
        limit.plan.plan_id = of["plan"]
    else:
        limit.customer.customer_id = of["customer"]
    limit.quantity.metric_id = of.get("metric", "calls")
    await caller.accounts.PutLimit(messages.PutLimitRequest(limit=limit), metadata=caller.metadata)


async def forget_events(caller: Caller) -> None:
    """Removes the stored events of the organization, as their retention does."""
    await caller.rows("DELETE FROM event WHERE organization_id = %(organization_id)s RETURNING 1")


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


async def only_alert(caller: Caller) -> str:
    [[alert_id]] = await caller.rows("SELECT alert_id FROM alert WHERE organization_id = %(organization_id)s")
    return str(alert_id)


@own_server
async def test_usage_during_a_deletion_keeps_the_metric(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    await caller.put_metric("calls", MAX)
    await caller.send(caller.event("e1", "3"))
    await forget_events(caller)
    checks = 0

    async def checked(connection: Connection, organization_id: int, metric_id: str) -> bool:
        nonlocal checks
        checks += 1
        found = await uses.metric_by_usage(connection, organization_id, metric_id)
        if checks == 2:  # after the deletion began, and too late for this check
            await caller.send(caller.event("e2", "4"))
        return found

    monkeypatch.setattr(deletions, "uses", SimpleNamespace(**vars(uses) | {"metric_by_usage": checked}))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await delete(caller, "Metric", metric_id="calls")
    assert metadata_of(raised.value) == {"metric_id": "calls", "used_by": "USAGE"}
    assert checks == 2
    assert (await get(caller, "Metric", metric_id="calls")).aggregation == MAX
    assert await caller.event_count() == 1


@own_server
async def test_an_alert_that_is_created_during_a_deletion_keeps_the_metric(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await caller.put_metric("calls", MAX)
    checks = 0

    async def checked(connection: Connection, organization_id: int, metric_id: str) -> bool:
        nonlocal checks
        checks += 1
        if checks == 2:
            await caller.create_only(usage_alert("10"))
        return await uses.metric_by_usage(connection, organization_id, metric_id)

    monkeypatch.setattr(deletions, "uses", SimpleNamespace(**vars(uses) | {"metric_by_usage": checked}))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await delete(caller, "Metric", metric_id="calls")
    assert metadata_of(raised.value)["used_by"] == "ALERT"
    assert (await get(caller, "Metric", metric_id="calls")).aggregation == MAX


@own_server
async def test_raw_events_count_in_a_metric_that_an_alert_kept_from_being_deleted(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = metric_pb2.Metric(metric_id="calls", event_name="call")
    await caller.accounts.PutMetric(messages.PutMetricRequest(metric=metric), metadata=caller.metadata)

    def raw(event_id: str) -> usage_pb2.UsageEvent:
        event = caller.event(event_id, "5", metric="")
        event.event_name = "call"
        return event

    async with beside(caller) as other:
        for one in (caller, other):  # both know the metric from now on
            await one.send(raw(f"before {id(one)}"))
        checks = 0

        async def checked(connection: Connection, organization_id: int, metric_id: str) -> bool:
            nonlocal checks
            checks += 1
            if checks == 2:  # after the deletion began
                for one in (caller, other):
                    await one.send(raw(f"meanwhile {id(one)}"))
                await caller.create(usage_alert("25"))
            return await uses.metric_by_usage(connection, organization_id, metric_id)

        monkeypatch.setattr(deletions, "uses", SimpleNamespace(**vars(uses) | {"metric_by_usage": checked}))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await delete(caller, "Metric", metric_id="calls")
        assert metadata_of(raised.value)["used_by"] == "ALERT"
        [reached] = (await other.send(raw("after"), gauges=True)).transitions
        assert reached.value == "25"
        assert [gauge.value for gauge in (await caller.send(raw("last"), gauges=True)).gauges] == ["30"]


async def test_deletions_beside_usage_never_leave_events_without_their_metric_and_subscription(
    caller: Caller,
) -> None:
    async with beside(caller) as other:
        for number in range(12):
            metric, subscription = f"m{number}", f"s{number}"
            await caller.put_metric(metric, MAX)
            await caller.put_subscription(
                subscription_pb2.Subscription(customer_id="acme", subscription_id=subscription, plan_id="gold")
            )
            calls = (
                delete(caller, "Metric", metric_id=metric),
                delete(other, "Subscription", customer_id="acme", subscription_id=subscription),
                caller.send(caller.event(f"a{number}", "3", metric=metric, subscription=subscription)),
                other.send(caller.event(f"b{number}", "4", metric=metric, subscription=subscription)),
            )
            of_metric, of_subscription, *sent = await asyncio.gather(*calls, return_exceptions=True)
            assert not any(isinstance(one, BaseException) for one in sent)
            for refused in (of_metric, of_subscription):
                if refused is not None:
                    assert isinstance(refused, grpc.aio.AioRpcError)
                    assert reason_of(refused) == "ERROR_REASON_IN_USE"
            aggregation = (await get(caller, "Metric", metric_id=metric)).aggregation
            assert aggregation == (SUM if of_metric is None else MAX)
            kept = await get(caller, "Subscription", customer_id="acme", subscription_id=subscription)
            assert kept.plan_id == ("" if of_subscription is None else "gold")


async def test_a_rolled_back_transaction_cancels_no_deletion_and_the_next_one_does(
    caller: Caller, clock: ManualClock
) -> None:
    await caller.put_metric("calls", MAX)
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    database = Database(caller.database_url, pool_size=1)
    rules, key = RulesRegistry().of(organization_id), FactKey(FactKind.METRIC, "calls")
    async with database.transaction() as connection:
        begun = await stored_deletions.begin(connection, organization_id, key)
    event = UsageEvent("e", "acme", clock.now(), "calls", ZERO, None, None, None, {})
    for attempt in range(2):
        async with database.transaction() as connection:
            epoch = await organizations.lock_shared(connection, organization_id)
            router = await rules.router(connection, epoch)
            created = rules.begin()
            await rules.load_facts(connection, router, [event], clock.now(), created)
            assert router.metrics["calls"].aggregation == "MAX"
            if attempt == 0:
                await connection.rollback()
        if attempt == 0:
            rules.rolled_back(router, created)
        else:
            rules.committed(created)
        async with database.transaction() as connection:
            noted = await stored_deletions.is_noted(connection, organization_id, key, begun)
        assert noted == (attempt == 0)
    await database.close()


@pytest.mark.parametrize("deleting", [True, False], ids=["deleting", "new"])
async def test_a_commit_beside_one_that_rolls_back_keeps_the_metric_itself(
    caller: Caller, clock: ManualClock, deleting: bool
) -> None:
    """Both name a metric that is being deleted, or that is new."""
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    database = Database(caller.database_url, pool_size=2)
    rules, key = RulesRegistry().of(organization_id), FactKey(FactKind.METRIC, "calls")
    if deleting:
        await caller.put_metric("calls", MAX)
        async with database.transaction() as connection:
            begun = await stored_deletions.begin(connection, organization_id, key)
    loaded, rolled_back = asyncio.Event(), asyncio.Event()

    async def commit(customer: str, rolls_back: bool) -> Router:
        registered = rules.begin()
        async with database.transaction() as connection:
            router = await rules.router(connection, await organizations.lock_shared(connection, organization_id))
            if not rolls_back:
                await loaded.wait()
            event = UsageEvent("e", customer, clock.now(), "calls", ZERO, None, None, None, {})
            loading = asyncio.ensure_future(rules.load_facts(connection, router, [event], clock.now(), registered))
            if rolls_back:
                await loading
                loaded.set()
                await connection.rollback()
                rules.rolled_back(router, registered)
                rolled_back.set()
            else:
                await rolled_back.wait()
                await loading
        rules.committed(registered)
        return router

    router, _ = await asyncio.gather(commit("beta", rolls_back=False), commit("acme", rolls_back=True))
    if deleting:
        facts = router.metric("calls")
        assert facts is not None
        assert facts.aggregation == "MAX"
        async with database.transaction() as connection:
            assert not await stored_deletions.is_noted(connection, organization_id, key, begun)
    assert (await get(caller, "Metric", metric_id="calls")).aggregation == (MAX if deleting else SUM)
    await database.close()


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

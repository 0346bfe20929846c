"""Deletions of metrics and subscriptions while usage and new alerts name them."""

import asyncio
from types import SimpleNamespace

import grpc
import pytest

from engine.facts import deletions
from engine.rules.registry import RulesRegistry
from evaluator.amounts import ZERO
from evaluator.events import UsageEvent
from evaluator.routing import Router
from generated.tidemark.v1 import account_service_pb2 as messages
from generated.tidemark.v1 import (
    metric_pb2,
    subscription_pb2,
    usage_pb2,
)
from runtime.clock import ManualClock
from store.accounts import deletions as stored_deletions
from store.accounts import uses
from store.accounts.deletions import FactKey, FactKind
from store.identity import organizations
from store.postgres.database import Connection, Database
from tests.support.server.running import metadata_of, reason_of
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import Caller, beside, usage_alert
from tests.support.usage.deleting import MAX, SUM, delete, forget_events, get

pytestmark = shares_server


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

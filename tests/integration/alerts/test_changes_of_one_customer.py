"""A change for one customer or subscription does not change others, also those with the same ids."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import grpc
import pytest

from evaluator.alert_commands import NewAlert
from evaluator.alerts import ConditionType, Scope, ScopeKind
from evaluator.definitions import MAX_SPEND_ALERTS, Condition
from evaluator.exclusions import Excluded
from evaluator.thresholds import Threshold
from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    alert_pb2,
    balance_pb2,
    condition_pb2,
    customer_alert_pb2,
    scope_pb2,
    subscription_pb2,
)
from generated.tidemark.v1 import alert_service_pb2 as messages
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.accounts import known_ids
from store.accounts.known_ids import ReferencedIds
from store.alerts import exclusions
from store.alerts.exclusions import Groups, NewGroups
from store.identity import organizations
from store.postgres.database import Database, driver
from tests.support.alerts.stored import create
from tests.support.server.running import reason_of
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import Caller, on_subscription, thresholds, usage_alert

pytestmark = shares_server


async def subscribe(caller: Caller, *pairs: tuple[str, str]) -> None:
    """Puts subscriptions."""
    for customer, subscription in pairs:
        await caller.put_subscription(
            subscription_pb2.Subscription(customer_id=customer, subscription_id=subscription)
        )


def spend_exceeded(currency: str, scope: scope_pb2.AlertScope) -> alert_pb2.Alert:
    """An alert of the type whose number is limited for each subscription."""
    return alert_pb2.Alert(
        display_name=currency,
        scope=scope,
        spend_exceeded=condition_pb2.SpendExceededCondition(currency=currency),
        thresholds=thresholds("10"),
    )


async def create_spend_alerts(caller: Caller, number: int, customer: str, subscription: str) -> None:
    """Stores that many alerts on one subscription, each in a currency of its own."""
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s::bigint")
    scope = Scope(ScopeKind.SUBSCRIPTION, customer_id=customer, subscription_id=subscription)
    conditions = [Condition(ConditionType.SPEND_EXCEEDED, currency=f"C{each}") for each in range(number)]
    database = Database(caller.database_url, pool_size=1)
    try:
        async with database.transaction() as connection:
            for condition in conditions:
                new = NewAlert("spend", scope, condition, (Threshold(Decimal(10)),), None, True)
                await create(connection, organization_id, caller.clock, new)
    finally:
        await database.close()


async def test_the_limit_of_spend_alerts_counts_each_subscription_separately(caller: Caller) -> None:
    for customer, subscription in (("ann", "s1"), ("bob", "s1"), ("ann", "s2")):
        await create_spend_alerts(caller, MAX_SPEND_ALERTS - 1, customer, subscription)
        scope = on_subscription(subscription, customer)
        await caller.create_only(spend_exceeded("USD", scope))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.create_only(spend_exceeded("EUR", scope))
        assert reason_of(refused.value) == "ERROR_REASON_TOO_MANY_ALERTS"


async def test_enable_for_one_of_two_disabled_subscriptions_evaluates_only_that_one(caller: Caller) -> None:
    await subscribe(caller, ("ann", "s1"), ("ann", "s2"))
    alert = alert_pb2.Alert(
        display_name="usage",
        scope=scope_pb2.AlertScope(plan=scope_pb2.PlanScope(plan_id="gold")),
        usage_exceeded=condition_pb2.UsageExceededCondition(metric_id="calls"),
        thresholds=thresholds("10"),
    )
    for subscription in ("s1", "s2"):
        await caller.put_subscription(
            subscription_pb2.Subscription(customer_id="ann", subscription_id=subscription, plan_id="gold")
        )
    alert_id = (await caller.create(alert)).alert_id

    async def switch(method: str, subscription: str) -> None:
        request = {"alert_id": alert_id, "customer_id": "ann", "subscription_id": subscription}
        call = getattr(caller.alerts, f"{method}Alert")
        await call(getattr(messages, f"{method}AlertRequest")(**request), metadata=caller.metadata)

    async def reached() -> Sequence[str]:
        return [one.body["data"]["gauge"]["subscription_id"] for one in await caller.evaluations()]

    await switch("Disable", "s1")
    # One of two subscriptions is disabled: the alert is evaluated for the customer.
    shown = await caller.state(alert_id, "ann")
    assert shown.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK
    assert shown.disabled_reason == customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_NONE
    await switch("Disable", "s2")
    shown = await caller.state(alert_id, "ann")
    assert shown.disabled_reason == customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_REQUESTED
    await switch("Enable", "s1")
    await caller.send(
        *(caller.event(f"e-{subscription}", "20", "ann", subscription=subscription) for subscription in ("s1", "s2"))
    )
    assert await reached() == ["s1"]


@own_server
async def test_enable_for_one_customer_changes_no_other_customer(caller: Caller, clock: ManualClock) -> None:
    alert_id = (await caller.create(usage_alert("10"))).alert_id
    await caller.send(caller.event("e1", customer="ann"), caller.event("e1", customer="bob"))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s::bigint")
    groups = {who: Groups(who, alert_id, None, datetime(2026, 3, 1, tzinfo=UTC)) for who in ("ann", "bob")}
    database = Database(caller.database_url, pool_size=1)

    async def counted() -> dict[str, int]:
        rows = await caller.rows(
            "SELECT customer_id, groups FROM group_count WHERE organization_id = %(organization_id)s"
        )
        return {row[0]: row[1] for row in rows}

    customers = "SELECT * FROM customer WHERE organization_id = %(organization_id)s AND customer_id = 'bob'"
    try:
        async with database.transaction() as connection:
            await exclusions.count(
                await driver(connection), organization_id, [NewGroups(group, 1, 7) for group in groups.values()]
            )
        before = await caller.rows(customers)
        clock.advance(clock.now() - clock.now().replace(hour=11))
        async with database.transaction() as connection:
            epoch = await organizations.begin_change(connection, organization_id)
            for who in ("ann", "bob"):
                excluded = Excluded(who, alert_id, None)
                assert await exclusions.request(connection, organization_id, excluded, "", epoch, clock.now())
        async with database.transaction() as connection:
            epoch = await organizations.begin_change(connection, organization_id)
            await exclusions.lift(connection, organization_id, Excluded("ann", alert_id, None), epoch, clock.now())
            left = await exclusions.of_customers(await driver(connection), organization_id, ["ann", "bob"])
        assert left == {Excluded("bob", alert_id, None)}
        assert await counted() == {"bob": 7}
        changed = await caller.rows(customers)
        assert changed != before
        async with database.transaction() as connection:
            epoch = await organizations.begin_change(connection, organization_id)
            excluded = Excluded("ann", alert_id, None)
            await exclusions.request(connection, organization_id, excluded, "", epoch, clock.now())
        assert await caller.rows(customers) == changed
    finally:
        await database.close()


async def test_two_customers_can_use_the_same_adjustment_id(caller: Caller) -> None:
    for number, customer in enumerate(("ann", "bob"), start=1):
        sent = balance_pb2.Balance(
            balance_id="b1",
            customer_id=customer,
            kind=balance_pb2.BALANCE_KIND_COMMIT,
            spend=access_pb2.SpendAccess(currency="USD"),
            segments=[balance_pb2.BalanceSegment(amount="100", start_time=to_timestamp(caller.clock.now()))],
        )
        await caller.accounts.PutBalance(
            account_service_pb2.PutBalanceRequest(balance=sent), metadata=caller.metadata
        )
        adjusted = await caller.accounts.AdjustBalance(
            account_service_pb2.AdjustBalanceRequest(
                customer_id=customer, balance_id="b1", adjustment_id="a1", amount=str(number)
            ),
            metadata=caller.metadata,
        )
        assert (adjusted.replayed, adjusted.balance.remaining) == (False, str(100 + number))


@own_server
async def test_a_subscription_id_is_unknown_for_another_customer(caller: Caller) -> None:
    await subscribe(caller, ("ann", "s1"), ("bob", "s2"))
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s::bigint")
    database = Database(caller.database_url, pool_size=1)
    async with database.transaction() as connection:
        own = await known_ids.unknown(
            connection, organization_id, ReferencedIds(customer_id="ann", subscription_id="s1")
        )
        others = await known_ids.unknown(
            connection, organization_id, ReferencedIds(customer_id="bob", subscription_id="s1")
        )
    await database.close()
    assert (own, others) == (ReferencedIds(), ReferencedIds(subscription_id="s1"))

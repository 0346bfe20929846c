"""The group limit: above it an alert is disabled for that customer, and a notification states the reason."""

import asyncio
import json
from datetime import timedelta

import pytest

from engine.limits import EngineLimits
from evaluator.exclusions import Excluded, ExclusionReason
from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_alert_pb2,
    subscription_pb2,
    usage_pb2,
)
from generated.tidemark.v1.event_type_pb2 import EVENT_TYPE_ALERT_DISABLED
from runtime.clock import ManualClock
from store.alerts import exclusions
from store.identity import organizations
from store.postgres.database import Database, driver
from tests.support.schemas import check, schema
from tests.support.usage.caller import (
    DEADLINE,
    Caller,
    Stored,
    beside,
    on_plan,
    on_subscription,
    spend_alert,
    thresholds,
    usage_alert,
    values,
)

LIMIT = 3
DISABLED = schema("alert_disabled")


# A limit that a test reaches with a few groups.
LOW = EngineLimits(groups=LIMIT)
low_limit = pytest.mark.parametrize("engine_limits", [LOW], ids=[pytest.HIDDEN_PARAM])


async def use(
    caller: Caller, *seats: str, customer: str = "acme", quantity: str = "1", prefix: str = "e"
) -> list[str]:
    """Sends one event for each seat in one batch; returns the seats of the transitions."""
    events = [
        caller.event(f"{prefix}-{place}-{seat}", quantity, customer, cost=quantity, seat=seat)
        for place, seat in enumerate(seats)
    ]
    answer = await caller.send(*events)
    assert answer.accepted == len(events)
    return [one.gauge.group[0].value for one in answer.transitions]


async def disabled(caller: Caller) -> list[Stored]:
    """The notifications of disabled alerts; each conforms to its schema."""
    found = [one for one in await caller.notifications() if one.event_type == "alert.disabled"]
    for one in found:
        check(one.body, DISABLED)
    return found


async def gauge_count(caller: Caller) -> int:
    [[number]] = await caller.rows("SELECT count(*) FROM gauge WHERE organization_id = %(organization_id)s")
    return int(number)


async def is_disabled(caller: Caller, alert: alert_pb2.Alert, customer: str = "acme") -> bool:
    state = await caller.state(alert.alert_id, customer)
    if state.disabled_reason == customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_NONE:
        assert state.status != customer_alert_pb2.CUSTOMER_ALERT_STATUS_NOT_EVALUATED
        return False
    assert state.disabled_reason == customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_GROUP_LIMIT
    assert state.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_NOT_EVALUATED
    assert not state.gauges
    assert not state.no_data
    return True


async def test_5001st_group_disables_the_alert_and_the_5000th_does_not(caller: Caller) -> None:
    alert = await caller.create(usage_alert("10", groups=[("seat", None)]))
    for start in range(0, 5_000, 1_000):
        await use(caller, *(f"s{number}" for number in range(start, start + 1_000)))
    assert not await is_disabled(caller, alert)
    assert await use(caller, "s0", "s4999", quantity="9", prefix="f") == ["s0", "s4999"]
    assert not await disabled(caller)
    assert await use(caller, "s5000", quantity="10") == []
    assert await is_disabled(caller, alert)
    [stored] = await disabled(caller)
    assert stored.body["data"]["limit"] == 5_000
    assert stored.body["data"]["group"] == [{"key": "seat", "value": "s5000"}]


@low_limit
async def test_group_limit_disables_the_alert_for_one_customer_and_states_the_reason(caller: Caller) -> None:
    alert = await caller.create(usage_alert("10", groups=[("seat", None)]))
    for _ in range(2):
        await use(caller, "a", "b", "c", "a", prefix=f"again{_}")
    assert not await is_disabled(caller, alert)
    assert await use(caller, "d", "b", quantity="20") == ["b"], (
        "groups from before the limit still notify in that batch"
    )
    assert await is_disabled(caller, alert)
    [stored] = await disabled(caller)
    assert stored.body["id"] == stored.notification_id
    assert stored.customer_id == "acme"
    assert (stored.alert_id, stored.sequence) == (alert.alert_id, 0)
    data = stored.body["data"]
    assert (data["reason"], data["limit"], data["event_id"]) == ("GROUP_LIMIT", LIMIT, "e-0-d")
    assert data["group"] == [{"key": "seat", "value": "d"}]
    before = await gauge_count(caller)
    assert await use(caller, "a", "d", "e", "f", quantity="100", prefix="g") == []
    assert await gauge_count(caller) == before, "no more gauges are created"
    assert await use(caller, "a", customer="beta", quantity="10") == ["a"]
    assert not await is_disabled(caller, alert, "beta")
    assert len(await disabled(caller)) == 1
    page = await caller.alerts.ListCustomerAlerts(
        alert_service_pb2.ListCustomerAlertsRequest(customer_id="acme"), metadata=caller.metadata, timeout=DEADLINE
    )
    [shown] = page.customer_alerts
    assert shown.disabled_reason == customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_GROUP_LIMIT
    listed = await caller.alerts.ListNotifications(
        alert_service_pb2.ListNotificationsRequest(event_types=[EVENT_TYPE_ALERT_DISABLED]),
        metadata=caller.metadata,
        timeout=DEADLINE,
    )
    [notification] = listed.notifications
    assert json.loads(notification.body) == stored.body
    assert (notification.customer_id, notification.sequence) == ("acme", 0)
    detail = notification.alert_disabled
    assert detail.reason == customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_GROUP_LIMIT
    assert (detail.group_limit, detail.event_id) == (LIMIT, "e-0-d")
    assert [(one.key, one.value) for one in detail.group] == [("seat", "d")]


@low_limit
async def test_first_groups_of_a_batch_notify_up_to_the_limit(caller: Caller) -> None:
    await caller.create(usage_alert("10", groups=[("seat", None)]))
    seats = ["q", "b", "z", "a", "y", "b"]
    assert await use(caller, *seats, quantity="10") == ["q", "b", "z"]
    [stored] = await disabled(caller)
    assert stored.body["data"]["group"][0]["value"] == "a"


@low_limit
@pytest.mark.parametrize("evaluate", [True, False])
async def test_groups_from_before_the_alert_count_towards_the_limit(caller: Caller, evaluate: bool) -> None:
    await use(caller, "a", "b", "c", "d", "e", quantity="10")
    await use(caller, "a", "b", "c", customer="beta", quantity="10")
    alert = await caller.create(usage_alert("10", groups=[("seat", None)]), evaluate=evaluate)
    assert await is_disabled(caller, alert)
    assert not await is_disabled(caller, alert, "beta")
    [stored] = await disabled(caller)
    assert "event_id" not in stored.body["data"]
    reached = [one.customer_id for one in await caller.notifications() if one.event_type == "alert.reached"]
    assert sorted(reached) == (["acme"] * LIMIT + ["beta"] * LIMIT if evaluate else [])


@low_limit
async def test_group_limit_counts_each_billing_period_separately(caller: Caller, clock: ManualClock) -> None:
    alert = await caller.create(usage_alert("10", groups=[("seat", None)]))
    for customer, last in (("acme", "c"), ("beta", "d")):
        await use(caller, "a", "b", last, customer=customer)
    await use(caller, "e", customer="beta")
    clock.advance(timedelta(days=31))
    await use(caller, "x", "y", "z")
    assert not await is_disabled(caller, alert)
    assert await use(caller, "w", quantity="10") == []
    assert await is_disabled(caller, alert)
    assert await use(caller, "a", customer="beta", quantity="10", prefix="f") == []
    assert await is_disabled(caller, alert, "beta"), "the alert stays disabled in the next period"


@low_limit
async def test_group_values_that_the_alert_names_do_not_count_towards_the_limit(caller: Caller) -> None:
    """Both alerts have the same group keys and share gauges; one of them names a value of each key."""
    fan = await caller.create(usage_alert("10", groups=[("seat", None), ("team", "red")]))
    named = await caller.create(usage_alert("10", groups=[("seat", "a"), ("team", "red")]))
    for number in range(LIMIT + 2):
        seat = "abcde"[number]
        await caller.send(caller.event(f"blue-{seat}", seat=seat, team="blue"))
        assert not await is_disabled(caller, fan)
    for seat in "abcd":
        await caller.send(caller.event(f"red-{seat}", seat=seat, team="red"))
    assert await is_disabled(caller, fan)
    answer = await caller.send(caller.event("last", "9", seat="a", team="red"), gauges=True)
    assert [one.alert_id for one in answer.transitions] == [named.alert_id]
    assert values(answer.gauges) == {("acme", "calls", "a", "red"): 10}


@low_limit
async def test_subscription_above_the_limit_disables_the_alert_for_its_customer(caller: Caller) -> None:
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="acme", subscription_id="pro", plan_id="gold")
    )
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="acme", subscription_id="team", plan_id="gold")
    )
    condition = condition_pb2.CostExceededCondition(grouping_keys=["seat"], currency="USD")
    wide, own = [
        await caller.create(
            alert_pb2.Alert(display_name="cost", scope=scope, cost_exceeded=condition, thresholds=thresholds("10"))
        )
        for scope in (on_plan("gold"), on_subscription("team"))
    ]

    def cost(number: int, subscription: str) -> usage_pb2.UsageEvent:
        return caller.event(f"{subscription}-{number}", cost="1", subscription=subscription, seat=f"s{number}")

    for subscription in ("pro", "team"):
        for number in range(LIMIT):
            await caller.send(cost(number, subscription))
    assert not await is_disabled(caller, wide)
    await caller.send(cost(LIMIT, "pro"))
    assert await is_disabled(caller, wide)
    assert not await is_disabled(caller, own)
    [stored] = await disabled(caller)
    assert stored.body["data"]["subscription_id"] == "pro"
    answer = await caller.send(caller.event("last", cost="9", subscription="team", seat="s0"))
    assert [one.alert_id for one in answer.transitions] == [own.alert_id]


@low_limit
async def test_replica_reads_an_exclusion_before_it_evaluates(caller: Caller) -> None:
    alert = await caller.create(usage_alert("10", groups=[("seat", None)]))
    async with beside(caller, engine_limits=LOW) as other:
        await use(other, "a", "b")
        await use(caller, "c", "d")
        assert await is_disabled(other, alert)
        assert await use(other, "a", "b", quantity="10", prefix="f") == []
        before = await gauge_count(caller)
        await use(other, "e", prefix="g")
        await use(other, "f", "g", prefix="g")
        await use(caller, "h", prefix="g")
        assert await gauge_count(caller) <= before + 1, "the first new group makes the replica read the exclusion"
    assert len(await disabled(caller)) == 1
    assert len(await caller.notifications()) == 1


@low_limit
async def test_replicas_that_reach_the_limit_together_notify_once(caller: Caller) -> None:
    await caller.create(usage_alert("10", groups=[("seat", None)]))
    await caller.create(spend_alert("10", groups=[("seat", None)]))
    async with beside(caller, engine_limits=LOW) as other:
        sends = [
            use(sender, *(f"{place}-{number}-{each}" for each in range(2)), customer=customer)
            for number in range(5)
            for place, sender in enumerate((caller, other))
            for customer in ("acme", "beta")
        ]
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*sends)
    stored = await disabled(caller)
    assert len({(one.customer_id, one.alert_id) for one in stored}) == len(stored) == 4


@low_limit
async def test_usage_that_a_disabled_alert_did_not_watch_is_recounted_for_the_next_alert(caller: Caller) -> None:
    """The second replica has not cached the exclusion, and must not take the gauge for complete."""
    async with beside(caller, engine_limits=LOW) as other:
        await caller.create(usage_alert("1000", groups=[("seat", None)]))
        await use(other, "a", "b", "c")
        await use(caller, "d")
        await use(caller, "a", quantity="5", prefix="unwatched")
        named = await caller.create_only(usage_alert("7", groups=[("seat", "a")]))
        answer = await other.send(other.event("last", seat="a"), gauges=True)
        assert values(answer.gauges) == {("acme", "calls", "a"): 7}
        assert [one.alert_id for one in answer.transitions] == [named.alert_id]


async def test_exclusion_of_one_subscription_leaves_the_others_covered(caller: Caller, clock: ManualClock) -> None:
    for subscription in ("pro", "team"):
        await caller.put_subscription(
            subscription_pb2.Subscription(customer_id="acme", subscription_id=subscription, plan_id="gold")
        )
    alert = await caller.create(
        alert_pb2.Alert(
            display_name="cost",
            scope=on_plan("gold"),
            cost_exceeded=condition_pb2.CostExceededCondition(),
            thresholds=thresholds("10", "20"),
        )
    )
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    database = Database(caller.database_url, pool_size=1)

    async def exclude(subscription: str) -> None:
        async with database.transaction() as connection:
            epoch = await organizations.begin_change(connection, organization_id)
            excluded = Excluded("acme", alert.alert_id, subscription)
            for made in ({excluded}, set()):
                raw = await driver(connection)
                requested = ExclusionReason.REQUESTED
                found = await exclusions.exclude(raw, organization_id, [excluded], requested, epoch, clock.now())
                assert found == made

    async def reached(prefix: str) -> list[str]:
        events = [caller.event(prefix + one, cost="10", subscription=one) for one in ("pro", "team")]
        return [one.gauge.subscription_id for one in (await caller.send(*events)).transitions]

    assert await reached("a") == ["pro", "team"]
    await exclude("pro")
    assert await reached("b") == ["team"]
    state = await caller.state(alert.alert_id)
    assert state.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM
    assert [one.gauge.subscription_id for one in state.gauges] == ["team"]
    await exclude("team")
    state = await caller.state(alert.alert_id)
    assert state.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_NOT_EVALUATED
    assert state.disabled_reason == customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_REQUESTED
    await database.close()


@low_limit
async def test_lifted_exclusion_counts_the_usage_of_the_meantime(caller: Caller, clock: ManualClock) -> None:
    alert = await caller.create(usage_alert("10", groups=[("seat", None)]))
    async with beside(caller, engine_limits=LOW) as other:
        await use(caller, "a", "b", "c", "d")
        await use(caller, "a", "e", quantity="5", prefix="unwatched")
        [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
        excluded = Excluded("acme", alert.alert_id, None)
        database = Database(caller.database_url, pool_size=1)
        for expected in (True, False):
            async with database.transaction() as connection:
                epoch = await organizations.begin_change(connection, organization_id)
                lifted = await exclusions.lift(connection, organization_id, excluded, epoch, clock.now())
                assert (lifted is not None) is expected
        await database.close()
        assert not await is_disabled(caller, alert)
        assert await use(other, "a", quantity="4", prefix="f") == ["a"]
        assert await use(caller, "e", "g", quantity="5", prefix="f") == ["e"]
        assert not await is_disabled(caller, alert)
        await use(caller, "h", "i")
    assert await is_disabled(caller, alert)
    assert len(await disabled(caller)) == 2

"""custom_field_filters of spend_threshold_reached: the cost of the subscriptions whose custom fields match."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import grpc
import pytest

from generated.tidemark.v1 import (
    alert_pb2,
    condition_pb2,
    filter_pb2,
    subscription_pb2,
    threshold_pb2,
    usage_pb2,
)
from runtime.clock import ManualClock
from tests.support.facts.refusals import assert_violations
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import ALL_CUSTOMERS, BOTH, Caller, beside, shortened

pytestmark = shares_server

CONTRACT = filter_pb2.CUSTOM_FIELD_ENTITY_CONTRACT


def filtered(key: str, value: str) -> filter_pb2.CustomFieldFilter:
    return filter_pb2.CustomFieldFilter(entity=CONTRACT, key=key, value=value)


def spend(*filters: filter_pb2.CustomFieldFilter, level: str = "1000", keys: tuple[str, ...] = ()) -> alert_pb2.Alert:
    condition = condition_pb2.SpendThresholdReachedCondition(
        currency="USD",
        group_values=[filter_pb2.GroupSelector(key=key) for key in keys],
        custom_field_filters=filters,
    )
    return alert_pb2.Alert(
        display_name="spend under some contracts",
        scope=ALL_CUSTOMERS,
        spend_threshold_reached=condition,
        thresholds=[threshold_pb2.Threshold(value=level, notify_on=BOTH)],
    )


EU = filtered("region", "eu")


async def put(caller: Caller, subscription: str, customer: str = "acme", **fields: str) -> None:
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id=customer, subscription_id=subscription, custom_fields=fields)
    )


def events(caller: Caller, prefix: str = "e") -> list[usage_pb2.UsageEvent]:
    """Events whose costs are powers of two, so that a sum shows which of them it contains."""
    return [
        caller.event(f"{prefix}1", cost="1", subscription="s1", model="large"),
        caller.event(f"{prefix}2", cost="2", subscription="s2", model="large"),
        caller.event(f"{prefix}3", cost="4", subscription="s3", model="small"),
        caller.event(f"{prefix}4", cost="8", model="large"),
        caller.event(f"{prefix}5", cost="16", subscription="unknown", model="large"),
        caller.event(f"{prefix}6", cost="32", currency="EUR", subscription="s1", model="large"),
        caller.event(f"{prefix}7", cost="64", customer="other", subscription="s1", model="large"),
    ]


async def subscriptions(caller: Caller) -> None:
    await put(caller, "s1", region="eu", tier="1")
    await put(caller, "s2", region="us", tier="1")
    await put(caller, "s3", region="eu", tier="2")


async def gauges(caller: Caller, alert: alert_pb2.Alert, customer: str = "acme") -> Mapping[str, str]:
    """The value of each gauge, by its group values."""
    state = await caller.state(alert.alert_id, customer)
    assert state.no_data == (not state.gauges)
    return {"".join(one.value for one in item.gauge.group): item.gauge.value for item in state.gauges}


async def kinds(caller: Caller) -> list[str]:
    return [item.kind for one in await caller.notifications() for item in one.transitions]


@pytest.mark.parametrize("alert_first", [True, False], ids=["streamed", "recounted"])
async def test_cost_counts_when_the_fields_of_its_subscription_match_all_filters(
    caller: Caller, alert_first: bool
) -> None:
    await subscriptions(caller)
    if not alert_first:
        await caller.send(*events(caller))
    wanted: list[tuple[alert_pb2.Alert, dict[str, int]]] = [
        (spend(), {"": 31}),
        (spend(EU), {"": 5}),
        (spend(EU, filtered("tier", "2")), {"": 4}),
        (spend(filtered("tier", "1")), {"": 3}),
        (spend(filtered("tier", "3")), {}),
        (spend(EU, keys=("model",)), {"large": 1, "small": 4}),
    ]
    alerts = [(await caller.create(alert), alert, expected) for alert, expected in wanted]
    for created, alert, _ in alerts:
        assert created.spend_threshold_reached == alert.spend_threshold_reached
    if alert_first:
        await caller.send(*events(caller))
    for times in (1, 2):
        for created, _, expected in alerts:
            values = {key: str(times * value) for key, value in expected.items()}
            assert await gauges(caller, created) == values
        assert await gauges(caller, alerts[1][0], "other") == {}
        if times == 1:
            async with beside(caller) as other:
                await other.send(*events(other, "f"))


async def test_notification_and_answer_show_the_custom_fields(caller: Caller) -> None:
    await subscriptions(caller)
    await caller.create(spend(filtered("tier", "1"), EU, level="1"))
    answer = await caller.send(*events(caller))
    assert list(answer.transitions[0].gauge.cost.custom_field_filters) == [EU, filtered("tier", "1")]
    [stored] = await caller.notifications()
    assert stored.body["data"]["gauge"]["custom_field_filters"] == [
        {"entity": "CONTRACT", "key": "region", "value": "eu"},
        {"entity": "CONTRACT", "key": "tier", "value": "1"},
    ]


async def test_changed_fields_of_a_subscription_move_its_cost_into_the_value_and_out_of_it(caller: Caller) -> None:
    await subscriptions(caller)
    alert = await caller.create(spend(EU, level="7"))
    grouped = await caller.create(spend(EU, level="1000", keys=("model",)))
    await caller.send(*events(caller))
    assert not await caller.notifications()
    await put(caller, "s2", region="eu")
    assert await gauges(caller, alert) == {"": "7"}
    assert await gauges(caller, grouped) == {"large": "3", "small": "4"}
    assert await kinds(caller) == ["REACHED"]
    # The same fields again change nothing.
    await put(caller, "s2", region="eu")
    for subscription in ("s1", "s2", "s3"):
        await put(caller, subscription)
    assert await gauges(caller, alert) == {"": "0"}
    assert await gauges(caller, grouped) == {"large": "0", "small": "0"}
    assert await kinds(caller) == ["REACHED", "RESOLVED"]
    async with beside(caller) as other:
        assert not (await other.send(other.event("n1", cost="50", subscription="s1"))).transitions
        await put(caller, "s1", region="eu", tier="9")
        answer = await other.send(other.event("n2", cost="1", subscription="s1"))
    assert await gauges(caller, alert) == {"": "52"}
    assert not answer.transitions
    assert await kinds(caller) == ["REACHED", "RESOLVED", "REACHED"]


@pytest.mark.parametrize("keys", [(), ("model",)], ids=["ungrouped", "grouped"])
async def test_threshold_resolves_when_all_cost_leaves_the_value_at_once(
    caller: Caller, keys: tuple[str, ...]
) -> None:
    alert = await caller.create(spend(EU, level="50", keys=keys))
    await put(caller, "s1", region="eu")
    await caller.send(caller.event("e1", cost="60", subscription="s1", model="large"))
    assert await kinds(caller) == ["REACHED"]
    await put(caller, "s1", region="us")
    assert list((await gauges(caller, alert)).values()) == ["0"]
    assert await kinds(caller) == ["REACHED", "RESOLVED"]
    await put(caller, "s1", region="eu")
    assert await kinds(caller) == ["REACHED", "RESOLVED", "REACHED"]


@own_server
async def test_usage_that_made_a_subscription_counts_when_its_fields_are_put(
    caller: Caller, clock: ManualClock
) -> None:
    """The alert has watched since before the period began; cost that did not count yet is counted nevertheless."""
    alert = await caller.create(spend(EU, level="10"))
    await caller.send(caller.event("old", cost="1", subscription="s1"))
    clock.advance(timedelta(days=40))
    await caller.send(
        caller.event("e1", cost="6", subscription="s1"), caller.event("e2", cost="6", subscription="s2")
    )
    assert await gauges(caller, alert) == {}
    await put(caller, "s1", region="eu")
    answer = await caller.send(caller.event("e3", cost="5", subscription="s1"))
    [reached] = shortened(answer.transitions)
    assert (reached.kind, reached.previous_value, reached.value) == ("REACHED", "6", "11")
    await put(caller, "s2", region="eu")
    assert await gauges(caller, alert) == {"": "17"}


async def test_concurrent_puts_and_usage_leave_the_exact_value(caller: Caller) -> None:
    await subscriptions(caller)
    alert = await caller.create(spend(EU, level="20"))

    async def use(sender: Caller, subscription: str) -> None:
        for number in range(12):
            await sender.send(sender.event(f"{subscription}-{number}", cost="1", subscription=subscription))

    async def move() -> None:
        for number in range(6):
            await put(caller, "s1", region="eu" if number % 2 else "us")
            await put(caller, "s2", region="us" if number % 2 else "eu", number=str(number))

    async with beside(caller) as other:
        await asyncio.gather(use(caller, "s1"), use(other, "s2"), move())
    await caller.send(caller.event("last", cost="1", subscription="s1"))
    assert await gauges(caller, alert) == {"": "13"}


async def test_filter_of_an_entity_that_usage_does_not_have_is_refused(caller: Caller) -> None:
    wrong = filter_pb2.CustomFieldFilter(entity=filter_pb2.CUSTOM_FIELD_ENTITY_COMMIT, key="team", value="a")
    at = "alert.spend_threshold_reached.custom_field_filters"
    await assert_violations(caller.create(spend(wrong)), f"{at}[0].entity")
    await assert_violations(caller.create(spend(EU, filtered("region", "us"))), f"{at}[1].value")
    long = [filtered(f"{number}" * 10, "🜂" * 250) for number in range(5)]
    await caller.create(spend(*long[:4], filtered("k", "v" * 256)))
    await assert_violations(caller.create(spend(*long)), at)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await caller.create(spend(*(filtered(f"k{number}", "v") for number in range(21))))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT

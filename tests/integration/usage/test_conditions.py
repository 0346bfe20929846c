"""What each usage condition measures: scope, groups, currency and aggregation."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import pytest

from generated.tidemark.v1 import (
    alert_pb2,
    condition_pb2,
    customer_alert_pb2,
    customer_pb2,
    metric_pb2,
    scope_pb2,
    subscription_pb2,
    usage_pb2,
)
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import (
    ALL_CUSTOMERS,
    REACHED,
    Caller,
    on_customer,
    on_plan,
    on_subscription,
    spend_alert,
    thresholds,
    usage_alert,
    values,
)

pytestmark = shares_server

Key = tuple[str, ...]


def usage_exceeded(scope: scope_pb2.AlertScope) -> alert_pb2.Alert:
    return alert_pb2.Alert(
        display_name="usage of a subscription",
        scope=scope,
        usage_exceeded=condition_pb2.UsageExceededCondition(metric_id="calls"),
        thresholds=thresholds("10"),
    )


def cost_exceeded(scope: scope_pb2.AlertScope, *keys: str, currency: str = "", level: str = "10") -> alert_pb2.Alert:
    return alert_pb2.Alert(
        display_name="cost of a subscription",
        scope=scope,
        cost_exceeded=condition_pb2.CostExceededCondition(grouping_keys=keys, currency=currency),
        thresholds=thresholds(level),
    )


def spend_exceeded(scope: scope_pb2.AlertScope, currency: str = "USD") -> alert_pb2.Alert:
    return alert_pb2.Alert(
        display_name="spend of a subscription",
        scope=scope,
        spend_exceeded=condition_pb2.SpendExceededCondition(currency=currency),
        thresholds=thresholds("10"),
    )


SCOPES: dict[str, tuple[alert_pb2.Alert, dict[Key, int]]] = {
    "usage of all customers": (
        usage_alert("10", scope=ALL_CUSTOMERS),
        {("acme", "calls"): 30, ("beta", "calls"): 20, ("gamma", "calls"): 10},
    ),
    "usage of a plan's customers": (usage_alert("10", scope=on_plan("gold")), {("acme", "calls"): 30}),
    "usage of a customer": (usage_alert("10", scope=on_customer("beta")), {("beta", "calls"): 20}),
    "spend of all customers": (
        spend_alert("10", scope=ALL_CUSTOMERS),
        {("acme", "USD"): 30, ("beta", "USD"): 20, ("gamma", "USD"): 10},
    ),
    "spend of a plan's customers": (spend_alert("10", scope=on_plan("gold")), {("acme", "USD"): 30}),
    "spend of a customer": (spend_alert("10", scope=on_customer("gamma")), {("gamma", "USD"): 10}),
    "usage of a subscription": (usage_exceeded(on_subscription("pro")), {("acme", "pro", "calls"): 10}),
    "usage of a plan's subscriptions": (
        usage_exceeded(on_plan("gold")),
        {("acme", "pro", "calls"): 10, ("beta", "pro", "calls"): 10},
    ),
    "cost of a subscription": (cost_exceeded(on_subscription("free")), {("acme", "free", "USD"): 10}),
    "cost of a plan's subscriptions": (
        cost_exceeded(on_plan("gold")),
        {("acme", "pro", "USD"): 10, ("beta", "pro", "USD"): 10},
    ),
    "spend of a subscription": (
        spend_exceeded(on_subscription("pro", "beta")),
        {("beta", "pro", "USD"): 10},
    ),
    "spend of a plan's subscriptions": (
        spend_exceeded(on_plan("gold")),
        {("acme", "pro", "USD"): 10, ("beta", "pro", "USD"): 10},
    ),
}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("alert_first", [True, False], ids=["before the usage", "after the usage"])
async def test_alert_covers_its_scope_and_no_other_customer(caller: Caller, scope: str, alert_first: bool) -> None:
    alert, expected = SCOPES[scope]
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", plan_id="gold"))
    await caller.put_customer(customer_pb2.Customer(customer_id="beta", plan_id="silver"))
    for customer in ("acme", "beta"):
        await caller.put_subscription(
            subscription_pb2.Subscription(customer_id=customer, subscription_id="pro", plan_id="gold")
        )
    usage = [("acme", "pro"), ("acme", "free"), ("acme", ""), ("beta", "pro"), ("beta", ""), ("gamma", "")]
    events = [
        caller.event(f"e{number}", "10", customer, cost="10", subscription=subscription)
        for number, (customer, subscription) in enumerate(usage)
    ]
    if alert_first:
        await caller.create(alert)
    answer = await caller.send(*events, gauges=True)
    if not alert_first:
        assert not values(answer.gauges)
        await caller.create(alert)
        nothing = [caller.event(f"n{one.event_id}", "0", one.customer_id, cost="0") for one in events]
        for event, original in zip(nothing, events, strict=True):
            event.subscription_id = original.subscription_id
        answer = await caller.send(*nothing, gauges=True)
        assert not answer.transitions, "the backfill has notified them before"
    assert values(answer.gauges) == {key: Decimal(value) for key, value in expected.items()}
    notified = [
        (one.customer_id, one.body["data"]["gauge"].get("subscription_id")) for one in await caller.notifications()
    ]
    assert sorted(notified, key=str) == sorted(
        ((key[0], key[1] if len(key) == 3 else None) for key in expected), key=str
    )


async def test_group_key_without_a_value_has_a_gauge_for_each_value_and_one_with_a_value_filters(
    caller: Caller,
) -> None:
    fan = await caller.create(usage_alert("10", groups=[("region", None)]))
    narrow = await caller.create(usage_alert("10", groups=[("region", "eu")]))
    both = await caller.create(spend_alert("10", groups=[("tier", None), ("region", "eu")]))
    answer = await caller.send(
        caller.event("e1", "6", cost="6", region="eu", tier="a"),
        caller.event("e2", "6", cost="6", region="us", tier="a"),
        caller.event("e3", "6", cost="6", region="eu", tier="b"),
        caller.event("e4", "6", cost="6", region="eu", tier="a"),
        caller.event("e5", "60", cost="60", tier="a"),
        caller.event("e6", "60", cost="60", region="eu."),
        gauges=True,
    )
    assert values(answer.gauges) == {
        ("acme", "calls", "eu"): 18,
        ("acme", "calls", "us"): 6,
        ("acme", "calls", "eu."): 60,
        ("acme", "USD", "eu", "a"): 12,
        ("acme", "USD", "eu", "b"): 6,
    }
    found = [(one.event_id, one.alert_id, [item.value for item in one.gauge.group]) for one in answer.transitions]
    assert sorted(found) == sorted(
        [
            ("e3", fan.alert_id, ["eu"]),
            ("e3", narrow.alert_id, ["eu"]),
            ("e4", both.alert_id, ["eu", "a"]),
            ("e6", fan.alert_id, ["eu."]),
        ]
    )
    state = await caller.state(fan.alert_id)
    assert [(item.gauge.group[0].value, item.gauge.value) for item in state.gauges] == [
        ("eu", "18"),
        ("eu.", "60"),
        ("us", "6"),
    ]
    assert state.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM


async def test_grouping_keys_divide_the_cost_of_a_subscription(caller: Caller) -> None:
    await caller.create(cost_exceeded(on_subscription("pro"), "model", "region", currency="EUR"))
    events = [
        caller.event("e1", cost="7", currency="EUR", subscription="pro", region="eu", model="large"),
        caller.event("e2", cost="7", currency="EUR", subscription="pro", region="eu", model="small"),
        caller.event("e3", cost="7", currency="USD", subscription="pro", region="eu", model="large"),
        caller.event("e4", cost="7", currency="EUR", subscription="free", region="eu", model="large"),
        caller.event("e5", cost="7", currency="EUR", subscription="pro", region="eu", model="large"),
    ]
    answer = await caller.send(*events, gauges=True)
    assert values(answer.gauges) == {
        ("acme", "pro", "EUR", "large", "eu"): 14,
        ("acme", "pro", "EUR", "small", "eu"): 7,
    }
    assert [one.event_id for one in answer.transitions] == ["e5"]


async def test_cost_without_a_currency_is_in_the_currency_of_the_subscription_or_else_the_customer(
    caller: Caller,
) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", currency="EUR"))
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="acme", subscription_id="pro", currency="tokens")
    )
    for currency in ("USD", "EUR", "tokens"):
        await caller.create(spend_alert("100", currency=currency))
    answer = await caller.send(
        caller.event("e1", cost="1"),
        caller.event("e2", cost="2", subscription="pro"),
        caller.event("e3", cost="4", subscription="free"),
        caller.event("e4", cost="8", customer="beta"),
        caller.event("e5", cost="16", currency="USD", subscription="pro"),
        caller.event("e6"),
        gauges=True,
    )
    assert values(answer.gauges) == {
        ("acme", "EUR"): 5,
        ("acme", "tokens"): 2,
        ("acme", "USD"): 16,
        ("beta", "USD"): 8,
    }


async def test_alert_without_matching_usage_has_no_data(caller: Caller) -> None:
    euros = await caller.create(spend_alert("0", currency="EUR"))
    groups = await caller.create(usage_alert("0", groups=[("region", None)]))
    other = await caller.create(usage_alert("0", metric="tokens"))
    await caller.send(caller.event("e1", "100", cost="100"))
    for alert in (euros, groups, other):
        state = await caller.state(alert.alert_id)
        assert state.no_data
        assert not state.gauges
    assert not await caller.notifications()


SUM, COUNT, MAX, LATEST, UNIQUE_COUNT = (
    metric_pb2.AGGREGATION_SUM,
    metric_pb2.AGGREGATION_COUNT,
    metric_pb2.AGGREGATION_MAX,
    metric_pb2.AGGREGATION_LATEST,
    metric_pb2.AGGREGATION_UNIQUE_COUNT,
)
# Quantity, age in minutes, and seat of each event, batch by batch.
BATCHES: Sequence[Sequence[tuple[str, int, str]]] = (
    [("5", 60, "ann"), ("-7.5", 50, "bob")],
    [("3", 40, "ann"), ("2.25", 55, "")],
    [("-1", 30, "cid")],
    [("1", 45, "bob"), ("-0.5", 45, "dan"), ("4", 20, "dan")],
)
AGGREGATIONS: dict[str, tuple[metric_pb2.Aggregation.ValueType, list[str]]] = {
    "SUM": (SUM, ["-2.5", "2.75", "1.75", "6.25"]),
    "COUNT": (COUNT, ["0", "2", "1", "2"]),
    "MAX": (MAX, ["5", "5", "5", "5"]),
    "LATEST": (LATEST, ["-7.5", "3", "-1", "4"]),
    "UNIQUE_COUNT": (UNIQUE_COUNT, ["2", "2", "3", "4"]),
}


def batch(caller: Caller, number: int, metric: str) -> list[usage_pb2.UsageEvent]:
    events = []
    for place, (quantity, minutes, seat) in enumerate(BATCHES[number]):
        time = caller.clock.now() - timedelta(minutes=minutes)
        events.append(caller.event(f"{metric}-{number}-{place}", quantity, metric=metric, at=time))
        if seat:
            events[-1].properties["seat"] = seat
    return events


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("watched_after", range(5))
async def test_recounted_gauge_equals_a_watched_gauge(caller: Caller, aggregation: str, watched_after: int) -> None:
    """The alert is created after so many batches: earlier batches are recounted, later ones are added."""
    kind, expected = AGGREGATIONS[aggregation]
    await caller.put_metric("seats", kind, "seat" if kind == UNIQUE_COUNT else "")
    for number in range(4):
        if number == watched_after:
            alert = await caller.create(usage_alert("1000", metric="seats"))
        answer = await caller.send(*batch(caller, number, "seats"), gauges=True)
        known = {("acme", "seats"): Decimal(expected[number])} if number >= watched_after else {}
        assert values(answer.gauges) == known
    if watched_after == 4:
        alert = await caller.create(usage_alert("1000", metric="seats"))
    state = await caller.state(alert.alert_id)
    assert [item.gauge.value for item in state.gauges] == expected[-1:]


@pytest.mark.parametrize(
    ("aggregation", "quantities", "reached_by"),
    [
        (SUM, ["4", "5.999999999999999999", "0.000000000000000001"], "e2"),
        (COUNT, ["1"] * 12, "e9"),
        (MAX, ["-3", "9", "10", "4"], "e2"),
        (LATEST, ["9", "12", "1"], "e1"),
        (UNIQUE_COUNT, ["1"] * 12, "e9"),
    ],
)
async def test_aggregation_reaches_a_threshold_with_the_crossing_event(
    caller: Caller, aggregation: metric_pb2.Aggregation.ValueType, quantities: list[str], reached_by: str
) -> None:
    await caller.put_metric("seats", aggregation, "seat" if aggregation == UNIQUE_COUNT else "")
    await caller.create(usage_alert("10", metric="seats"))
    events = [
        caller.event(f"e{number}", quantity, metric="seats", seat=f"s{number}")
        for number, quantity in enumerate(quantities)
    ]
    answer = await caller.send(*events)
    assert [one.event_id for one in answer.transitions if one.kind == REACHED] == [reached_by]


async def test_unique_values_are_counted_for_each_gauge_separately(caller: Caller) -> None:
    await caller.put_metric("seats", UNIQUE_COUNT, "seat")
    await caller.create(usage_alert("10", metric="seats"))
    await caller.create(usage_alert("10", metric="seats", groups=[("team", None)]))
    answer = await caller.send(
        caller.event("e1", metric="seats", seat="ann", team="red"),
        caller.event("e2", metric="seats", seat="ann", team="blue"),
        caller.event("e3", metric="seats", seat="ann", team="red"),
        caller.event("e4", metric="seats", team="red"),
        caller.event("e5", "1", "beta", metric="seats", seat="ann"),
        gauges=True,
    )
    assert values(answer.gauges) == {
        ("acme", "seats"): 1,
        ("acme", "seats", "red"): 1,
        ("acme", "seats", "blue"): 1,
        ("beta", "seats"): 1,
    }

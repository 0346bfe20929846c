"""price_filters: only the cost of some prices counts, when it is streamed and when it is recounted."""

from collections.abc import Sequence
from decimal import Decimal

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from engine.limits import EngineLimits
from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_alert_pb2,
    filter_pb2,
    scope_pb2,
    threshold_pb2,
    usage_pb2,
)
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import Caller, beside, on_plan, on_subscription, shortened, thresholds

pytestmark = shares_server

INCLUDES, EXCLUDES = filter_pb2.FILTER_OPERATOR_INCLUDES, filter_pb2.FILTER_OPERATOR_EXCLUDES
PRICE_ID, ITEM_ID, PRICE_TYPE = (
    filter_pb2.PRICE_FIELD_PRICE_ID,
    filter_pb2.PRICE_FIELD_ITEM_ID,
    filter_pb2.PRICE_FIELD_PRICE_TYPE,
)


def narrowed(
    field: filter_pb2.PriceField.ValueType, operator: filter_pb2.FilterOperator.ValueType, *values: str
) -> filter_pb2.PriceFilter:
    return filter_pb2.PriceFilter(field=field, operator=operator, values=values)


def spend_exceeded(
    *filters: filter_pb2.PriceFilter,
    currency: str = "USD",
    level: str = "1000",
    scope: scope_pb2.AlertScope | None = None,
) -> alert_pb2.Alert:
    return alert_pb2.Alert(
        display_name="spend of some prices",
        scope=scope or on_subscription("pro"),
        spend_exceeded=condition_pb2.SpendExceededCondition(currency=currency, price_filters=filters),
        thresholds=thresholds(level),
    )


ALERTS = {
    "everything": (spend_exceeded(), "63"),
    "two prices": (spend_exceeded(narrowed(PRICE_ID, INCLUDES, "gpu", "cpu")), "7"),
    "all but one price": (spend_exceeded(narrowed(PRICE_ID, EXCLUDES, "gpu")), "60"),
    "an item": (spend_exceeded(narrowed(ITEM_ID, INCLUDES, "compute")), "11"),
    "an item but no fixed price": (
        spend_exceeded(narrowed(ITEM_ID, INCLUDES, "compute"), narrowed(PRICE_TYPE, EXCLUDES, "fixed")),
        "9",
    ),
    "another currency": (spend_exceeded(narrowed(PRICE_ID, INCLUDES, "gpu"), currency="EUR"), "64"),
    "no such price": (spend_exceeded(narrowed(PRICE_ID, INCLUDES, "gp")), None),
}


def cost_exceeded(
    *filters: filter_pb2.PriceFilter,
    keys: Sequence[str] = (),
    level: str = "1000",
    scope: scope_pb2.AlertScope | None = None,
    overrides: Sequence[threshold_pb2.ThresholdOverride] = (),
) -> alert_pb2.Alert:
    return alert_pb2.Alert(
        display_name="cost of some prices",
        scope=scope or on_subscription("pro"),
        cost_exceeded=condition_pb2.CostExceededCondition(
            grouping_keys=keys,
            currency="USD" if keys else "",
            price_filters=filters,
            threshold_overrides=overrides,
        ),
        thresholds=thresholds(level),
    )


def events(caller: Caller, prefix: str = "e") -> list[usage_pb2.UsageEvent]:
    """Events whose costs are powers of two, so that a sum shows which of them it contains."""
    return [
        caller.event(f"{prefix}1", cost="1", subscription="pro", price_id="gpu", item_id="compute"),
        caller.event(
            f"{prefix}2", cost="2", subscription="pro", price_id="gpu", item_id="compute", price_type="fixed"
        ),
        caller.event(f"{prefix}3", cost="4", subscription="pro", price_id="cpu"),
        caller.event(
            f"{prefix}4", cost="8", subscription="pro", price_id="CPU", item_id="compute", price_type="usage"
        ),
        caller.event(f"{prefix}5", cost="16", subscription="pro"),
        caller.event(f"{prefix}6", cost="32", subscription="pro", price_id="disk", region="eu"),
        caller.event(f"{prefix}7", cost="64", currency="EUR", subscription="pro", price_id="gpu"),
        caller.event(f"{prefix}8", cost="128", subscription="free", price_id="gpu"),
        caller.event(f"{prefix}9", cost="256", price_id="gpu"),
        caller.event(f"{prefix}10", "512", subscription="pro", price_id="gpu"),
    ]


async def value_of(caller: Caller, alert: alert_pb2.Alert) -> str | None:
    state = await caller.state(alert.alert_id)
    assert state.no_data == (not state.gauges)
    return state.gauges[0].gauge.value if state.gauges else None


@pytest.mark.parametrize("alert_first", [True, False], ids=["streamed", "recounted"])
async def test_cost_counts_when_its_price_passes_all_filters(caller: Caller, alert_first: bool) -> None:
    if not alert_first:
        await caller.send(*events(caller))
    alerts = {name: await caller.create(alert) for name, (alert, _) in ALERTS.items()}
    if alert_first:
        await caller.send(*events(caller))
    expected = {name: value for name, (_, value) in ALERTS.items()}
    assert {name: await value_of(caller, alert) for name, alert in alerts.items()} == expected
    # A recounted gauge adds later events.
    await caller.send(*events(caller, "f"))
    doubled = {name: None if value is None else str(2 * int(value)) for name, value in expected.items()}
    assert {name: await value_of(caller, alert) for name, alert in alerts.items()} == doubled


async def test_first_event_that_passes_recounts_cost_from_before_the_alert(caller: Caller) -> None:
    await caller.send(*events(caller))
    [[before]] = await caller.rows("SELECT count(*) FROM gauge WHERE organization_id = %(organization_id)s")
    async with beside(caller) as other:
        alert = await caller.create_only(spend_exceeded(narrowed(PRICE_ID, INCLUDES, "cpu"), level="5"))
        answer = await other.send(other.event("n", cost="1", subscription="pro", price_id="cpu"), gauges=True)
        await caller.backfilled(alert.alert_id)
    [gauge] = answer.gauges
    assert (gauge.value, before) == ("5", 0)
    assert len(await caller.notifications()) == 1


async def test_notification_and_answer_show_the_price_filters(caller: Caller) -> None:
    filters = [narrowed(PRICE_ID, EXCLUDES, "b", "a"), narrowed(PRICE_ID, EXCLUDES, "c")]
    alert = await caller.create(spend_exceeded(*filters, level="10"))
    merged = [narrowed(PRICE_ID, EXCLUDES, "a", "b", "c")]
    assert list(alert.spend_exceeded.price_filters) == merged
    await caller.send(caller.event("e0", cost="100", subscription="pro", price_id="c"))
    answer = await caller.send(caller.event("e1", cost="10", subscription="pro", price_id="d"))
    assert [(one.kind, one.value, one.event_id) for one in shortened(answer.transitions)] == [("REACHED", "10", "e1")]
    assert list(answer.transitions[0].gauge.cost.price_filters) == merged
    [stored] = await caller.notifications()
    assert stored.body["data"]["gauge"]["price_filters"] == [
        {"field": "PRICE_ID", "operator": "EXCLUDES", "values": ["a", "b", "c"]}
    ]


async def test_correction_counts_only_when_its_price_passes(caller: Caller) -> None:
    alert = await caller.create(spend_exceeded(narrowed(PRICE_ID, INCLUDES, "gpu"), level="10"))
    await caller.send(caller.event("e1", cost="12", subscription="pro", price_id="gpu"))
    await caller.send(caller.event("e2", cost="-5", subscription="pro", price_id="cpu"))
    assert await value_of(caller, alert) == "12"
    await caller.send(caller.event("e3", cost="-5", subscription="pro", price_id="gpu"))
    assert await value_of(caller, alert) == "7"


async def test_plan_has_one_alert_for_each_currency_and_price_filters_and_at_most_50(caller: Caller) -> None:
    scope = on_plan("gold")
    first = await caller.create_only(spend_exceeded(narrowed(PRICE_ID, INCLUDES, "a", "b"), scope=scope))
    same = [narrowed(PRICE_ID, INCLUDES, "b", "a", "c"), narrowed(PRICE_ID, EXCLUDES, "c")]
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await caller.create_only(spend_exceeded(*same, scope=scope))
    assert error.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert first.alert_id in (error.value.details() or "")
    for number in range(49):
        await caller.create_only(spend_exceeded(narrowed(PRICE_ID, INCLUDES, str(number)), scope=scope))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await caller.create_only(spend_exceeded(scope=scope))
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_filtered_alerts_count_their_own_prices_on_two_replicas(caller: Caller) -> None:
    alerts = [await caller.create(spend_exceeded(narrowed(PRICE_ID, INCLUDES, f"p{number}"))) for number in range(8)]
    async with beside(caller) as other:
        for round_ in range(4):
            for place, sender in enumerate((caller, other)):
                await sender.send(
                    *(
                        sender.event(
                            f"e{round_}-{place}-{number}", cost=str(number), subscription="pro", price_id=f"p{number}"
                        )
                        for number in range(8)
                    )
                )
    values = [Decimal(await value_of(caller, alert) or "0") for alert in alerts]
    assert values == [8 * number for number in range(8)]


def region_events(caller: Caller, prefix: str = "e") -> list[usage_pb2.UsageEvent]:
    """Events of some regions and prices whose costs are powers of two."""
    of = (("eu", "gpu"), ("eu", "cpu"), ("us", "gpu"), ("us", "cpu"), ("asia", "cpu"), ("", "gpu"))
    found = []
    for number, (region, price) in enumerate(of):
        event = caller.event(f"{prefix}{number}", cost=str(2**number), subscription="pro", price_id=price)
        if region:
            event.properties["region"] = region
        found.append(event)
    return found


async def by_region(caller: Caller, alert: alert_pb2.Alert) -> dict[str, str]:
    """The value of each gauge, by its region."""
    state = await caller.state(alert.alert_id)
    return {"".join(one.value for one in gauge.gauge.group): gauge.gauge.value for gauge in state.gauges}


@pytest.mark.parametrize("alert_first", [True, False], ids=["streamed", "recounted"])
async def test_grouped_cost_counts_in_each_group_what_passes_the_price_filters(
    caller: Caller, alert_first: bool
) -> None:
    if not alert_first:
        await caller.send(*region_events(caller))
    wanted = cost_exceeded(narrowed(PRICE_ID, INCLUDES, "gpu"), keys=["region"])
    of_gpu = await caller.create(wanted)
    of_others = await caller.create(cost_exceeded(narrowed(PRICE_ID, EXCLUDES, "gpu"), keys=["region"]))
    every = await caller.create(cost_exceeded(keys=["region"]))
    whole = await caller.create(cost_exceeded(narrowed(PRICE_ID, INCLUDES, "gpu")))
    assert list(of_gpu.cost_exceeded.price_filters) == list(wanted.cost_exceeded.price_filters)
    assert whole.cost_exceeded.currency == "USD"
    if alert_first:
        await caller.send(*region_events(caller))
    for times in (1, 2):
        expected = (
            (of_gpu, {"eu": 1, "us": 4}),
            (of_others, {"eu": 2, "us": 8, "asia": 16}),
            (every, {"eu": 3, "us": 12, "asia": 16}),
            (whole, {"": 37}),
        )
        for alert, values in expected:
            assert await by_region(caller, alert) == {key: str(times * value) for key, value in values.items()}
        if times == 1:
            async with beside(caller) as other:
                await other.send(*region_events(other, "f"))


async def test_grouped_cost_with_price_filters_notifies_each_group_by_its_own_thresholds(caller: Caller) -> None:
    eu = threshold_pb2.ThresholdOverride(
        group_values=[filter_pb2.GroupSelector(key="region", value="eu")], thresholds=thresholds("3")
    )
    await caller.create(
        cost_exceeded(narrowed(PRICE_ID, INCLUDES, "gpu"), keys=["region"], level="5", overrides=[eu])
    )
    sent = [
        caller.event(f"e{number}", cost="3", subscription="pro", price_id=price, region=region)
        for number, (region, price) in enumerate([("eu", "cpu"), ("us", "gpu"), ("eu", "gpu"), ("us", "gpu")])
    ]
    answer = await caller.send(*sent)
    assert {(one.event_id, one.level, one.value) for one in answer.transitions} == {
        ("e2", "3", "3"),
        ("e3", "5", "6"),
    }
    [gauge] = {one.gauge.cost.price_filters[0].values[0] for one in answer.transitions}
    assert gauge == "gpu"
    bodies = [one.body["data"]["gauge"] for one in await caller.notifications()]
    assert sorted((body["group"][0]["value"], body["price_filters"][0]["values"][0]) for body in bodies) == [
        ("eu", "gpu"),
        ("us", "gpu"),
    ]


async def test_one_cost_alert_for_each_combination_of_grouping_and_price_filters(caller: Caller) -> None:
    gpu, same = narrowed(PRICE_ID, INCLUDES, "gpu", "tpu"), narrowed(PRICE_ID, INCLUDES, "tpu", "gpu")
    scope = on_plan("gold")
    plain = await caller.create_only(cost_exceeded(scope=scope))
    first = await caller.create_only(cost_exceeded(gpu, keys=["a", "b"], scope=scope))
    for other in (
        cost_exceeded(gpu, keys=["a"], scope=scope),
        cost_exceeded(gpu, scope=scope),
        cost_exceeded(keys=["a", "b"], scope=scope),
        cost_exceeded(gpu, keys=["a", "b"]),
    ):
        await caller.create_only(other)
    for duplicate, known in (
        (cost_exceeded(same, keys=["b", "a"], scope=scope), first),
        (cost_exceeded(scope=scope), plain),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await caller.create_only(duplicate)
        assert error.value.code() is grpc.StatusCode.ALREADY_EXISTS
        assert known.alert_id in (error.value.details() or "")
    for number in range(45):
        await caller.create_only(cost_exceeded(narrowed(PRICE_ID, INCLUDES, str(number)), scope=scope))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await caller.create_only(cost_exceeded(narrowed(PRICE_ID, INCLUDES, "one more"), scope=scope))
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_price_filters_of_a_grouped_cost_alert_can_be_replaced(caller: Caller) -> None:
    await caller.send(*region_events(caller))
    alert = await caller.create(cost_exceeded(narrowed(PRICE_ID, INCLUDES, "gpu"), keys=["region"], level="8"))
    assert not await caller.notifications()
    changed = condition_pb2.CostExceededCondition(price_filters=[narrowed(PRICE_ID, INCLUDES, "cpu")])
    await caller.alerts.UpdateAlert(
        alert_service_pb2.UpdateAlertRequest(
            alert=alert_pb2.Alert(alert_id=alert.alert_id, cost_exceeded=changed),
            update_mask=FieldMask(paths=["cost_exceeded.price_filters"]),
        ),
        metadata=caller.metadata,
    )
    await caller.backfilled(alert.alert_id)
    assert await by_region(caller, alert) == {"eu": "2", "us": "8", "asia": "16"}
    assert sorted(one.body["data"]["gauge"]["group"][0]["value"] for one in await caller.notifications()) == [
        "asia",
        "us",
    ]


@own_server
@pytest.mark.parametrize("engine_limits", [EngineLimits(groups=2)], ids=[pytest.HIDDEN_PARAM])
async def test_groups_whose_prices_do_not_pass_do_not_count_towards_the_group_limit(
    caller: Caller,
) -> None:
    alert = await caller.create(cost_exceeded(narrowed(PRICE_ID, INCLUDES, "gpu"), keys=["region"]))
    await caller.send(*region_events(caller))
    state = await caller.state(alert.alert_id)
    assert state.disabled_reason == customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_NONE
    await caller.send(caller.event("n", cost="1", subscription="pro", price_id="gpu", region="asia"))
    state = await caller.state(alert.alert_id)
    assert state.disabled_reason == customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_GROUP_LIMIT

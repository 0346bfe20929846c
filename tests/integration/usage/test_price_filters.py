"""price_filters: only the cost of some prices counts, when it is streamed and when it is recounted."""

from decimal import Decimal

import grpc
import pytest

from generated.tidemark.v1 import (
    alert_pb2,
    condition_pb2,
    filter_pb2,
    scope_pb2,
    usage_pb2,
)
from tests.support.usage.caller import Caller, beside, on_plan, on_subscription, shortened, thresholds

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

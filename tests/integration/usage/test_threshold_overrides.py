"""Threshold overrides: the thresholds of some groups replace those of the alert."""

from collections.abc import Sequence

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_alert_pb2,
    filter_pb2,
    threshold_pb2,
)
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import BOTH, Caller, beside, on_subscription, shortened, thresholds, until

pytestmark = shares_server

Override = tuple[dict[str, str], list[str]]


def cost_alert(overrides: Sequence[Override], *levels: str) -> alert_pb2.Alert:
    """cost_exceeded by model and region, with overrides for some values of these keys."""
    return alert_pb2.Alert(
        display_name="cost",
        scope=on_subscription("pro"),
        cost_exceeded=condition_pb2.CostExceededCondition(
            grouping_keys=["model", "region"],
            currency="USD",
            threshold_overrides=[
                threshold_pb2.ThresholdOverride(
                    group_values=[filter_pb2.GroupSelector(key=key, value=value) for key, value in bound.items()],
                    thresholds=thresholds(*own),
                )
                for bound, own in overrides
            ],
        ),
        thresholds=thresholds(*levels),
    )


SPECIFIC: list[Override] = [
    ({"region": "eu"}, ["20"]),
    ({"region": "us", "model": "large"}, ["5", "7"]),
    ({"model": "large"}, []),
]


async def spend(caller: Caller, number: int, cost: str, model: str, region: str) -> list[tuple[str, str]]:
    """Sends one event of a group; returns kind and level of each transition."""
    event = caller.event(f"e{number}", cost=cost, currency="USD", subscription="pro", model=model, region=region)
    answer = await caller.send(event)
    return [(one.kind, one.level) for one in shortened(answer.transitions)]


async def test_most_specific_override_replaces_the_thresholds_of_its_groups(caller: Caller) -> None:
    await caller.create(cost_alert(SPECIFIC, "10"))
    expected = {
        ("small", "us"): ["10"],  # no override: the alert's own
        ("small", "eu"): ["20"],
        ("large", "eu"): ["20"],  # two overrides with one key each: the first applies
        ("large", "us"): ["5", "7"],  # the override with both keys
        ("large", "asia"): [],  # an override without thresholds
    }
    for number, ((model, region), levels) in enumerate(expected.items()):
        assert await spend(caller, number, "100", model, region) == [("REACHED", level) for level in levels]
    assert len(await caller.notifications()) == 4


@pytest.mark.parametrize("evaluate", [True, False])
async def test_overrides_apply_to_usage_from_before_the_alert(caller: Caller, evaluate: bool) -> None:
    for number, (model, region) in enumerate([("small", "us"), ("small", "eu"), ("large", "us"), ("large", "asia")]):
        await spend(caller, number, "15", model, region)
    await caller.create(cost_alert(SPECIFIC, "10"), evaluate=evaluate)
    notified = [[one.level for one in item.transitions] for item in await caller.notifications()]
    assert sorted(notified) == ([["10"], ["5", "7"]] if evaluate else [])
    # Thresholds that were reached notify nothing; the group below its own threshold can still reach it.
    assert await spend(caller, 10, "5", "small", "us") == []
    assert await spend(caller, 11, "5", "large", "us") == []
    assert await spend(caller, 12, "5", "small", "eu") == [("REACHED", "20")]
    assert await spend(caller, 13, "1000", "large", "asia") == []


async def test_state_shows_the_overridden_thresholds_of_each_gauge(caller: Caller) -> None:
    alert = await caller.create(cost_alert(SPECIFIC, "10"))
    for number, (model, region) in enumerate([("small", "us"), ("small", "eu"), ("large", "us"), ("large", "asia")]):
        await spend(caller, number, "6", model, region)
    state = await caller.state(alert.alert_id)
    shown = {
        tuple(item.value for item in gauge.gauge.group): [
            (one.threshold.value, one.in_alarm) for one in gauge.thresholds
        ]
        for gauge in state.gauges
    }
    assert shown == {
        ("small", "us"): [("10", False)],
        ("small", "eu"): [("20", False)],
        ("large", "us"): [("5", True), ("7", False)],
        ("large", "asia"): [],
    }
    assert state.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM


async def test_override_shows_its_keys_in_the_callers_order_and_applies_in_any_order(caller: Caller) -> None:
    alert = await caller.create(cost_alert([({"region": "us", "model": "eu"}, ["3"])], "10"))
    [shown] = alert.cost_exceeded.threshold_overrides
    assert [(one.key, one.value) for one in shown.group_values] == [("region", "us"), ("model", "eu")]
    assert await spend(caller, 1, "4", "eu", "us") == [("REACHED", "3")]
    assert await spend(caller, 2, "4", "us", "eu") == []


async def test_removed_thresholds_notify_as_each_group_had_them(caller: Caller) -> None:
    """The alert and an override have the same level, and notify of different transitions."""
    alert = cost_alert([({"region": "eu"}, ["10"])], "10")
    alert.thresholds[0].notify_on[:] = BOTH
    alert.cost_exceeded.threshold_overrides[0].thresholds[0].notify_on[:] = [BOTH[0]]
    created = await caller.create(alert)
    await spend(caller, 0, "30", "small", "us")
    await spend(caller, 1, "30", "small", "eu")
    changed = cost_alert([({"region": "eu"}, ["20"])], "20")
    changed.alert_id = created.alert_id
    mask = FieldMask(paths=["thresholds", "cost_exceeded.threshold_overrides"])
    request = alert_service_pb2.UpdateAlertRequest(alert=changed, update_mask=mask)
    await caller.alerts.UpdateAlert(request, metadata=caller.metadata)

    async def evaluated() -> bool:
        return len(await caller.notifications()) == 4

    await until(evaluated)
    found = {
        (one.body["data"]["gauge"]["group"][1]["value"], part.kind, part.level)
        for one in await caller.notifications()
        for part in one.transitions
    }
    reached = {(region, "REACHED", level) for region in ("us", "eu") for level in ("10", "20")}
    assert found == {*reached, ("us", "RESOLVED", "10")}


async def test_overrides_apply_on_another_replica(caller: Caller) -> None:
    await caller.create(cost_alert(SPECIFIC, "10"))
    async with beside(caller) as other:
        assert await spend(other, 1, "6", "large", "us") == [("REACHED", "5")]
        assert await spend(caller, 2, "1", "large", "us") == [("REACHED", "7")]
        assert await spend(other, 3, "99", "large", "asia") == []


async def test_alert_with_overrides_and_without_thresholds_is_refused(caller: Caller) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await caller.create_only(cost_alert(SPECIFIC))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_alert_accepts_1000_overrides_and_no_more(caller: Caller) -> None:
    many: list[Override] = [({"model": f"m{number}"}, [str(number + 1)]) for number in range(1_000)]
    alert = await caller.create(cost_alert(many, "5000"))
    assert len(alert.cost_exceeded.threshold_overrides) == 1_000
    assert await spend(caller, 1, "999.5", "m999", "eu") == []
    assert await spend(caller, 2, "0.5", "m999", "eu") == [("REACHED", "1000")]
    many.append(({"model": "one too many"}, []))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await caller.create_only(cost_alert(many, "5000"))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "1000" in (error.value.details() or "")

"""Changes of an alert: update, reset, disable, enable, archive, and its history."""

from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from generated.tidemark.v1 import (
    alert_change_pb2,
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_alert_pb2,
    filter_pb2,
    subscription_pb2,
    threshold_pb2,
)
from runtime.clock import ManualClock
from tests.support.server.running import reason_of, violations_of
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import BOTH, Caller, ShortTransition, beside, on_customer, on_plan, usage_alert

pytestmark = shares_server

KEEP, RESET = alert_service_pb2.STATE_POLICY_KEEP, alert_service_pb2.STATE_POLICY_RESET
OK, IN_ALARM = customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK, customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM


@pytest.fixture
async def usual(caller: Caller) -> alert_pb2.Alert:
    """What `create_usual` creates."""
    return await create_usual(caller)


async def create_usual(caller: Caller) -> alert_pb2.Alert:
    """An alert at 10 that notifies of REACHED and RESOLVED; the value of its gauge is 15."""
    created = await caller.create(usage_alert(thresholds=thresholds_at("10")))
    await caller.send(caller.event("e1", "15"))
    return created


def thresholds_at(*values: str, **fields: Any) -> list[threshold_pb2.Threshold]:
    return [threshold_pb2.Threshold(value=value, notify_on=BOTH, **fields) for value in values]


async def update(
    caller: Caller,
    alert_id: str,
    *paths: str,
    policy: alert_service_pb2.StatePolicy.ValueType = KEEP,
    **fields: Any,
) -> alert_pb2.Alert:
    request = alert_service_pb2.UpdateAlertRequest(
        alert=alert_pb2.Alert(alert_id=alert_id, **fields),
        update_mask=FieldMask(paths=paths) if paths else None,
        state_policy=policy,
    )
    changed = (await caller.alerts.UpdateAlert(request, metadata=caller.metadata)).alert
    await caller.backfilled(alert_id)
    return changed


async def notified(caller: Caller) -> list[tuple[str, str]]:
    """Kind and level of every transition that was notified, in order."""
    return [(one.kind, one.level) for stored in await caller.evaluations() for one in stored.transitions]


async def test_a_lowered_threshold_is_reached_immediately(caller: Caller) -> None:
    created = await caller.create(usage_alert(thresholds=thresholds_at("20")))
    await caller.send(caller.event("e1", "15"))
    changed = await update(caller, created.alert_id, thresholds=thresholds_at("12"))
    assert (changed.version, changed.etag != created.etag) == (2, True)
    [stored] = await caller.evaluations()
    assert stored.transitions == [ShortTransition("REACHED", "12", "15", "15", "")]
    assert stored.body["data"]["alert_version"] == 2
    assert (await caller.state(created.alert_id)).gauges[
        0
    ].change_reason == customer_alert_pb2.CHANGE_REASON_EVALUATION


async def test_an_added_threshold_below_the_value_is_reached_immediately(
    caller: Caller, usual: alert_pb2.Alert
) -> None:
    await update(caller, usual.alert_id, thresholds=thresholds_at("10", "14", "40"))
    assert await notified(caller) == [("REACHED", "10"), ("REACHED", "14")]


async def test_a_raised_threshold_resolves(caller: Caller, usual: alert_pb2.Alert) -> None:
    await update(caller, usual.alert_id, thresholds=thresholds_at("20"))
    assert await notified(caller) == [("REACHED", "10"), ("RESOLVED", "10")]
    assert (await caller.state(usual.alert_id)).status == OK
    await caller.send(caller.event("e2", "5"))
    assert (await notified(caller))[-1] == ("REACHED", "20")


async def test_a_new_name_does_not_notify(caller: Caller, usual: alert_pb2.Alert) -> None:
    changed = await update(caller, usual.alert_id, display_name="another")
    assert (changed.display_name, changed.version) == ("another", 2)
    assert await update(caller, usual.alert_id, display_name="another") == changed
    await caller.send(caller.event("e2", "1"))
    assert await notified(caller) == [("REACHED", "10")]


async def test_a_new_threshold_code_does_not_notify(caller: Caller, usual: alert_pb2.Alert) -> None:
    await update(caller, usual.alert_id, thresholds=thresholds_at("10", code="new"))
    assert await notified(caller) == [("REACHED", "10")]
    await caller.send(caller.event("e2", "-10"))
    last = (await caller.evaluations())[-1]
    assert last.body["data"]["transitions"][0]["threshold"] == {"code": "new", "value": "10"}


async def test_reset_notifies_again_and_resolves_nothing(caller: Caller, usual: alert_pb2.Alert) -> None:
    await caller.send(caller.event("b1", "11", "bob"))
    await update(caller, usual.alert_id, policy=RESET)
    assert sorted(await notified(caller)) == [("REACHED", "10")] * 4
    await update(caller, usual.alert_id, policy=RESET, thresholds=thresholds_at("12"))
    assert sorted(await notified(caller)) == [("REACHED", "10")] * 4 + [("REACHED", "12")]
    sequences = [stored.sequence for stored in await caller.evaluations() if stored.customer_id == "acme"]
    assert sorted(sequences) == [1, 2, 3]


async def test_reset_of_one_customer_does_not_notify_others(caller: Caller, usual: alert_pb2.Alert) -> None:
    await caller.send(caller.event("b1", "11", "bob"))
    request = alert_service_pb2.ResetCustomerAlertRequest(alert_id=usual.alert_id, customer_id="bob")
    answer = await caller.alerts.ResetCustomerAlert(request, metadata=caller.metadata)
    assert (answer.customer_alert.status, answer.customer_alert.gauges[0].sequence) == (IN_ALARM, 2)
    counts = [stored.customer_id for stored in await caller.evaluations()]
    assert (counts.count("acme"), counts.count("bob")) == (1, 2)


async def test_an_update_with_the_etag_of_another_version_is_aborted(caller: Caller, usual: alert_pb2.Alert) -> None:
    await update(caller, usual.alert_id, display_name="theirs")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await update(caller, usual.alert_id, display_name="ours", etag=usual.etag)
    assert (error.value.code(), reason_of(error.value)) == (
        grpc.StatusCode.ABORTED,
        "ERROR_REASON_ETAG_MISMATCH",
    )
    assert (await update(caller, usual.alert_id, display_name="ours", etag="2")).display_name == "ours"


async def test_an_update_of_the_measure_or_the_scope_is_refused(caller: Caller, usual: alert_pb2.Alert) -> None:
    condition = condition_pb2.UsageThresholdReachedCondition(metric_id="others")
    spend = condition_pb2.SpendThresholdReachedCondition()
    for fields, path in (
        ({"usage_threshold_reached": condition}, "alert.usage_threshold_reached.metric_id"),
        ({"spend_threshold_reached": spend}, "alert.spend_threshold_reached"),
        ({"scope": on_customer("acme")}, "alert.scope"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await update(caller, usual.alert_id, "*", display_name="n", thresholds=thresholds_at("1"), **fields)
        assert violations_of(error.value) == [path]
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await update(caller, usual.alert_id, "scope", "spend_exceeded.price_filters")
    assert violations_of(error.value) == ["update_mask.paths[0]", "update_mask.paths[1]"]


async def test_the_mask_of_a_star_replaces_every_mutable_field(caller: Caller, usual: alert_pb2.Alert) -> None:
    usual.display_name = "all of it"
    usual.thresholds[0].value = "11"
    request = alert_service_pb2.UpdateAlertRequest(alert=usual, update_mask=FieldMask(paths=["*"]))
    changed = (await caller.alerts.UpdateAlert(request, metadata=caller.metadata)).alert
    assert (changed.display_name, changed.thresholds[0].value, changed.version) == ("all of it", "11", 2)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await update(caller, usual.alert_id, "*")
    assert violations_of(error.value) == ["alert.display_name", "alert.thresholds"]


async def test_a_disabled_alert_does_not_notify_until_it_is_enabled(caller: Caller) -> None:
    created = await caller.create(usage_alert(thresholds=thresholds_at("10", "20", "30")))
    await caller.send(caller.event("e1", "15"))
    disable = alert_service_pb2.DisableAlertRequest(alert_id=created.alert_id)
    disabled = (await caller.alerts.DisableAlert(disable, metadata=caller.metadata)).alert
    assert disabled.state == alert_pb2.ALERT_STATE_DISABLED
    await caller.send(caller.event("e2", "10"))
    assert (await caller.state(created.alert_id)).status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_NOT_EVALUATED
    enable = alert_service_pb2.EnableAlertRequest(alert_id=created.alert_id)
    await caller.alerts.EnableAlert(enable, metadata=caller.metadata)
    await caller.backfilled(created.alert_id)
    assert await notified(caller) == [("REACHED", "10"), ("REACHED", "20")]
    assert (await caller.state(created.alert_id)).gauges[0].gauge.value == "25"


async def test_a_disabled_customer_is_not_evaluated_until_it_is_enabled(caller: Caller) -> None:
    created = await caller.create(usage_alert(thresholds=thresholds_at("10")))
    disable = alert_service_pb2.DisableAlertRequest(alert_id=created.alert_id, customer_id="bob")
    for _ in range(2):
        await caller.alerts.DisableAlert(disable, metadata=caller.metadata)
    await caller.send(caller.event("b1", "11", "bob"), caller.event("a1", "11"))
    assert [stored.customer_id for stored in await caller.evaluations()] == ["acme"]
    state = await caller.state(created.alert_id, "bob")
    assert state.disabled_reason == customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_REQUESTED
    enable = alert_service_pb2.EnableAlertRequest(alert_id=created.alert_id, customer_id="bob")
    await caller.alerts.EnableAlert(enable, metadata=caller.metadata)
    assert [stored.customer_id for stored in await caller.evaluations()] == ["acme", "bob"]
    await caller.send(caller.event("b2", "-2", "bob"))
    assert len(await caller.evaluations()) == 3


async def test_an_archived_alert_refuses_update_and_enable(caller: Caller, usual: alert_pb2.Alert) -> None:
    await caller.archive(usual.alert_id)
    enable = alert_service_pb2.EnableAlertRequest(alert_id=usual.alert_id)
    for call in (
        update(caller, usual.alert_id, display_name="n"),
        caller.alerts.EnableAlert(enable, metadata=caller.metadata),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        assert reason_of(error.value) == "ERROR_REASON_ALERT_ARCHIVED"


async def test_a_uniqueness_key_of_an_archived_alert_is_free_after_its_release(caller: Caller) -> None:
    alert = usage_alert("10")
    alert.uniqueness_key = "mine"
    first = await caller.create(alert)
    release = alert_service_pb2.ReleaseUniquenessKeyRequest(alert_id=first.alert_id)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await caller.alerts.ReleaseUniquenessKey(release, metadata=caller.metadata)
    assert reason_of(error.value) == "ERROR_REASON_ALERT_NOT_ARCHIVED"
    await caller.archive(first.alert_id)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await caller.create(alert)
    assert reason_of(error.value) == "ERROR_REASON_UNIQUENESS_KEY_TAKEN"
    await caller.alerts.ReleaseUniquenessKey(release, metadata=caller.metadata)
    assert (await caller.create(alert)).alert_id != first.alert_id


@own_server
async def test_the_history_lists_each_change_with_the_key_that_made_it(caller: Caller, clock: ManualClock) -> None:
    usual = await create_usual(caller)
    clock.advance(timedelta(minutes=1))
    await update(caller, usual.alert_id, thresholds=thresholds_at("12"))
    await update(caller, usual.alert_id, policy=RESET)
    disable = alert_service_pb2.DisableAlertRequest(alert_id=usual.alert_id, customer_id="bob")
    await caller.alerts.DisableAlert(disable, metadata=caller.metadata)
    await caller.archive(usual.alert_id)
    request = alert_service_pb2.ListAlertChangesRequest(alert_id=usual.alert_id, page_size=3)
    first = await caller.alerts.ListAlertChanges(request, metadata=caller.metadata)
    request.page_token = first.next_page_token
    second = await caller.alerts.ListAlertChanges(request, metadata=caller.metadata)
    changes = [*first.changes, *second.changes]
    assert [
        alert_change_pb2.AlertChangeKind.Name(one.kind).removeprefix("ALERT_CHANGE_KIND_") for one in changes
    ] == [
        "ARCHIVED",
        "DISABLED",
        "RESET",
        "UPDATED",
        "CREATED",
    ]
    assert [one.alert.thresholds[0].value for one in changes] == ["12", "12", "12", "12", "10"]
    assert [one.alert.version for one in changes] == [4, 3, 3, 2, 1]
    assert (changes[1].customer_id, changes[3].change_time.seconds) == ("bob", int(clock.now().timestamp()))
    assert {one.key_id[:4] for one in changes} == {"key_"}


async def test_an_edit_reaches_the_other_replica(caller: Caller, usual: alert_pb2.Alert) -> None:
    async with beside(caller) as other:
        await other.send(other.event("e2", "1"))
        await update(caller, usual.alert_id, thresholds=thresholds_at("10", "17"))
        answer = await other.send(other.event("e3", "1"))
        assert [one.level for one in answer.transitions] == ["17"]


async def test_an_update_replaces_and_clears_price_filters(caller: Caller) -> None:
    filters = [
        filter_pb2.PriceFilter(
            field=filter_pb2.PRICE_FIELD_PRICE_ID,
            operator=filter_pb2.FILTER_OPERATOR_INCLUDES,
            values=[price],
        )
        for price in ("p1", "p2")
    ]
    condition = condition_pb2.SpendExceededCondition(currency="USD", price_filters=filters[:1])
    created = await caller.create(
        alert_pb2.Alert(
            display_name="s", scope=on_plan("pro"), spend_exceeded=condition, thresholds=thresholds_at("10")
        )
    )
    changed = await update(
        caller,
        created.alert_id,
        "spend_exceeded.price_filters",
        spend_exceeded=condition_pb2.SpendExceededCondition(price_filters=filters[1:]),
    )
    assert changed.spend_exceeded.price_filters[0].values == ["p2"]
    cleared = await update(caller, created.alert_id, "spend_exceeded.price_filters")
    assert not cleared.spend_exceeded.price_filters


async def test_an_update_to_the_definition_of_another_alert_is_refused_with_its_id(caller: Caller) -> None:
    def condition(price: str) -> condition_pb2.SpendExceededCondition:
        one = filter_pb2.PriceFilter(
            field=filter_pb2.PRICE_FIELD_PRICE_ID,
            operator=filter_pb2.FILTER_OPERATOR_INCLUDES,
            values=[price],
        )
        return condition_pb2.SpendExceededCondition(currency="USD", price_filters=[one])

    def alert(price: str, key: str) -> alert_pb2.Alert:
        return alert_pb2.Alert(
            display_name=price,
            scope=on_plan("pro"),
            spend_exceeded=condition(price),
            thresholds=thresholds_at("10"),
            uniqueness_key=key,
        )

    first, second = await caller.create(alert("p1", "k1")), await caller.create(alert("p2", "k2"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await update(caller, second.alert_id, "spend_exceeded.price_filters", spend_exceeded=condition("p1"))
    assert (raised.value.code(), reason_of(raised.value)) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "ERROR_REASON_ALERT_EXISTS",
    )
    assert first.alert_id in (raised.value.details() or "")


async def test_all_thresholds_of_removed_overrides_resolve(caller: Caller) -> None:
    groups = [f"g{number}" for number in range(220)]
    condition = condition_pb2.CostExceededCondition(grouping_keys=["team"], currency="USD")
    for number, group in enumerate(groups):
        team = filter_pb2.GroupSelector(key="team", value=group)
        condition.threshold_overrides.add(group_values=[team], thresholds=thresholds_at(str(number + 1)))
    created = await caller.create(
        alert_pb2.Alert(
            display_name="c", scope=on_plan("pro"), cost_exceeded=condition, thresholds=thresholds_at("1000")
        )
    )
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="acme", subscription_id="s", plan_id="pro")
    )
    await caller.send(*(caller.event(group, cost="300", subscription="s", team=group) for group in groups))
    assert len(await notified(caller)) == len(groups)
    await update(caller, created.alert_id, "cost_exceeded.threshold_overrides")
    resolved = [level for kind, level in await notified(caller) if kind == "RESOLVED"]
    assert sorted(map(int, resolved)) == list(range(1, len(groups) + 1))

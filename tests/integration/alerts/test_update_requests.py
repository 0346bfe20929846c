"""Requests that change alerts: update masks, etags, and customers and alerts that can be disabled and reset."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from google.protobuf import text_format
from google.protobuf.field_mask_pb2 import FieldMask

from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_alert_pb2,
    subscription_pb2,
    threshold_pb2,
)
from tests.support.server.running import reason_of, violations_of
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller, beside, on_customer, on_plan, usage_alert

pytestmark = shares_server

NOT_FOUND, PRECONDITION = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION


async def update(caller: Caller, alert: alert_pb2.Alert, *paths: str) -> alert_pb2.Alert:
    request = alert_service_pb2.UpdateAlertRequest(alert=alert, update_mask=FieldMask(paths=paths))
    return (await caller.alerts.UpdateAlert(request, metadata=caller.metadata)).alert


async def switch(caller: Caller, on: bool, **ids: Any) -> alert_pb2.Alert:
    if on:
        enable = alert_service_pb2.EnableAlertRequest(**ids)
        return (await caller.alerts.EnableAlert(enable, metadata=caller.metadata)).alert
    disable = alert_service_pb2.DisableAlertRequest(**ids)
    return (await caller.alerts.DisableAlert(disable, metadata=caller.metadata)).alert


async def refused(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), reason_of(error.value).removeprefix("ERROR_REASON_")


@pytest.mark.parametrize(
    "path",
    [
        "alert_id",
        "version",
        "etag",
        "uniqueness_key",
        "scope",
        "condition",
        "usage_threshold_reached",
        "usage_threshold_reached.metric_id",
        "usage_threshold_reached.group_values",
        "thresholds.code",
        "thresholds[0].value",
        "cost_exceeded.threshold_overrides",
        "nothing",
        "",
    ],
)
async def test_an_update_mask_with_an_immutable_field_is_refused(caller: Caller, path: str) -> None:
    created = await caller.create(usage_alert("10"))
    wanted = alert_pb2.Alert(alert_id=created.alert_id, display_name="another")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await update(caller, wanted, "display_name", path)
    assert violations_of(error.value) == ["update_mask.paths[1]"]
    assert (await update(caller, wanted)).version == 2  # the refused one changed nothing


async def test_an_update_changes_and_clears_only_the_fields_of_its_mask(caller: Caller) -> None:
    created = await caller.create(usage_alert("10"))
    wanted = alert_pb2.Alert(
        alert_id=created.alert_id, display_name="n", thresholds=[threshold_pb2.Threshold(value="7")]
    )
    changed = await update(caller, wanted, "display_name", "display_name")
    assert (changed.display_name, [one.value for one in changed.thresholds]) == ("n", ["10"])
    for paths in (["*", "display_name"], ["display_name", "*"]):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await update(caller, wanted, *paths)
        assert violations_of(error.value) == ["update_mask"]
    for path in ("display_name", "state", "thresholds"):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await update(caller, alert_pb2.Alert(alert_id=created.alert_id), path)
        assert violations_of(error.value) == [f"alert.{path}"]
    nothing = await update(caller, alert_pb2.Alert(alert_id=created.alert_id))
    assert nothing == changed


async def test_an_update_ignores_output_only_fields(caller: Caller) -> None:
    """Read, change, write: output-only fields of the request are ignored."""
    read = await caller.create(usage_alert("10"))
    read.display_name = "another"
    read.version, read.evaluation_status = 99, alert_pb2.EVALUATION_STATUS_EVALUATING
    read.archive_time.GetCurrentTime()
    changed = await update(caller, read, "*")
    assert (changed.display_name, changed.version, changed.state) == ("another", 2, alert_pb2.ALERT_STATE_ACTIVE)
    assert not changed.HasField("archive_time")


FILTERED = (
    """invoice_total_reached { invoice_types_filter: ["USAGE", "ADVANCE"]
        custom_field_filters { entity: CUSTOM_FIELD_ENTITY_CONTRACT key: "z" value: "1" }
        custom_field_filters { entity: CUSTOM_FIELD_ENTITY_CONTRACT key: "a" value: "1" } }""",
    'low_credit_balance_reached { credit_grant_type_filters: ["z", "a", "z"] }',
    """low_remaining_commit_balance_reached {
        custom_field_filters { entity: CUSTOM_FIELD_ENTITY_COMMIT key: "z" value: "1" }
        custom_field_filters { entity: CUSTOM_FIELD_ENTITY_COMMIT key: "a" value: "1" } }""",
    """low_remaining_contract_credit_and_commit_balance_reached { alert_specifiers {
        custom_field_filters { entity: CUSTOM_FIELD_ENTITY_COMMIT key: "z" value: "1" }
        custom_field_filters { entity: CUSTOM_FIELD_ENTITY_COMMIT key: "a" } } }""",
    'usage_threshold_reached { metric_id: "calls" group_values { key: "z" } group_values { key: "a" value: "1" } }',
)


@pytest.mark.parametrize("condition", FILTERED)
async def test_an_update_accepts_the_definition_as_it_was_created_and_refuses_other_filters(
    caller: Caller, condition: str
) -> None:
    """The update repeats the filters of the create request in any order; without them it is refused."""
    text = f'display_name: "n" scope {{ all_customers {{}} }} thresholds {{ value: "10" }} {condition}'
    kept = text_format.Parse(text, alert_pb2.Alert())
    created = await caller.create(kept)
    kept.alert_id, kept.display_name = created.alert_id, "another"
    changed = await update(caller, kept, "*")
    created.MergeFrom(alert_pb2.Alert(display_name="another", version=2, etag=changed.etag))
    created.update_time.CopyFrom(changed.update_time)
    created.evaluation_status = changed.evaluation_status
    assert changed == created

    case = kept.WhichOneof("condition")
    assert case is not None
    lists = [field.name for field, _ in getattr(kept, case).ListFields() if field.is_repeated]
    for name in lists:
        getattr(kept, case).ClearField(name)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await update(caller, kept, "*")
    assert sorted(violations_of(error.value)) == sorted(f"alert.{case}.{name}" for name in lists)
    assert (await update(caller, kept, "display_name")).version == 2


async def test_one_of_concurrent_updates_with_the_same_etag_succeeds(caller: Caller) -> None:
    created = await caller.create(usage_alert("10"))
    wanted = [
        alert_pb2.Alert(alert_id=created.alert_id, etag=created.etag, display_name=f"n{number}")
        for number in range(8)
    ]
    async with beside(caller) as other:
        calls = [update((caller, other)[number % 2], alert) for number, alert in enumerate(wanted)]
        results = await asyncio.gather(*calls, return_exceptions=True)
    [won] = [one for one in results if isinstance(one, alert_pb2.Alert)]
    lost = [one for one in results if isinstance(one, grpc.aio.AioRpcError)]
    assert {(one.code(), reason_of(one)) for one in lost} == {(grpc.StatusCode.ABORTED, "ERROR_REASON_ETAG_MISMATCH")}
    assert len(lost) == len(wanted) - 1
    request = alert_service_pb2.GetAlertRequest(alert_id=created.alert_id)
    assert (await caller.alerts.GetAlert(request, metadata=caller.metadata)).alert == won


async def test_enable_disable_and_archive_refuse_an_old_etag(caller: Caller) -> None:
    created = await caller.create(usage_alert("10"))
    stale = {"alert_id": created.alert_id, "etag": "7"}
    archive = alert_service_pb2.ArchiveAlertRequest(alert_id=created.alert_id, etag="7")
    for call in (
        switch(caller, False, **stale),
        switch(caller, True, **stale),
        caller.alerts.ArchiveAlert(archive, metadata=caller.metadata),
    ):
        assert await refused(call) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert (await switch(caller, False, alert_id=created.alert_id, etag="1")).version == 2


async def test_a_second_enable_or_disable_changes_nothing(caller: Caller) -> None:
    created = await caller.create(usage_alert("10"))
    for on in (False, True):
        assert await switch(caller, on, alert_id=created.alert_id) == await switch(
            caller, on, alert_id=created.alert_id
        )
        for _ in range(2):
            await switch(caller, on, alert_id=created.alert_id, customer_id="acme")
    request = alert_service_pb2.ListAlertChangesRequest(alert_id=created.alert_id)
    changes = (await caller.alerts.ListAlertChanges(request, metadata=caller.metadata)).changes
    assert len(changes) == 5


async def test_a_disabled_subscription_is_not_evaluated_and_others_are(caller: Caller) -> None:
    for subscription in ("s1", "s2"):
        await caller.put_subscription(
            subscription_pb2.Subscription(customer_id="acme", subscription_id=subscription, plan_id="pro")
        )
    condition = condition_pb2.UsageExceededCondition(metric_id="calls")
    created = await caller.create(
        alert_pb2.Alert(
            display_name="n", scope=on_plan("pro"), usage_exceeded=condition, thresholds=usage_alert("10").thresholds
        )
    )
    ids = {"alert_id": created.alert_id, "customer_id": "acme"}
    await switch(caller, False, **ids, subscription_id="s1")
    await caller.send(*(caller.event(one, "15", subscription=one) for one in ("s1", "s2")))
    assert await subscriptions_notified(caller) == ["s2"]
    shown = await caller.state(created.alert_id)
    enabled = customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_NONE
    assert (len(shown.gauges), shown.disabled_reason) == (1, enabled)
    # Disabled for the customer means disabled for each subscription, also for one that is enabled.
    await switch(caller, False, **ids)
    await switch(caller, True, **ids, subscription_id="s1")
    requested = customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_REQUESTED
    assert (await caller.state(created.alert_id)).disabled_reason == requested
    assert await subscriptions_notified(caller) == ["s2"]
    await switch(caller, True, **ids)
    assert await subscriptions_notified(caller) == ["s2", "s1"]


async def subscriptions_notified(caller: Caller) -> list[str]:
    """The subscriptions that notifications are about, in order."""
    return [one.body["data"]["gauge"]["subscription_id"] for one in await caller.evaluations()]


async def test_enable_and_disable_refuse_a_customer_that_the_alert_does_not_cover(caller: Caller) -> None:
    alert = await caller.create(usage_alert("10", scope=on_customer("acme")))
    for on in (False, True):
        for ids, path in (
            ({"customer_id": "beta"}, "customer_id"),
            ({"subscription_id": "s1"}, "customer_id"),
            ({"customer_id": "acme", "subscription_id": "s1"}, "subscription_id"),
            ({"customer_id": "acme", "etag": "1"}, "etag"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await switch(caller, on, alert_id=alert.alert_id, **ids)
            assert violations_of(error.value) == [path]


async def test_reset_refuses_a_customer_that_is_not_evaluated(caller: Caller) -> None:
    await caller.send(caller.event("e1"), caller.event("e2", customer="beta"))
    alert = await caller.create(usage_alert("10", scope=on_customer("acme")))

    async def reset(customer: str = "acme", alert_id: str = alert.alert_id) -> None:
        request = alert_service_pb2.ResetCustomerAlertRequest(alert_id=alert_id, customer_id=customer)
        await caller.alerts.ResetCustomerAlert(request, metadata=caller.metadata)

    await reset()
    assert await refused(reset("nobody")) == (NOT_FOUND, "CUSTOMER_NOT_FOUND")
    assert await refused(reset("beta")) == (NOT_FOUND, "ALERT_NOT_FOUND")
    assert await refused(reset(alert_id="none")) == (NOT_FOUND, "ALERT_NOT_FOUND")
    await switch(caller, False, alert_id=alert.alert_id, customer_id="acme")
    assert await refused(reset()) == (PRECONDITION, "ALERT_NOT_EVALUATED")
    await switch(caller, True, alert_id=alert.alert_id, customer_id="acme")
    await switch(caller, False, alert_id=alert.alert_id)
    assert await refused(reset()) == (PRECONDITION, "ALERT_NOT_EVALUATED")
    await caller.archive(alert.alert_id)
    assert await refused(reset()) == (PRECONDITION, "ALERT_ARCHIVED")

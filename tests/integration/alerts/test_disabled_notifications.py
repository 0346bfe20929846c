"""A caller that disables an alert causes one notification: in the history, on streams, and as a webhook."""

import json
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import (
    alert_pb2,
    condition_pb2,
    customer_alert_pb2,
    notification_pb2,
    scope_pb2,
    subscription_pb2,
)
from generated.tidemark.v1 import alert_service_pb2 as messages
from tests.support.notifications.watching import watch
from tests.support.schemas import check_body
from tests.support.server.running import reason_of
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import DEADLINE, Caller, thresholds, usage_alert

pytestmark = shares_server


REQUESTED = customer_alert_pb2.CUSTOMER_ALERT_DISABLED_REASON_REQUESTED


async def switch(caller: Caller, method: str, alert_id: str, **target: str) -> None:
    """Calls DisableAlert or EnableAlert."""
    request = getattr(messages, f"{method}AlertRequest")(alert_id=alert_id, **target)
    await getattr(caller.alerts, f"{method}Alert")(request, metadata=caller.metadata, timeout=DEADLINE)


async def listed(caller: Caller, **fields: Any) -> list[notification_pb2.Notification]:
    """The notifications of the organization, the newest first."""
    request = messages.ListNotificationsRequest(**fields)
    answer = await caller.alerts.ListNotifications(request, metadata=caller.metadata, timeout=DEADLINE)
    return list(answer.notifications)


async def test_alert_disabled_as_a_whole_notifies_once_without_a_customer(caller: Caller) -> None:
    alert = await caller.create(usage_alert("10"))
    subscriber = await watch(caller)
    await switch(caller, "Disable", alert.alert_id)
    await switch(caller, "Disable", alert.alert_id)
    [found] = await listed(caller)
    assert await subscriber.next() == found
    assert (found.alert_id, found.customer_id, found.sequence) == (alert.alert_id, "", 0)
    assert (found.alert_version, found.alert_display_name) == (2, alert.display_name)
    assert found.alert_disabled == notification_pb2.AlertDisabled(reason=REQUESTED)
    body = json.loads(found.body)
    check_body(body)
    assert (body["type"], body["id"]) == ("alert.disabled", found.notification_id)
    assert "customer_id" not in body["data"]
    request = messages.GetNotificationRequest(notification_id=found.notification_id)
    answer = await caller.alerts.GetNotification(request, metadata=caller.metadata)
    assert answer.notification == found
    assert await listed(caller, customer_ids=["acme"]) == []


async def test_alert_disabled_for_a_customer_notifies_each_time_it_is_disabled_again(caller: Caller) -> None:
    alert = await caller.create(usage_alert("10"))
    for _ in range(2):
        await switch(caller, "Disable", alert.alert_id, customer_id="acme")
        await switch(caller, "Disable", alert.alert_id, customer_id="acme")
        await switch(caller, "Enable", alert.alert_id, customer_id="acme")
    found = await listed(caller, customer_ids=["acme"])
    assert len(found) == len({one.notification_id for one in found}) == 2
    for one in found:
        assert one.alert_disabled == notification_pb2.AlertDisabled(reason=REQUESTED)
        check_body(json.loads(one.body))
        assert json.loads(one.body)["data"]["customer_id"] == "acme"


async def test_alert_disabled_for_a_subscription_notifies_with_the_subscription(caller: Caller) -> None:
    await caller.put_subscription(
        subscription_pb2.Subscription(customer_id="acme", subscription_id="s1", plan_id="gold")
    )
    alert = alert_pb2.Alert(
        display_name="usage",
        scope=scope_pb2.AlertScope(plan=scope_pb2.PlanScope(plan_id="gold")),
        usage_exceeded=condition_pb2.UsageExceededCondition(metric_id="calls"),
        thresholds=thresholds("10"),
    )
    alert_id = (await caller.create(alert)).alert_id
    await switch(caller, "Disable", alert_id, customer_id="acme", subscription_id="s1")
    await switch(caller, "Disable", alert_id, customer_id="acme")
    found = await listed(caller)
    assert sorted(one.alert_disabled.subscription_id for one in found) == ["", "s1"]
    assert {one.customer_id for one in found} == {"acme"}


async def test_disabling_that_is_refused_sends_no_notification(caller: Caller) -> None:
    alert = await caller.create(usage_alert("10"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await switch(caller, "Disable", alert.alert_id, etag="7")
    assert reason_of(refused.value) == "ERROR_REASON_ETAG_MISMATCH"
    await caller.archive(alert.alert_id)
    with pytest.raises(grpc.aio.AioRpcError):
        await switch(caller, "Disable", alert.alert_id)
    assert await listed(caller) == []

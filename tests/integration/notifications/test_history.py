"""The history of notifications: one by its id, and lists by time, customer, alert, condition and event type."""

from datetime import timedelta
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import condition_pb2, notification_pb2
from generated.tidemark.v1.event_type_pb2 import (
    EVENT_TYPE_ALERT_REACHED,
    EVENT_TYPE_ALERT_RESOLVED,
    EVENT_TYPE_ENDPOINT_FAILING,
)
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from server.limits import ServerLimits
from tests.support.notifications.watching import committer, names, watch
from tests.support.server.running import reason_of, violations_of
from tests.support.server.sharing import own_server, shares_server
from tests.support.usage.caller import Caller, beside, spend_alert, usage_alert
from tests.support.usage.organizations import organization

pytestmark = shares_server


Page = messages.ListNotificationsResponse


async def listed(caller: Caller, **request: Any) -> Page:
    """One page."""
    return await caller.alerts.ListNotifications(
        messages.ListNotificationsRequest(**request), metadata=caller.metadata
    )


async def got(caller: Caller, notification_id: str) -> notification_pb2.Notification:
    """One notification."""
    answer = await caller.alerts.GetNotification(
        messages.GetNotificationRequest(notification_id=notification_id), metadata=caller.metadata
    )
    return answer.notification


@pytest.fixture
async def stored(caller: Caller, clock: ManualClock) -> list[notification_pb2.Notification]:
    """Six notifications, the newest first, an hour apart except two with the same time."""
    async with committer(caller) as writer:
        for number in range(1, 4):
            await writer.notifies(("ann", number))
            clock.advance(timedelta(hours=1))
        await writer.notifies(("bob", 1), ("ann", 4))
        clock.advance(timedelta(hours=1))
        await writer.notifies(("bob", 1), alert_id="alt_2")
        await writer.commits()
    found = list((await listed(caller)).notifications)
    assert [(one.alert_id, *pair) for one, pair in zip(found, names(found), strict=True)] == [
        ("alt_2", "bob", 1),
        ("alt_1", "ann", 4),
        ("alt_1", "bob", 1),
        ("alt_1", "ann", 3),
        ("alt_1", "ann", 2),
        ("alt_1", "ann", 1),
    ]
    return found


async def test_the_history_shows_the_notification_of_the_answer_and_of_the_stream(caller: Caller) -> None:
    await caller.create(usage_alert("10"))
    subscriber = await watch(caller)
    answer = await caller.send(caller.event("e1", "12"))
    [transition] = answer.transitions
    found = await got(caller, transition.notification_id)
    assert list((await listed(caller)).notifications) == [found] == await subscriber.take(1)
    [[body]] = await caller.rows("SELECT body FROM notification WHERE organization_id = %(organization_id)s")
    assert found.body == body


@own_server
async def test_each_filter_narrows_the_list(caller: Caller, stored: list[notification_pb2.Notification]) -> None:
    async def found(**request: Any) -> list[notification_pb2.Notification]:
        return list((await listed(caller, **request)).notifications)

    usage = condition_pb2.CONDITION_TYPE_USAGE_THRESHOLD_REACHED
    spend = condition_pb2.CONDITION_TYPE_SPEND_THRESHOLD_REACHED
    assert await found(customer_ids=["bob"]) == [stored[0], stored[2]]
    assert await found(customer_ids=["bob", "ann"]) == stored
    assert await found(alert_ids=["alt_1"]) == stored[1:]
    assert await found(alert_ids=["alt_1", "alt_2"], customer_ids=["bob"]) == [stored[0], stored[2]]
    assert await found(alert_ids=["alt_3"]) == []
    assert await found(condition_types=[spend, usage]) == stored
    assert await found(condition_types=[spend]) == []
    assert await found(event_types=[EVENT_TYPE_ALERT_REACHED]) == stored
    assert await found(event_types=[EVENT_TYPE_ALERT_RESOLVED]) == []
    # The start belongs to the time span, the end does not.
    assert await found(start_time=stored[4].create_time) == stored[:5]
    assert await found(end_time=stored[4].create_time) == stored[5:]
    assert await found(start_time=stored[4].create_time, end_time=stored[1].create_time) == stored[3:5]


async def test_notifications_of_each_condition_are_found_by_their_type(caller: Caller) -> None:
    usage, spend = await caller.create(usage_alert("10")), await caller.create(spend_alert("10"))
    await caller.send(caller.event("e1", "12", cost="12"))
    kinds = {
        usage.alert_id: condition_pb2.CONDITION_TYPE_USAGE_THRESHOLD_REACHED,
        spend.alert_id: condition_pb2.CONDITION_TYPE_SPEND_THRESHOLD_REACHED,
    }
    for alert_id, kind in kinds.items():
        [one] = (await listed(caller, condition_types=[kind])).notifications
        assert (one.alert_id, one.condition_type) == (alert_id, kind)


@own_server
@pytest.mark.parametrize("size", [1, 2, 5, 6, 7])
async def test_pages_hold_each_notification_once_while_others_are_written(
    caller: Caller, stored: list[notification_pb2.Notification], size: int
) -> None:
    found: list[notification_pb2.Notification] = []
    token = ""
    for number in range(7):
        page = await listed(caller, page_size=size, page_token=token)
        assert len(page.notifications) <= size
        found += page.notifications
        token = page.next_page_token
        if not token:
            break
        # A notification written between two pages stands before the first page, and shifts no later page.
        async with committer(caller) as writer:
            await writer.notifies(("new", number))
            await writer.commits()
    assert found == stored


@own_server
async def test_pages_are_shorter_when_bodies_are_long(
    caller: Caller, stored: list[notification_pb2.Notification]
) -> None:
    limits = ServerLimits(notification_bytes=stored[0].ByteSize() + stored[1].ByteSize() + 20)
    async with beside(caller, server_limits=limits) as other:
        first = await listed(other)
        assert list(first.notifications) == stored[:2]
        rest = await listed(other, page_token=first.next_page_token)
        assert list(rest.notifications) == stored[2:4]


@own_server
async def test_a_page_token_is_refused_with_other_filters(
    caller: Caller, clock: ManualClock, stored: list[notification_pb2.Notification]
) -> None:
    token = (await listed(caller, page_size=2, customer_ids=["ann", "bob"])).next_page_token
    assert (await listed(caller, page_token=token, customer_ids=["bob", "ann"])).notifications
    name, key = await organization(caller.database_url, clock)
    stranger = Caller(caller.server, clock, caller.database_url, name, key)
    subscriber = await watch(caller, customer_ids=["ann", "bob"])
    for whose, request in (
        (stranger, {"page_token": token, "customer_ids": ["ann", "bob"]}),
        (caller, {"page_token": token}),
        (caller, {"page_token": token, "customer_ids": ["ann", "bob"], "start_time": stored[5].create_time}),
        (caller, {"page_token": subscriber.token, "customer_ids": ["ann", "bob"]}),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await listed(whose, **request)
        assert reason_of(raised.value) == "ERROR_REASON_PAGE_TOKEN_INVALID"


async def test_all_violations_of_a_list_request_are_named(caller: Caller, clock: ManualClock) -> None:
    now = to_timestamp(clock.now())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await listed(
            caller, page_size=-1, customer_ids=[""], event_types=[EVENT_TYPE_ENDPOINT_FAILING], start_time=now
        )
    assert violations_of(raised.value) == ["event_types[0]", "customer_ids[0]", "page_size"]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await listed(caller, start_time=now, end_time=now)
    assert violations_of(raised.value) == ["end_time"]


@own_server
async def test_a_notification_is_not_found_by_another_organization(
    caller: Caller, clock: ManualClock, stored: list[notification_pb2.Notification]
) -> None:
    name, key = await organization(caller.database_url, clock)
    stranger = Caller(caller.server, clock, caller.database_url, name, key)
    assert not (await listed(stranger)).notifications
    assert await got(caller, stored[0].notification_id) == stored[0]
    for whose, notification_id in ((stranger, stored[0].notification_id), (caller, "ntf_nothing")):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await got(whose, notification_id)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        assert reason_of(raised.value) == "ERROR_REASON_NOTIFICATION_NOT_FOUND"

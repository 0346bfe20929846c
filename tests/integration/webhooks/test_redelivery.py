"""Redelivery of one notification (pending, finished or in progress), and test events."""

import json
from datetime import timedelta

import grpc
import pytest

from generated.tidemark.v1 import (
    delivery_pb2,
    operator_event_pb2,
)
from generated.tidemark.v1.event_type_pb2 import (
    EVENT_TYPE_ALERT_REACHED,
    EVENT_TYPE_ENDPOINT_DISABLED,
    EVENT_TYPE_ENDPOINT_TEST,
    EVENT_TYPE_EVALUATION_FAILED,
)
from generated.tidemark.v1.webhook_service_pb2 import (
    DisableEndpointRequest,
    GetDeliveryRequest,
    GetEndpointRequest,
    ListOperatorEventsRequest,
    RedeliverNotificationRequest,
    SendTestEventRequest,
)
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from server.mapping.event_type_numbers import NUMBERS
from store.notifications.operator_events import add
from tests.support.notifier.house import House
from tests.support.server.running import reason_of, violations_of
from tests.support.webhooks.attempts import attempt_all, claim, fan_out, record
from webhooks.deliveries import DeliveryStatus
from webhooks.operator_events import Notice, OperatorEvent, OperatorEventType

URL = "https://hooks.example.com/tidemark"
HOUR = timedelta(hours=1)


async def redeliver(
    webhooks: WebhookServiceStub, endpoint_id: str, notification_id: str, request_id: str = ""
) -> delivery_pb2.Delivery:
    request = RedeliverNotificationRequest(
        endpoint_id=endpoint_id, notification_id=notification_id, request_id=request_id
    )
    return (await webhooks.RedeliverNotification(request)).delivery


async def test_a_redelivery_replaces_the_scheduled_attempt_of_a_pending_delivery(
    webhooks: WebhookServiceStub, house: House
) -> None:
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    [notification_id] = await house.notify()
    await attempt_all(house, DeliveryStatus.PENDING, HOUR)
    assert await claim(house) == []
    again = await redeliver(webhooks, endpoint_id, notification_id)
    assert (again.status, again.trigger) == (
        delivery_pb2.DELIVERY_STATUS_PENDING,
        delivery_pb2.DELIVERY_TRIGGER_MANUAL,
    )
    [claimed] = await claim(house)
    assert (claimed.trigger, claimed.attempt_count, claimed.schedule_step) == ("MANUAL", 1, 1)
    await record(house, [claimed], DeliveryStatus.DELIVERED)
    # There is one row, and the wait of an hour is over.
    [delivery] = await house.deliveries()
    assert (delivery.status, delivery.attempt_count) == (DeliveryStatus.DELIVERED, 2)
    assert delivery.next_attempt_time is None


async def test_the_retry_schedule_continues_after_a_failed_redelivery(
    webhooks: WebhookServiceStub, house: House
) -> None:
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    [notification_id] = await house.notify()
    await attempt_all(house, DeliveryStatus.PENDING, HOUR)
    await redeliver(webhooks, endpoint_id, notification_id)
    await record(house, await claim(house), DeliveryStatus.PENDING, HOUR)
    shown = (await webhooks.GetEndpoint(GetEndpointRequest(endpoint_id=endpoint_id))).endpoint
    assert shown.health.failure_count == 1  # the manual attempt does not change the counters
    await house.make_due()
    [claimed] = await claim(house)
    assert (claimed.trigger, claimed.schedule_step) == ("AUTOMATIC", 2)


@pytest.mark.parametrize("status", [DeliveryStatus.DELIVERED, DeliveryStatus.FAILED])
async def test_a_redelivery_of_a_finished_delivery_has_the_same_id(
    webhooks: WebhookServiceStub, house: House, status: DeliveryStatus
) -> None:
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    ids = await house.notify(2)
    await attempt_all(house, status)
    before = {row.notification_id: row for row in await house.deliveries()}
    again = await redeliver(webhooks, endpoint_id, ids[0])
    assert again.delivery_id == before[ids[0]].delivery_id
    assert not again.HasField("finish_time")
    [claimed] = await claim(house)
    assert claimed.notification_id == ids[0]
    assert claimed.body is not None
    await record(house, [claimed], DeliveryStatus.DELIVERED)
    after = {row.notification_id: row for row in await house.deliveries()}
    assert len(after) == 2
    assert after[ids[1]] == before[ids[1]]
    assert (after[ids[0]].status, after[ids[0]].attempt_count) == (DeliveryStatus.DELIVERED, 2)
    shown = await webhooks.GetDelivery(GetDeliveryRequest(delivery_id=again.delivery_id))
    assert [attempt.trigger for attempt in shown.attempts] == [
        delivery_pb2.DELIVERY_TRIGGER_AUTOMATIC,
        delivery_pb2.DELIVERY_TRIGGER_MANUAL,
    ]


async def test_a_delivery_in_progress_is_not_redelivered(webhooks: WebhookServiceStub, house: House) -> None:
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    [notification_id] = await house.notify()
    await fan_out(house)
    [claimed] = await claim(house)
    during = await redeliver(webhooks, endpoint_id, notification_id)
    assert during.trigger == delivery_pb2.DELIVERY_TRIGGER_AUTOMATIC
    assert not during.HasField("next_attempt_time")
    assert len(await record(house, [claimed], DeliveryStatus.DELIVERED)) == 1
    [delivery] = await house.deliveries()
    assert (delivery.status, delivery.attempt_count) == (DeliveryStatus.DELIVERED, 1)
    assert await house.in_flight() == {endpoint_id: 0}


async def test_a_notification_is_redelivered_to_an_endpoint_without_a_delivery_of_it(
    webhooks: WebhookServiceStub, house: House
) -> None:
    await house.endpoint(URL)
    [notification_id] = await house.notify()
    await attempt_all(house, DeliveryStatus.DELIVERED)
    late = (await house.endpoint(URL)).endpoint.endpoint_id
    sent = await redeliver(webhooks, late, notification_id)
    assert (sent.endpoint_id, sent.attempt_count) == (late, 0)
    [claimed] = await claim(house)
    assert claimed.endpoint_id == late


async def test_a_repeated_redelivery_request_sends_once(webhooks: WebhookServiceStub, house: House) -> None:
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    ids = await house.notify(2)
    await attempt_all(house, DeliveryStatus.DELIVERED)
    first = await redeliver(webhooks, endpoint_id, ids[0], "r-1")
    await attempt_all(house, DeliveryStatus.DELIVERED)
    assert await redeliver(webhooks, endpoint_id, ids[0], "r-1") == first
    assert await claim(house) == []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await redeliver(webhooks, endpoint_id, ids[1], "r-1")
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason_of(caught.value) == "ERROR_REASON_REQUEST_ID_REUSED"


async def test_a_redelivery_is_refused_without_its_endpoint_or_notification(
    webhooks: WebhookServiceStub, house: House
) -> None:
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    [notification_id] = await house.notify()
    await attempt_all(house, DeliveryStatus.DELIVERED)
    for call, reason in (
        (redeliver(webhooks, "whe_nothing", notification_id), "ERROR_REASON_ENDPOINT_NOT_FOUND"),
        (redeliver(webhooks, endpoint_id, "ntf_nothing"), "ERROR_REASON_NOTIFICATION_NOT_FOUND"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert reason_of(caught.value) == reason
    await webhooks.DisableEndpoint(DisableEndpointRequest(endpoint_id=endpoint_id))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await redeliver(webhooks, endpoint_id, notification_id)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(caught.value) == "ERROR_REASON_ENDPOINT_DISABLED"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.SendTestEvent(SendTestEventRequest(endpoint_id=endpoint_id))
    assert reason_of(caught.value) == "ERROR_REASON_ENDPOINT_DISABLED"


async def test_a_test_event_is_sent_to_one_endpoint_despite_its_filters(
    webhooks: WebhookServiceStub, house: House
) -> None:
    endpoint_id = (await house.endpoint(URL, ("alert.resolved",))).endpoint.endpoint_id
    await house.endpoint(URL)
    request = SendTestEventRequest(endpoint_id=endpoint_id, request_id="t-1")
    sent = (await webhooks.SendTestEvent(request)).delivery
    assert (await webhooks.SendTestEvent(request)).delivery == sent
    assert (sent.event_type, sent.customer_id) == (EVENT_TYPE_ENDPOINT_TEST, "")
    assert sent.trigger == delivery_pb2.DELIVERY_TRIGGER_TEST
    await fan_out(house)
    [claimed] = await claim(house)
    assert (claimed.endpoint_id, claimed.notification_id) == (endpoint_id, sent.notification_id)
    assert claimed.body is not None
    body = json.loads(claimed.body)
    assert (body["id"], body["type"]) == (sent.notification_id, "endpoint.test")
    assert body["data"] == {"test": True, "endpoint_id": endpoint_id}


async def test_operator_events_are_listed_by_filter_and_page(webhooks: WebhookServiceStub, house: House) -> None:
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    for number, event_type in enumerate(OperatorEventType):
        async with house.database.transaction() as connection:
            event = OperatorEvent(house.organization_id, endpoint_id, Notice(event_type, {}))
            await add(connection, [event], house.clock.now() + timedelta(seconds=number))

    async def listed(request: ListOperatorEventsRequest) -> list[operator_event_pb2.OperatorEvent]:
        return list((await webhooks.ListOperatorEvents(request)).events)

    everything = await listed(ListOperatorEventsRequest())
    assert [event.event_type for event in everything] == [NUMBERS[name] for name in reversed(OperatorEventType)]
    assert {event.endpoint_id for event in everything} == {endpoint_id}
    assert [json.loads(event.body)["id"] for event in everything] == [event.event_id for event in everything]
    first = await webhooks.ListOperatorEvents(ListOperatorEventsRequest(page_size=3))
    rest = await webhooks.ListOperatorEvents(ListOperatorEventsRequest(page_size=3, page_token=first.next_page_token))
    assert ([*first.events, *rest.events], rest.next_page_token) == (everything, "")
    assert await listed(ListOperatorEventsRequest(endpoint_id="whe_other")) == []
    [disabled] = await listed(ListOperatorEventsRequest(event_types=[EVENT_TYPE_ENDPOINT_DISABLED]))
    assert disabled in everything
    two = [EVENT_TYPE_ENDPOINT_DISABLED, EVENT_TYPE_EVALUATION_FAILED]
    assert {event.event_type for event in await listed(ListOperatorEventsRequest(event_types=two))} == set(two)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await listed(ListOperatorEventsRequest(event_types=[EVENT_TYPE_ENDPOINT_TEST, EVENT_TYPE_ALERT_REACHED]))
    assert violations_of(caught.value) == ["event_types[1]"]


async def test_an_operator_event_reaches_the_endpoints_that_name_its_type(
    webhooks: WebhookServiceStub, house: House
) -> None:
    about = (await house.endpoint(URL)).endpoint.endpoint_id
    operators = (await house.endpoint(URL, ("endpoint.disabled",))).endpoint.endpoint_id
    await house.endpoint(URL, ("endpoint.recovered", "alert.reached"))
    async with house.database.transaction() as connection:
        notice = Notice(OperatorEventType.ENDPOINT_DISABLED, {"reason": "GONE"})
        await add(connection, [OperatorEvent(house.organization_id, about, notice)], house.clock.now())
    await fan_out(house)
    [claimed] = await claim(house)
    assert claimed.endpoint_id == operators
    [event] = (await webhooks.ListOperatorEvents(ListOperatorEventsRequest())).events
    assert claimed.body == event.body

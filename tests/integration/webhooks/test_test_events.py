"""SendTestEvent: examples of every type of event, checked at a receiver, and absent from lists."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc
import pytest

from generated.tidemark.v1 import (
    condition_pb2,
    delivery_pb2,
)
from generated.tidemark.v1.alert_service_pb2 import GetNotificationRequest, ListNotificationsRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.event_type_pb2 import (
    EVENT_TYPE_ENDPOINT_DISABLED,
    EVENT_TYPE_ENDPOINT_TEST,
    EVENT_TYPE_UNSPECIFIED,
    EventType,
)
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    GetDeliveryRequest,
    ListDeliveriesRequest,
    ListOperatorEventsRequest,
    RecoverEndpointRequest,
    RedeliverNotificationRequest,
    SendTestEventRequest,
)
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import SystemClock
from server.calls.validation import to_timestamp
from server.mapping.event_type_numbers import NUMBERS
from store.postgres.database import Database
from tests.support.notifier.house import House, configuration, running_notifier
from tests.support.notifier.receiver import Receiver, running_receiver, status
from tests.support.schemas import FILES, check_body
from tests.support.server.running import reason_of, running, violations_of
from webhooks.deliveries import DeliveryStatus

INVOICES = condition_pb2.CONDITION_TYPE_INVOICE_TOTAL_REACHED


@dataclass(frozen=True)
class Stack:
    """A server and a notifier beside it, and a receiver."""

    house: House
    receiver: Receiver
    webhooks: WebhookServiceStub
    alerts: AlertServiceStub

    async def endpoint(
        self,
        path: str = "",
        event_types: Sequence[str] = (),  # names
        condition_types: Sequence[condition_pb2.ConditionType.ValueType] = (),
    ) -> tuple[str, str]:
        """Creates an endpoint; returns its id and its secret."""
        created = await self.webhooks.CreateEndpoint(
            CreateEndpointRequest(
                endpoint=Endpoint(
                    url=self.receiver.url + path,
                    event_types=[NUMBERS[name] for name in event_types],
                    condition_types=condition_types,
                )
            )
        )
        return created.endpoint.endpoint_id, created.secret

    async def send(self, endpoint_id: str, event_type: str = "", request_id: str = "") -> delivery_pb2.Delivery:
        """Sends a test event."""
        number = NUMBERS[event_type] if event_type else EVENT_TYPE_UNSPECIFIED
        request = SendTestEventRequest(endpoint_id=endpoint_id, event_type=number, request_id=request_id)
        return (await self.webhooks.SendTestEvent(request)).delivery


@pytest.fixture
async def stack(database: Database) -> AsyncIterator[Stack]:
    house = await House.build(database, SystemClock())
    settings = configuration(LISTEN="127.0.0.1:0", PROPAGATION_DELAY_SECONDS="0")
    async with (
        running(database, house.clock, configuration=settings) as server,
        running_receiver() as receiver,
        running_notifier(house),
    ):
        yield Stack(house, receiver, WebhookServiceStub(server.channel), AlertServiceStub(server.channel))


@pytest.mark.parametrize("event_type", FILES)
async def test_a_test_event_is_signed_marked_and_valid_for_its_schema(stack: Stack, event_type: str) -> None:
    endpoint_id, secret = await stack.endpoint()
    sent = await stack.send(endpoint_id, event_type)
    [arrival] = await stack.receiver.arrived(1)
    body = arrival.verify(secret)
    assert isinstance(body, dict)
    check_body(body)
    assert (body["type"], body["data"]["test"]) == (event_type, True)
    assert body["id"] == arrival.webhook_id == sent.notification_id
    assert body["id"].startswith("tst_")
    assert (body["data"].get("endpoint_id") == endpoint_id) is (event_type == "endpoint.test")

    await stack.house.settled(DeliveryStatus.DELIVERED, 1)
    shown = (await stack.webhooks.GetDelivery(GetDeliveryRequest(delivery_id=sent.delivery_id))).delivery
    assert (shown.event_type, shown.customer_id) == (NUMBERS[event_type], "")
    assert shown.trigger == delivery_pb2.DELIVERY_TRIGGER_TEST
    listed = await stack.webhooks.ListDeliveries(ListDeliveriesRequest(event_types=[NUMBERS[event_type]]))
    assert list(listed.deliveries) == [shown]


async def test_a_test_event_is_sent_to_one_endpoint_despite_its_filters(stack: Stack) -> None:
    narrow, _ = await stack.endpoint("/narrow", ["alert.resolved"], [INVOICES])
    await stack.endpoint("/all")
    await stack.endpoint("/operators", ["endpoint.disabled", "alert.reached"])
    for event_type in ("alert.reached", "endpoint.disabled"):
        await stack.send(narrow, event_type)
    await stack.house.settled(DeliveryStatus.DELIVERED, 2)
    assert {item.endpoint_id for item in await stack.house.deliveries()} == {narrow}
    assert {arrival.path for arrival in stack.receiver.arrivals} == {"/hook/narrow"}


async def test_a_test_event_is_listed_neither_as_notification_nor_as_operator_event(stack: Stack) -> None:
    start = to_timestamp(stack.house.clock.now())
    endpoint_id, _ = await stack.endpoint()
    sent = {event_type: await stack.send(endpoint_id, event_type) for event_type in FILES}
    await stack.house.settled(DeliveryStatus.DELIVERED, len(FILES))
    assert not (await stack.alerts.ListNotifications(ListNotificationsRequest())).notifications
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.alerts.GetNotification(
            GetNotificationRequest(notification_id=sent["alert.reached"].notification_id)
        )
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    events = (await stack.webhooks.ListOperatorEvents(ListOperatorEventsRequest())).events
    assert [event.event_id for event in events] == [sent["endpoint.test"].notification_id]
    request = ListOperatorEventsRequest(event_types=[EVENT_TYPE_ENDPOINT_DISABLED])
    assert not (await stack.webhooks.ListOperatorEvents(request)).events
    # A recovery by a later endpoint does not send test events: only the one real notification.
    [notification_id] = await stack.house.notify()
    await stack.house.settled(DeliveryStatus.DELIVERED, len(FILES) + 1)
    late, _ = await stack.endpoint("/late", [*FILES][:-1])
    await stack.webhooks.RecoverEndpoint(RecoverEndpointRequest(endpoint_id=late, start_time=start))
    await stack.house.settled(DeliveryStatus.DELIVERED, len(FILES) + 2)
    assert stack.receiver.ids("/hook/late") == [notification_id]


async def test_retries_and_redeliveries_of_a_test_event_have_the_same_body(stack: Stack) -> None:
    endpoint_id, secret = await stack.endpoint()
    stack.receiver.answer(status(500))
    sent = await stack.send(endpoint_id, "alert.reached", "once")
    assert (await stack.send(endpoint_id, "alert.reached", "once")).delivery_id == sent.delivery_id
    await stack.house.attempted(1)
    await stack.house.make_due()
    await stack.house.settled(DeliveryStatus.DELIVERED, 1)
    request = RedeliverNotificationRequest(endpoint_id=endpoint_id, notification_id=sent.notification_id)
    await stack.webhooks.RedeliverNotification(request)
    arrivals = await stack.receiver.arrived(3)
    assert {arrival.webhook_id for arrival in arrivals} == {sent.notification_id}
    [body] = {arrival.body for arrival in arrivals}
    for arrival in arrivals:
        assert arrival.verify(secret) == json.loads(body)


async def test_a_test_event_without_a_type_is_an_endpoint_test(stack: Stack) -> None:
    endpoint_id, _ = await stack.endpoint()
    assert (await stack.send(endpoint_id, request_id="r-1")).event_type == EVENT_TYPE_ENDPOINT_TEST
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.send(endpoint_id, "alert.reached", "r-1")
    assert reason_of(caught.value) == "ERROR_REASON_REQUEST_ID_REUSED"


async def test_an_unknown_type_is_refused_and_the_known_types_are_named(stack: Stack) -> None:
    endpoint_id, _ = await stack.endpoint()
    request = SendTestEventRequest(endpoint_id=endpoint_id, event_type=EventType.ValueType(77))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.webhooks.SendTestEvent(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations_of(caught.value) == ["event_type"]
    for known in FILES:
        assert EventType.Name(NUMBERS[known]) in (caught.value.details() or "")
    assert await stack.house.deliveries() == []


def test_every_event_type_of_the_contract_has_its_text_in_bodies() -> None:
    assert sorted(NUMBERS.values()) == sorted(EventType.values())[1:]
    assert set(NUMBERS) == set(FILES)
    for name, number in NUMBERS.items():
        assert EventType.Name(number) == f"EVENT_TYPE_{name.upper().replace('.', '_')}"

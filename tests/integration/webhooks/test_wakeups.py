"""Each change that makes a delivery due wakes the notifier, which hardly ever polls in these tests."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.webhook_service_pb2 import (
    EnableEndpointRequest,
    RecoverEndpointRequest,
    RedeliverNotificationRequest,
    SendTestEventRequest,
    UpdateEndpointRequest,
)
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import SystemClock
from server.calls.validation import to_timestamp
from store.deliveries import leases
from store.endpoints.rows import Settings
from store.postgres.database import Database
from store.tables.webhooks import delivery
from tests.support.notifier.endpoint_rows import change, row_of
from tests.support.notifier.house import House, configuration, running_notifier
from tests.support.notifier.receiver import Receiver, running_receiver, status
from tests.support.server.running import Running, running
from tests.support.webhooks.attempts import claim, fan_out
from webhooks.deliveries import DeliveryStatus

RARELY = 3_600.0  # seconds between two polls


@pytest.fixture
async def house(database: Database) -> House:
    return await House.build(database, SystemClock())


@pytest.fixture
async def server(database: Database, house: House) -> AsyncIterator[Running]:
    async with running(database, house.clock, configuration=configuration(LISTEN="127.0.0.1:0")) as it:
        yield it


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


async def idle(house: House, receiver: Receiver) -> str:
    """An endpoint that got one notification from a notifier that listens; returns its id."""
    created = await house.endpoint(receiver.url)
    await house.notify()
    await house.settled(DeliveryStatus.DELIVERED, 1)
    return created.endpoint.endpoint_id


async def test_a_test_event_wakes_the_notifier(
    house: House, receiver: Receiver, webhooks: WebhookServiceStub
) -> None:
    async with running_notifier(house, poll_interval=RARELY):
        endpoint_id = await idle(house, receiver)
        for number in range(2, 5):
            await webhooks.SendTestEvent(SendTestEventRequest(endpoint_id=endpoint_id))
            await house.settled(DeliveryStatus.DELIVERED, number)


async def test_a_redelivery_wakes_the_notifier(
    house: House, receiver: Receiver, webhooks: WebhookServiceStub
) -> None:
    async with running_notifier(house, poll_interval=RARELY):
        endpoint_id = await idle(house, receiver)
        [sent] = receiver.ids()
        request = RedeliverNotificationRequest(endpoint_id=endpoint_id, notification_id=sent)
        await webhooks.RedeliverNotification(request)
        await receiver.arrived(2)


async def test_a_recovery_wakes_the_notifier(house: House, receiver: Receiver, webhooks: WebhookServiceStub) -> None:
    start = to_timestamp(house.clock.now())
    async with running_notifier(house, poll_interval=RARELY):
        await idle(house, receiver)
        late = await house.endpoint(receiver.url + "/late")
        request = RecoverEndpointRequest(endpoint_id=late.endpoint.endpoint_id, start_time=start)
        await webhooks.RecoverEndpoint(request)
        await receiver.arrived(2)
    assert receiver.ids("/hook/late") == receiver.ids()


async def test_a_new_url_wakes_the_notifier_when_the_old_one_asked_for_a_pause(
    house: House, receiver: Receiver, webhooks: WebhookServiceStub
) -> None:
    async with running_notifier(house, poll_interval=RARELY):
        endpoint_id = await idle(house, receiver)
        receiver.answer(status(429, headers={"Retry-After": "3000"}))
        await house.notify()
        async with asyncio.timeout(30):
            while True:
                if (await row_of(house, endpoint_id)).not_before is not None:
                    break
                await asyncio.sleep(0.02)
        request = UpdateEndpointRequest(endpoint=Endpoint(endpoint_id=endpoint_id, url=receiver.url + "/new"))
        request.update_mask.paths.append("url")
        await webhooks.UpdateEndpoint(request)
        await house.settled(DeliveryStatus.DELIVERED, 2)
    assert len(receiver.ids("/hook/new")) == 1


async def test_an_enabled_endpoint_wakes_the_notifier(
    house: House, receiver: Receiver, webhooks: WebhookServiceStub
) -> None:
    async with running_notifier(house, poll_interval=RARELY):
        endpoint_id = await idle(house, receiver)
        # As if the endpoint had been disabled while a fan-out wrote its delivery.
        await change(house, endpoint_id, state="DISABLED")
        async with house.database.transaction() as connection:
            await connection.execute(
                text(
                    "INSERT INTO delivery_live (organization_id, delivery_id, endpoint_id, notification_id,"
                    " customer_id, event_type, status, create_time, next_attempt_time)"
                    " SELECT organization_id, 'whd_late', endpoint_id, notification_id, customer_id, event_type,"
                    " 'PENDING', now(), now() FROM delivery"
                )
            )
        await webhooks.EnableEndpoint(EnableEndpointRequest(endpoint_id=endpoint_id))
        await receiver.arrived(2)


async def test_claims_returned_by_another_notifier_wake_the_notifier(house: House, receiver: Receiver) -> None:
    await house.endpoint(receiver.url)
    await house.notify()
    await fan_out(house)
    claims = await claim(house)
    async with running_notifier(house, poll_interval=RARELY):
        await house.endpoint(receiver.url + "/other")
        await house.notify()
        await receiver.arrived(1)
        async with house.database.transaction() as connection:
            await leases.release(connection, claims, delay=timedelta(0))
        await house.settled(DeliveryStatus.DELIVERED, 3)


@pytest.mark.parametrize("seconds", [0.3, 1.5])
async def test_a_retry_is_made_when_it_is_due(house: House, receiver: Receiver, seconds: float) -> None:
    await house.endpoint(receiver.url)
    await house.notify()
    await fan_out(house)
    async with house.database.transaction() as connection:
        await connection.execute(
            delivery.update().values(next_attempt_time=text(f"now() + interval '{seconds} seconds'"))
        )
    async with running_notifier(house, poll_interval=RARELY):
        await house.settled(DeliveryStatus.DELIVERED, 1)


@pytest.mark.parametrize(
    "values",
    [
        {"not_before": "now() + interval '0.4 seconds'"},
        {"breaker_state": "OPEN", "breaker_until": "now() + interval '0.4 seconds'"},
        {"rate_per_second": 2, "token_time": "now()"},
    ],
    ids=["pause", "breaker", "rate"],
)
async def test_pending_deliveries_are_sent_when_the_wait_of_their_endpoint_ends(
    house: House, receiver: Receiver, values: dict[str, object]
) -> None:
    created = await house.endpoint("", settings=Settings(url=receiver.url))
    await house.notify()
    await fan_out(house)
    await change(house, created.endpoint.endpoint_id, **values)
    async with running_notifier(house, poll_interval=RARELY):
        await house.settled(DeliveryStatus.DELIVERED, 1)

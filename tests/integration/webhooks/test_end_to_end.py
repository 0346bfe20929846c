"""Changes of an endpoint, checked at its receiver: rotated secrets, headers, test events, recoveries."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from standardwebhooks import WebhookVerificationError

from generated.tidemark.v1 import (
    endpoint_pb2,
    redelivery_job_pb2,
)
from generated.tidemark.v1.alert_service_pb2 import CreateAlertRequest, DisableAlertRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.endpoint_pb2 import BasicCredentials, Endpoint, EndpointCredentials
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    CreateEndpointResponse,
    DeleteEndpointRequest,
    GetDeliveryRequest,
    GetRedeliveryJobRequest,
    RecoverEndpointRequest,
    RotateSecretRequest,
    SendTestEventRequest,
    UpdateEndpointRequest,
)
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import SystemClock
from server.calls.validation import to_timestamp
from store.postgres.database import Database
from tests.support.notifier.house import House, configuration, running_notifier
from tests.support.notifier.receiver import Arrival, Receiver, hang, running_receiver, status
from tests.support.schemas import check_body
from tests.support.server.running import running
from tests.support.usage.caller import usage_alert
from tidemark_client import WebhookNotVerified, WebhookVerifier
from webhooks.deliveries import DeliveryStatus


@pytest.fixture
async def house(database: Database) -> House:
    """The organization under test, by the clock that signatures are checked with."""
    return await House.build(database, SystemClock())


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on a free port."""
    async with running_receiver() as receiver:
        yield receiver


@pytest.fixture
async def webhooks(house: House) -> AsyncIterator[WebhookServiceStub]:
    """A server that lets receivers be on this machine, and a notifier beside it."""
    settings = configuration(LISTEN="127.0.0.1:0", PROPAGATION_DELAY_SECONDS="0")
    async with running(house.database, house.clock, configuration=settings) as server, running_notifier(house):
        yield WebhookServiceStub(server.channel)


async def create(webhooks: WebhookServiceStub, receiver: Receiver) -> CreateEndpointResponse:
    return await webhooks.CreateEndpoint(CreateEndpointRequest(endpoint=Endpoint(url=receiver.url)))


def verifies(arrival: Arrival, secret: str) -> bool:
    try:
        arrival.verify(secret)
    except WebhookVerificationError:
        return False
    return True


async def test_a_secret_of_the_callers_own_signs(
    webhooks: WebhookServiceStub, house: House, receiver: Receiver
) -> None:
    own = "whsec_" + base64.b64encode(b"a secret of another sender, 0123").decode()
    await webhooks.CreateEndpoint(CreateEndpointRequest(endpoint=Endpoint(url=receiver.url), secret=own))
    await house.notify()
    [arrival] = await receiver.arrived(1)
    assert verifies(arrival, own)


async def test_a_rotation_with_a_grace_signs_leased_deliveries_with_both_secrets(
    webhooks: WebhookServiceStub, house: House, receiver: Receiver
) -> None:
    created = await create(webhooks, receiver)
    released = asyncio.Event()
    receiver.answer(hang(released))
    await house.notify()
    await receiver.arrived(1)
    rotated = await webhooks.RotateSecret(RotateSecretRequest(endpoint_id=created.endpoint.endpoint_id))
    released.set()
    await house.notify()
    first, second = await receiver.arrived(2)
    assert (verifies(first, created.secret), verifies(first, rotated.secret)) == (True, False)
    assert (verifies(second, created.secret), verifies(second, rotated.secret)) == (True, True)
    assert len(await house.settled(DeliveryStatus.DELIVERED, 2)) == 2


async def test_a_rotation_without_a_grace_signs_leased_deliveries_with_the_new_secret(
    webhooks: WebhookServiceStub, house: House, receiver: Receiver
) -> None:
    created = await create(webhooks, receiver)
    endpoint_id = created.endpoint.endpoint_id
    released = asyncio.Event()

    async def fail(arrival: Arrival) -> object:
        await released.wait()
        return await status(500)(arrival)

    receiver.answer(fail)  # type: ignore[arg-type]  # it returns what status returns
    await house.notify()
    await receiver.arrived(1)
    rotated = await webhooks.RotateSecret(RotateSecretRequest(endpoint_id=endpoint_id, grace=Duration()))
    released.set()
    await house.attempted(1)
    await house.make_due()
    first, second = await receiver.arrived(2)
    assert first.webhook_id == second.webhook_id
    assert (verifies(first, created.secret), verifies(first, rotated.secret)) == (True, False)
    assert (verifies(second, created.secret), verifies(second, rotated.secret)) == (False, True)
    [delivery] = await house.settled(DeliveryStatus.DELIVERED, 1)
    shown = await webhooks.GetDelivery(GetDeliveryRequest(delivery_id=delivery.delivery_id))
    assert [list(attempt.signing_key_sequences) for attempt in shown.attempts] == [[1], [2]]
    assert {attempt.remote_address for attempt in shown.attempts} == {"127.0.0.1"}


async def test_an_attempt_in_flight_is_recorded_after_its_endpoint_is_deleted(
    webhooks: WebhookServiceStub, house: House, receiver: Receiver
) -> None:
    created = await create(webhooks, receiver)
    released = asyncio.Event()
    receiver.answer(hang(released))
    await house.notify()
    await receiver.arrived(1)
    await webhooks.DeleteEndpoint(DeleteEndpointRequest(endpoint_id=created.endpoint.endpoint_id))
    released.set()
    await house.settled(DeliveryStatus.DELIVERED, 1)
    assert set((await house.in_flight()).values()) == {0}


async def test_an_ed25519_signature_verifies_with_the_public_key_only(
    webhooks: WebhookServiceStub, house: House, receiver: Receiver
) -> None:
    request = CreateEndpointRequest(
        endpoint=Endpoint(url=receiver.url), signature_scheme=endpoint_pb2.SIGNATURE_SCHEME_ED25519
    )
    created = await webhooks.CreateEndpoint(request)
    await house.notify()
    [arrival] = await receiver.arrived(1)
    now = house.clock.now()
    assert WebhookVerifier([created.secret]).check(arrival.headers, arrival.body, now) == "v1a"
    other = "whpk_" + base64.b64encode(b"o" * 32).decode()
    with pytest.raises(WebhookNotVerified):
        WebhookVerifier([other]).check(arrival.headers, arrival.body, now)


async def test_deliveries_carry_the_present_headers_and_credentials(
    webhooks: WebhookServiceStub, house: House, receiver: Receiver
) -> None:
    endpoint_id = (await create(webhooks, receiver)).endpoint.endpoint_id
    update = UpdateEndpointRequest(
        endpoint=Endpoint(
            endpoint_id=endpoint_id,
            headers={"X-Tenant": "acme"},
            credentials=EndpointCredentials(basic=BasicCredentials(username="tide", password="mark")),
        )
    )
    update.update_mask.paths.extend(["headers", "credentials"])
    await webhooks.UpdateEndpoint(update)
    sent = (await webhooks.SendTestEvent(SendTestEventRequest(endpoint_id=endpoint_id))).delivery
    [arrival] = await receiver.arrived(1)
    assert arrival.webhook_id == sent.notification_id
    assert arrival.headers["x-tenant"] == "acme"
    assert arrival.headers["authorization"] == "Basic " + base64.b64encode(b"tide:mark").decode()
    assert b'"endpoint.test"' in arrival.body


async def test_a_notification_of_an_alert_as_a_whole_is_delivered(house: House, receiver: Receiver) -> None:
    settings = configuration(LISTEN="127.0.0.1:0", PROPAGATION_DELAY_SECONDS="0")
    async with running(house.database, house.clock, configuration=settings) as server, running_notifier(house):
        created = await create(WebhookServiceStub(server.channel), receiver)
        alerts = AlertServiceStub(server.channel)
        alert = (await alerts.CreateAlert(CreateAlertRequest(alert=usage_alert("10")))).alert
        await alerts.DisableAlert(DisableAlertRequest(alert_id=alert.alert_id))
        [arrival] = await receiver.arrived(1)
        await house.settled(DeliveryStatus.DELIVERED, 1)
    assert verifies(arrival, created.secret)
    body = json.loads(arrival.body)
    check_body(body)
    assert (body["type"], body["id"]) == ("alert.disabled", arrival.webhook_id)
    assert (body["data"]["alert_id"], body["data"]["reason"]) == (alert.alert_id, "REQUESTED")


async def test_a_recovery_delivers_each_notification_once_under_its_id(
    webhooks: WebhookServiceStub, house: House, receiver: Receiver
) -> None:
    start = to_timestamp(house.clock.now() - timedelta(hours=1))
    ids = await house.notify(30)
    await house.outbox_emptied()
    endpoint_id = (await create(webhooks, receiver)).endpoint.endpoint_id
    request = RecoverEndpointRequest(endpoint_id=endpoint_id, start_time=start, request_id="once")
    job = (await webhooks.RecoverEndpoint(request)).job
    assert (await webhooks.RecoverEndpoint(request)).job == job
    await receiver.arrived(30)
    await house.settled(DeliveryStatus.DELIVERED, 30)
    assert sorted(receiver.ids()) == sorted(ids)
    done = (await webhooks.GetRedeliveryJob(GetRedeliveryJobRequest(job_id=job.job_id))).job
    assert (done.state, done.redelivered_count) == (redelivery_job_pb2.REDELIVERY_STATE_DONE, 30)

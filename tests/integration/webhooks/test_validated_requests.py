"""Requests with validate_only: the checks and the answer of the real request, no secret, and nothing changes."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from sqlalchemy import text

from generated.tidemark.v1 import delivery_pb2, endpoint_pb2, webhook_service_pb2
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    DeleteEndpointRequest,
    DisableEndpointRequest,
    EnableEndpointRequest,
    RecoverEndpointRequest,
    RedeliverDeliveriesRequest,
    RedeliverNotificationRequest,
    RotateSecretRequest,
    SendTestEventRequest,
    UpdateEndpointRequest,
)
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.endpoints.endpoints import MAX_ENDPOINTS
from store.postgres.database import Database
from tests.support.notifier.house import House
from tests.support.server.running import reason_of
from tests.support.webhooks.attempts import fan_out
from webhooks.signing_keys import SECRET_PREFIX

URL = "https://hooks.example.com/tidemark"
TABLES = ("endpoint", "endpoint_secret", "delivery", "operator_event", "redelivery_job", "request")
FAILED = delivery_pb2.DELIVERY_STATUS_FAILED


async def everything(database: Database) -> dict[str, list[str]]:
    """All rows that the calls of the service write, as text."""
    async with database.transaction() as connection:
        return {
            name: list(await connection.scalars(text(f"SELECT row::text FROM {name} AS row ORDER BY 1")))
            for name in TABLES
        }


@pytest.fixture
async def requests(house: House, clock: ManualClock) -> dict[str, Message]:
    """One request for each mutating call, all of them valid. One endpoint is enabled and has a delivery."""
    endpoint_id = (await house.endpoint(URL)).endpoint.endpoint_id
    [notification_id] = await house.notify()
    await fan_out(house)
    start = to_timestamp(clock.now() - timedelta(hours=1))
    return {
        "CreateEndpoint": CreateEndpointRequest(endpoint=Endpoint(url=URL), request_id="r-1"),
        "UpdateEndpoint": UpdateEndpointRequest(
            endpoint=Endpoint(endpoint_id=endpoint_id, display_name="new", state=endpoint_pb2.ENDPOINT_STATE_DISABLED)
        ),
        "EnableEndpoint": EnableEndpointRequest(endpoint_id=endpoint_id),
        "DisableEndpoint": DisableEndpointRequest(endpoint_id=endpoint_id),
        "RotateSecret": RotateSecretRequest(endpoint_id=endpoint_id, request_id="r-1"),
        "DeleteEndpoint": DeleteEndpointRequest(endpoint_id=endpoint_id),
        "SendTestEvent": SendTestEventRequest(endpoint_id=endpoint_id, request_id="r-1"),
        "RedeliverNotification": RedeliverNotificationRequest(
            endpoint_id=endpoint_id, notification_id=notification_id, request_id="r-1"
        ),
        "RedeliverDeliveries": RedeliverDeliveriesRequest(
            endpoint_id=endpoint_id, statuses=[FAILED], start_time=start, request_id="r-1"
        ),
        "RecoverEndpoint": RecoverEndpointRequest(endpoint_id=endpoint_id, start_time=start, request_id="r-1"),
    }


def call_of(webhooks: WebhookServiceStub, name: str) -> Callable[[Message], Awaitable[Any]]:
    method: Callable[[Message], Awaitable[Any]] = getattr(webhooks, name)
    return method


async def test_validated_requests_change_nothing_and_show_no_secret(
    webhooks: WebhookServiceStub, database: Database, requests: dict[str, Message]
) -> None:
    before = await everything(database)
    for name, request in requests.items():
        request.validate_only = True  # type: ignore[attr-defined]  # every one has it
        answer = await call_of(webhooks, name)(request)
        assert await everything(database) == before, name
        assert SECRET_PREFIX not in str(answer)
        assert not getattr(answer, "secret", "")
        assert not getattr(answer, "replayed", False)


async def test_every_mutating_call_of_the_service_can_be_validated(requests: dict[str, Message]) -> None:
    [service] = webhook_service_pb2.DESCRIPTOR.services_by_name.values()
    assert {method.name for method in service.methods if not method.name.startswith(("Get", "List"))} == set(requests)


async def test_a_validated_change_has_the_answer_of_the_change(
    webhooks: WebhookServiceStub, requests: dict[str, Message]
) -> None:
    for name in ("UpdateEndpoint", "EnableEndpoint", "DisableEndpoint"):
        request = requests[name]
        request.validate_only = True  # type: ignore[attr-defined]
        validated = await call_of(webhooks, name)(request)
        request.validate_only = False  # type: ignore[attr-defined]
        assert await call_of(webhooks, name)(request) == validated


async def test_a_validated_creation_is_followed_by_the_real_one_with_its_request_id(
    webhooks: WebhookServiceStub, requests: dict[str, Message]
) -> None:
    for name in ("CreateEndpoint", "RotateSecret"):
        request = requests[name]
        request.validate_only = True  # type: ignore[attr-defined]
        await call_of(webhooks, name)(request)
        request.validate_only = False  # type: ignore[attr-defined]
        made = await call_of(webhooks, name)(request)
        assert made.secret.startswith(SECRET_PREFIX)
        assert not made.replayed
        # Once it is done, its validation shows what was done, without the secret.
        request.validate_only = True  # type: ignore[attr-defined]
        validated = await call_of(webhooks, name)(request)
        assert (validated.endpoint, validated.secret, validated.replayed) == (made.endpoint, "", True)


async def test_a_validated_request_is_refused_like_the_real_one(
    webhooks: WebhookServiceStub, requests: dict[str, Message], house: House
) -> None:
    for _ in range(MAX_ENDPOINTS - 1):
        await house.endpoint(URL)
    expected = dict.fromkeys(requests, "ERROR_REASON_ENDPOINT_NOT_FOUND")
    expected["CreateEndpoint"] = "ERROR_REASON_TOO_MANY_ENDPOINTS"
    for name, request in requests.items():
        request.validate_only = True  # type: ignore[attr-defined]
        if name == "UpdateEndpoint":
            request.endpoint.endpoint_id = "whe_unknown"  # type: ignore[attr-defined]
        elif name != "CreateEndpoint":
            request.endpoint_id = "whe_unknown"  # type: ignore[attr-defined]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call_of(webhooks, name)(request)
        assert reason_of(caught.value) == expected[name]

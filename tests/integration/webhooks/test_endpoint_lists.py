"""Endpoints over a real channel: the secret, refused definitions, and lists by page, filter and order."""

from datetime import timedelta
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import (
    endpoint_pb2,
)
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.event_type_pb2 import (
    EVENT_TYPE_ALERT_REACHED,
    EVENT_TYPE_ALERT_RESOLVED,
    EVENT_TYPE_UNSPECIFIED,
    EventType,
)
from generated.tidemark.v1.list_order_pb2 import (
    LIST_ORDER_NEWEST_FIRST,
    LIST_ORDER_OLDEST_FIRST,
    ListOrder,
)
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    DeleteEndpointRequest,
    GetEndpointRequest,
    ListEndpointsRequest,
)
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import ManualClock
from tests.support.server.running import reason_of, violations_of
from tests.support.webhooks.endpoints import URL, create_endpoints


async def test_an_endpoint_shows_its_secret_once(webhooks: WebhookServiceStub) -> None:
    request = CreateEndpointRequest(
        endpoint=Endpoint(url=URL, display_name="für Menschen", event_types=[EVENT_TYPE_ALERT_RESOLVED] * 2)
    )
    created = await webhooks.CreateEndpoint(request)
    assert created.secret.startswith("whsec_")
    assert created.endpoint.endpoint_id.startswith("whe_")
    assert len(created.endpoint.endpoint_id) == 30
    assert created.endpoint.url == URL
    assert created.endpoint.display_name == "für Menschen"
    assert list(created.endpoint.event_types) == [EVENT_TYPE_ALERT_RESOLVED]
    assert created.endpoint.state == endpoint_pb2.ENDPOINT_STATE_ENABLED
    read = await webhooks.GetEndpoint(GetEndpointRequest(endpoint_id=created.endpoint.endpoint_id))
    assert read.endpoint == created.endpoint
    listed = await webhooks.ListEndpoints(ListEndpointsRequest())
    assert list(listed.endpoints) == [created.endpoint]
    assert created.secret not in str(read) + str(listed)


async def test_all_faults_of_an_endpoint_are_reported_together(webhooks: WebhookServiceStub) -> None:
    request = CreateEndpointRequest(
        endpoint=Endpoint(
            url="https://127.0.0.1/hook",
            display_name="a\x00b",
            event_types=[EVENT_TYPE_ALERT_REACHED, EventType.ValueType(77), EVENT_TYPE_UNSPECIFIED],
        )
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.CreateEndpoint(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations_of(caught.value) == [
        "endpoint.url",
        "endpoint.display_name",
        "endpoint.event_types[1]",
        "endpoint.event_types[2]",
    ]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "endpoint.url: it is required"),
        ("http://hooks.example.com/", "endpoint.url: it must begin with https://"),
        (
            "https://10.0.0.1/",
            "endpoint.url: it leads to an address that is refused: 10.0.0.1 is not a public address",
        ),
        ("https://user:password@example.com/", "endpoint.url: it must not carry a user name or a password"),
    ],
)
async def test_an_endpoint_with_a_forbidden_url_is_refused(
    webhooks: WebhookServiceStub, url: str, complaint: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.CreateEndpoint(CreateEndpointRequest(endpoint=Endpoint(url=url)))
    details = caught.value.details() or ""
    assert details.startswith(complaint)
    assert "password@" not in details


async def test_pages_of_endpoints_hold_each_once_in_order(webhooks: WebhookServiceStub, clock: ManualClock) -> None:
    created = [answer.endpoint for answer in await create_endpoints(webhooks, clock, 5)]
    listed: list[endpoint_pb2.Endpoint] = []
    token = ""
    while True:
        page = await webhooks.ListEndpoints(ListEndpointsRequest(page_size=2, page_token=token))
        listed += page.endpoints
        token = page.next_page_token
        if not token:
            break
    assert listed == created


async def test_endpoints_are_listed_by_filter_and_order(webhooks: WebhookServiceStub, clock: ManualClock) -> None:
    made: list[Endpoint] = []
    for name, labels, state in (
        ("eu billing", {"team": "billing", "zone": "eu"}, endpoint_pb2.ENDPOINT_STATE_ENABLED),
        ("eu support", {"team": "support", "zone": "eu"}, endpoint_pb2.ENDPOINT_STATE_DISABLED),
        ("us_1%", {"team": "billing", "zone": ""}, endpoint_pb2.ENDPOINT_STATE_ENABLED),
        ("us_1", {}, endpoint_pb2.ENDPOINT_STATE_DISABLED),
    ):
        new = Endpoint(url=URL, display_name=name, labels=labels, state=state)
        made.append((await webhooks.CreateEndpoint(CreateEndpointRequest(endpoint=new))).endpoint)
        clock.advance(timedelta(minutes=1))
    billing, support, percent, plain = made

    async def listed(**fields: Any) -> list[Endpoint]:
        answer = await webhooks.ListEndpoints(ListEndpointsRequest(include_total_size=True, **fields))
        assert answer.total_size == len(answer.endpoints)
        return list(answer.endpoints)

    assert await listed() == made
    assert await listed(order=LIST_ORDER_NEWEST_FIRST) == made[::-1]
    assert await listed(labels={"team": "billing"}) == [billing, percent]
    assert await listed(labels={"team": "billing", "zone": "eu"}) == [billing]
    assert await listed(labels={"zone": ""}) == [percent]
    assert await listed(labels={"team": "sales"}) == []
    assert await listed(display_name_prefix="eu ") == [billing, support]
    assert await listed(display_name_prefix="us_1%") == [percent]
    assert await listed(display_name_prefix="EU") == []
    assert await listed(states=[endpoint_pb2.ENDPOINT_STATE_DISABLED]) == [support, plain]
    assert await listed(states=list(endpoint_pb2.EndpointState.values())[1:]) == made
    assert await listed(start_time=support.create_time, end_time=plain.create_time) == [support, percent]
    assert await listed(labels={"zone": "eu"}, states=[endpoint_pb2.ENDPOINT_STATE_DISABLED]) == [support]
    await webhooks.DeleteEndpoint(DeleteEndpointRequest(endpoint_id=percent.endpoint_id))
    assert await listed(labels={"team": "billing"}) == [billing]
    assert not (await webhooks.ListEndpoints(ListEndpointsRequest())).HasField("total_size")

    newest = ListEndpointsRequest(page_size=2, order=LIST_ORDER_NEWEST_FIRST, include_total_size=True)
    first_page = await webhooks.ListEndpoints(newest)
    newest.page_token = first_page.next_page_token
    rest = await webhooks.ListEndpoints(newest)
    assert [*first_page.endpoints, *rest.endpoints] == [plain, support, billing]
    assert (first_page.total_size, rest.total_size, rest.next_page_token) == (3, 3, "")
    newest.order = LIST_ORDER_OLDEST_FIRST
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.ListEndpoints(newest)
    assert reason_of(caught.value) == "ERROR_REASON_PAGE_TOKEN_INVALID"


async def test_all_faults_of_a_list_of_endpoints_are_reported_together(webhooks: WebhookServiceStub) -> None:
    request = ListEndpointsRequest(
        states=[endpoint_pb2.ENDPOINT_STATE_UNSPECIFIED, endpoint_pb2.ENDPOINT_STATE_ENABLED],
        labels={"Team": "x"},
        display_name_prefix="x" * 257,
        order=ListOrder.ValueType(9),
        page_size=-1,
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await webhooks.ListEndpoints(request)
    assert violations_of(caught.value) == ["states[0]", "labels['Team']", "display_name_prefix", "order", "page_size"]

"""Webhook endpoints, created through the API."""

from datetime import timedelta

import grpc

from cli.client.connection import UNARY_TIMEOUT
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    CreateEndpointResponse,
)
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import ManualClock


async def create_endpoint(channel: grpc.aio.Channel, url: str) -> str:
    """Creates an endpoint; returns its secret."""
    request = CreateEndpointRequest(endpoint=Endpoint(url=url, display_name="a receiver on this machine"))
    response = await WebhookServiceStub(channel).CreateEndpoint(request, timeout=UNARY_TIMEOUT)
    return response.secret


URL = "https://hooks.example.com/tidemark"


async def create_endpoints(
    webhooks: WebhookServiceStub, clock: ManualClock, number: int = 1
) -> list[CreateEndpointResponse]:
    """Creates endpoints, a second apart."""
    created = []
    for index in range(number):
        clock.advance(timedelta(seconds=1))
        created.append(await webhooks.CreateEndpoint(CreateEndpointRequest(endpoint=Endpoint(url=f"{URL}/{index}"))))
    return created

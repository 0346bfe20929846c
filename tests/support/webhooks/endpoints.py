"""Webhook endpoints, created through the API."""

import grpc

from cli.client.connection import UNARY_TIMEOUT
from generated.tidemark.v1.webhook_service_pb2 import CreateEndpointRequest
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub


async def create_endpoint(channel: grpc.aio.Channel, url: str) -> str:
    """Creates an endpoint; returns its secret."""
    request = CreateEndpointRequest(url=url, description="a receiver on this machine")
    response = await WebhookServiceStub(channel).CreateEndpoint(request, timeout=UNARY_TIMEOUT)
    return response.secret

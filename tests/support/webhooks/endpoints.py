"""Webhook endpoints, created through the API."""

import grpc

from cli.client.connection import UNARY_TIMEOUT
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.webhook_service_pb2 import CreateEndpointRequest
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub


async def create_endpoint(channel: grpc.aio.Channel, url: str) -> str:
    """Creates an endpoint; returns its secret."""
    request = CreateEndpointRequest(endpoint=Endpoint(url=url, display_name="a receiver on this machine"))
    response = await WebhookServiceStub(channel).CreateEndpoint(request, timeout=UNARY_TIMEOUT)
    return response.secret

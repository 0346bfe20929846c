"""WebhookService as a whole: its handlers lie in server.webhooks, one module a resource."""

from generated.tidemark.v1 import webhook_service_pb2_grpc
from server.webhooks.deliveries import DeliveryHandlers
from server.webhooks.endpoints import EndpointHandlers
from server.webhooks.redelivery import RedeliveryHandlers


class WebhookService(
    EndpointHandlers, DeliveryHandlers, RedeliveryHandlers, webhook_service_pb2_grpc.WebhookServiceServicer
):
    """tidemark.v1.WebhookService: endpoints, what became of each delivery, and sending again."""

"""The operator events about failed evaluations, as an organization lists them."""

import json

from generated.tidemark.v1 import webhook_service_pb2, webhook_service_pb2_grpc
from generated.tidemark.v1.event_type_pb2 import EVENT_TYPE_EVALUATION_FAILED
from tests.support.schemas import check_body
from tests.support.usage.caller import Caller


async def operator_events(caller: Caller) -> list[dict[str, object]]:
    """The bodies of the operator events about failed evaluations; each conforms to its schema."""
    webhooks = webhook_service_pb2_grpc.WebhookServiceStub(caller.server.channel)
    answer = await webhooks.ListOperatorEvents(
        webhook_service_pb2.ListOperatorEventsRequest(event_types=[EVENT_TYPE_EVALUATION_FAILED]),
        metadata=caller.metadata,
    )
    bodies = [json.loads(event.body) for event in answer.events]
    for body in bodies:
        check_body(body)
    return bodies

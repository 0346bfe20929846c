"""A filter may name a value up to 2,000 times: the list is the same as with the value once."""

import pytest
from google.protobuf.message import Message

from generated.tidemark.v1.alert_pb2 import ALERT_STATE_ACTIVE
from generated.tidemark.v1.alert_service_pb2 import (
    ListAlertsRequest,
    ListCustomerAlertsRequest,
    ListNotificationsRequest,
)
from generated.tidemark.v1.condition_pb2 import CONDITION_TYPE_USAGE_THRESHOLD_REACHED
from generated.tidemark.v1.endpoint_pb2 import ENDPOINT_STATE_ENABLED
from generated.tidemark.v1.event_type_pb2 import EVENT_TYPE_ALERT_REACHED
from generated.tidemark.v1.webhook_service_pb2 import ListDeliveriesRequest, ListEndpointsRequest
from proto.documents.contract import METHODS
from tests.support.contract.calls import send
from tests.support.server.running import Running

MANY = 2_000  # the elements that a list of a request may have


@pytest.mark.parametrize(
    "request_of_many",
    [
        ListAlertsRequest(states=[ALERT_STATE_ACTIVE] * MANY),
        ListAlertsRequest(condition_types=[CONDITION_TYPE_USAGE_THRESHOLD_REACHED] * MANY),
        ListCustomerAlertsRequest(states=[ALERT_STATE_ACTIVE] * MANY),
        ListNotificationsRequest(condition_types=[CONDITION_TYPE_USAGE_THRESHOLD_REACHED] * MANY),
        ListNotificationsRequest(event_types=[EVENT_TYPE_ALERT_REACHED] * MANY),
        ListEndpointsRequest(states=[ENDPOINT_STATE_ENABLED] * MANY),
        ListDeliveriesRequest(event_types=[EVENT_TYPE_ALERT_REACHED] * MANY),
    ],
    ids=lambda each: f"{type(each).__name__}-{each.ListFields()[0][0].name}",
)
async def test_filter_that_repeats_a_value_is_answered(api: Running, request_of_many: Message) -> None:
    [method] = [each for each in METHODS if each.input_type is request_of_many.DESCRIPTOR]
    [answer] = await send(api.channel, method, request_of_many)
    assert not answer.ListFields()

"""Requests with very many elements: they are refused before they are decoded, and a large event harms no other."""

from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import alert_pb2, alert_service_pb2, usage_pb2
from server.alerts.split_events import MAX_EVENT_FIELDS
from tests.support.server.running import status_of
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller, beside, everything, explained, refusals, settings

pytestmark = shares_server

MANY = 100_000


@pytest.mark.parametrize("native", [True, False])
async def test_an_event_with_very_many_properties_is_rejected_alone(caller: Caller, native: bool) -> None:
    async with beside(caller, settings(native=native)) as one:
        large = one.event("large", "1", customer=f"c-{native}")
        large.properties.update({f"p{number}": "v" for number in range(MANY)})
        events = [one.event(f"e{number}", "1", customer=f"c-{native}") for number in range(3)]
        stream = one.stream()
        batch = usage_pb2.UsageBatch(events=[events[0], large, *events[1:]])
        await stream.write(alert_service_pb2.EvaluateUsageRequest(batch=batch))
        [answer], error = await everything(stream)
    assert error is None
    assert answer.outcome.accepted == 3
    assert [(each.at, each.reason) for each in refusals(answer.outcome)] == [(1, "EVENT_INVALID")]
    [rejection] = answer.outcome.rejected
    assert rejection.event_id == "large"
    assert f"more than {MAX_EVENT_FIELDS} fields" in rejection.status.message


async def test_a_list_with_very_many_elements_is_refused_with_its_limit(caller: Caller) -> None:
    request = alert_service_pb2.ListAlertsRequest(states=[alert_pb2.ALERT_STATE_ACTIVE] * MANY)
    method: Any = caller.server.channel.unary_unary(
        "/tidemark.v1.AlertService/ListAlerts", request_serializer=type(request).SerializeToString
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await method(request, metadata=caller.metadata)
    status = status_of(refused.value)
    assert explained(status) == ("INVALID_ARGUMENT", "INVALID_FIELD", ("states",))
    assert status.message == "states: it has more than 2,000 elements: give fewer"

"""Endpoints: their health, their deliveries, and what can be done with them."""

import asyncio
from datetime import timedelta

from aiohttp import web
from google.protobuf.duration_pb2 import Duration

from console.access.api import ApiError
from console.access.visit import Visit, see_other
from console.words.rendering import link
from generated.tidemark.v1 import delivery_pb2, event_type_pb2
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    DisableEndpointRequest,
    EnableEndpointRequest,
    GetEndpointRequest,
    ListDeliveriesRequest,
    ListEndpointsRequest,
    ListOperatorEventsRequest,
    ListRedeliveryJobsRequest,
    RecoverEndpointRequest,
    RotateSecretRequest,
    SendTestEventRequest,
)

PAGE = 100  # an organization has at most 100
DELIVERIES = 20
EVENTS = 8

DONE = {
    "tested": "The test event is on its way. Its delivery appears below in a moment.",
    "recovering": "A job sends what the endpoint has missed. It is listed below.",
    "enabled": "The endpoint gets notifications again. What it missed meanwhile is sent by Recover.",
    "disabled": "Nothing is sent to this endpoint until it is enabled.",
}
_HOURS = {"1": "the last hour", "24": "the last day", "72": "the last 3 days", "168": "the last 7 days"}
_TEST_TYPES = tuple(
    number
    for name, number in event_type_pb2.EventType.items()
    if number and number != event_type_pb2.EVENT_TYPE_ENDPOINT_TEST
)


async def listed(visit: Visit, problem: str = "", url: str = "", name: str = "") -> web.StreamResponse:
    """All endpoints, and the form that adds one."""
    answer = await visit.calls(visit.api.webhooks.ListEndpoints, ListEndpointsRequest(page_size=PAGE))
    return visit.render(
        "endpoints.html",
        status=400 if problem else 200,
        endpoints=answer.endpoints,
        problem=problem,
        url=url,
        name=name,
    )


async def create(visit: Visit) -> web.StreamResponse:
    """Adds an endpoint, and shows its secret, once."""
    url, name = visit.sent("url"), visit.sent("display_name")
    request = CreateEndpointRequest(
        endpoint=Endpoint(url=url, display_name=name), request_id=visit.sent("request_id")
    )
    try:
        answer = await visit.calls(visit.api.webhooks.CreateEndpoint, request)
    except ApiError as error:
        if error.is_refused or (not error.violations and not error.reason):
            raise
        said = "; ".join(one.description for one in error.violations) or error.message
        return await listed(visit, said, url, name)
    return visit.render("secret.html", endpoint=answer.endpoint, secret=answer.secret, is_new=True)


async def one(visit: Visit) -> web.StreamResponse:
    """One endpoint."""
    endpoint_id = visit.request.match_info["endpoint_id"]
    status = visit.query("status")
    webhooks, calls = visit.api.webhooks, visit.calls
    statuses = [delivery_pb2.DeliveryStatus.ValueType(int(status))] if status in ("1", "2", "3", "4") else []
    endpoint, deliveries, jobs, events = await asyncio.gather(
        calls(webhooks.GetEndpoint, GetEndpointRequest(endpoint_id=endpoint_id)),
        calls(
            webhooks.ListDeliveries,
            ListDeliveriesRequest(
                endpoint_id=endpoint_id, page_size=DELIVERIES, statuses=statuses, page_token=visit.query("page")
            ),
        ),
        calls(webhooks.ListRedeliveryJobs, ListRedeliveryJobsRequest(endpoint_id=endpoint_id, page_size=5)),
        calls(webhooks.ListOperatorEvents, ListOperatorEventsRequest(endpoint_id=endpoint_id, page_size=EVENTS)),
    )
    return visit.render(
        "endpoint.html",
        one=endpoint.endpoint,
        deliveries=deliveries.deliveries,
        next_token=deliveries.next_page_token,
        chosen=status,
        jobs=jobs.jobs,
        events=events.events,
        done=DONE,
        hours=_HOURS,
        test_types=_TEST_TYPES,
    )


async def test(visit: Visit) -> web.StreamResponse:
    """Sends a test event."""
    request = SendTestEventRequest(endpoint_id=_id(visit), request_id=visit.sent("request_id"))
    if visit.sent("event_type") in {str(one) for one in _TEST_TYPES}:
        request.event_type = event_type_pb2.EventType.ValueType(int(visit.sent("event_type")))
    await visit.calls(visit.api.webhooks.SendTestEvent, request)
    return _back(visit, "tested")


async def recover(visit: Visit) -> web.StreamResponse:
    """Sends everything that the endpoint has missed."""
    hours = int(visit.sent("hours")) if visit.sent("hours") in _HOURS else 24
    request = RecoverEndpointRequest(endpoint_id=_id(visit), request_id=visit.sent("request_id"))
    request.start_time.FromDatetime(visit.now - timedelta(hours=hours))
    await visit.calls(visit.api.webhooks.RecoverEndpoint, request)
    return _back(visit, "recovering")


async def rotate(visit: Visit) -> web.StreamResponse:
    """Makes another secret, and shows it, once."""
    request = RotateSecretRequest(endpoint_id=_id(visit), request_id=visit.sent("request_id"))
    if visit.sent("grace") == "0":
        request.grace.CopyFrom(Duration())
    answer = await visit.calls(visit.api.webhooks.RotateSecret, request)
    return visit.render("secret.html", endpoint=answer.endpoint, secret=answer.secret, is_new=False)


async def enable(visit: Visit) -> web.StreamResponse:
    """Lets the endpoint get notifications again."""
    await visit.calls(visit.api.webhooks.EnableEndpoint, EnableEndpointRequest(endpoint_id=_id(visit)))
    return _back(visit, "enabled")


async def disable(visit: Visit) -> web.StreamResponse:
    """Stops deliveries to the endpoint."""
    await visit.calls(visit.api.webhooks.DisableEndpoint, DisableEndpointRequest(endpoint_id=_id(visit)))
    return _back(visit, "disabled")


def _id(visit: Visit) -> str:
    return visit.request.match_info["endpoint_id"]


def _back(visit: Visit, code: str) -> web.Response:
    return see_other(link(f"/endpoints/{_id(visit)}", done=code))

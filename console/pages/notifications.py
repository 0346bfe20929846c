"""Notifications: the list, one notification with its evidence and its deliveries, and the attempts of a delivery."""

import asyncio
import json
from typing import Any

from aiohttp import web

from console.access.visit import Visit, see_other
from console.words.rendering import link
from generated.tidemark.v1 import event_type_pb2
from generated.tidemark.v1.alert_service_pb2 import GetNotificationRequest, ListNotificationsRequest
from generated.tidemark.v1.webhook_service_pb2 import (
    GetDeliveryRequest,
    ListDeliveriesRequest,
    ListEndpointsRequest,
    RedeliverNotificationRequest,
)

PAGE = 30
DELIVERIES = 20

DONE = {"redelivered": "The notification is sent again now. Its new attempt appears below in a moment."}
_TYPES = (
    event_type_pb2.EVENT_TYPE_ALERT_REACHED,
    event_type_pb2.EVENT_TYPE_ALERT_RESOLVED,
    event_type_pb2.EVENT_TYPE_ALERT_DISABLED,
)


async def listed(visit: Visit) -> web.StreamResponse:
    """A page of notifications, the newest first."""
    customer_id = visit.viewer.customer_id or visit.query("customer")
    alert_id, kind = visit.query("alert"), visit.query("type")
    request = ListNotificationsRequest(
        page_size=PAGE,
        page_token=visit.query("page"),
        customer_ids=[customer_id] if customer_id else [],
        alert_ids=[alert_id] if alert_id else [],
        event_types=[one for one in _TYPES if kind == str(one)],
    )
    answer = await visit.calls(visit.api.alerts.ListNotifications, request)
    return visit.render(
        "notifications.html",
        notifications=answer.notifications,
        next_token=answer.next_page_token,
        customer=visit.query("customer"),
        alert=alert_id,
        kind=kind,
        types=_TYPES,
    )


async def one(visit: Visit) -> web.StreamResponse:
    """One notification."""
    notification_id = visit.request.match_info["notification_id"]
    notification, deliveries, endpoints = await asyncio.gather(
        _notification(visit, notification_id),
        visit.optional(
            visit.calls(
                visit.api.webhooks.ListDeliveries,
                ListDeliveriesRequest(notification_id=notification_id, page_size=DELIVERIES),
            )
        ),
        visit.optional(visit.calls(visit.api.webhooks.ListEndpoints, ListEndpointsRequest(page_size=100))),
    )
    found = [] if deliveries is None else list(deliveries.deliveries)
    attempts = await asyncio.gather(
        *(
            visit.calls(visit.api.webhooks.GetDelivery, GetDeliveryRequest(delivery_id=one.delivery_id))
            for one in found
        )
    )
    names = {} if endpoints is None else {one.endpoint_id: one for one in endpoints.endpoints}
    return visit.render(
        "notification.html",
        one=notification,
        done=DONE,
        deliveries=list(zip(found, [answer.attempts for answer in attempts], strict=True)),
        may_see_deliveries=deliveries is not None,
        endpoints=names,
        body=_pretty(notification.body),
    )


async def _notification(visit: Visit, notification_id: str) -> Any:
    """The notification; a key of one customer finds it in the list of that customer."""
    if not visit.viewer.is_limited:
        request = GetNotificationRequest(notification_id=notification_id)
        return (await visit.calls(visit.api.alerts.GetNotification, request)).notification
    token = ""
    for _ in range(20):
        page = await visit.calls(
            visit.api.alerts.ListNotifications,
            ListNotificationsRequest(customer_ids=[visit.viewer.customer_id], page_size=1_000, page_token=token),
        )
        for one in page.notifications:
            if one.notification_id == notification_id:
                return one
        token = page.next_page_token
        if not token:
            break
    raise web.HTTPNotFound


def _pretty(body: str) -> str:
    """The JSON with line breaks; its decimals stay as they are, because they are texts."""
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return body


async def redeliver(visit: Visit) -> web.StreamResponse:
    """Sends the notification to one endpoint once more."""
    notification_id = visit.request.match_info["notification_id"]
    request = RedeliverNotificationRequest(
        endpoint_id=visit.sent("endpoint_id"), notification_id=notification_id, request_id=visit.sent("request_id")
    )
    await visit.calls(visit.api.webhooks.RedeliverNotification, request)
    back = visit.sent("back")
    if back.startswith("/deliveries/"):
        return see_other(link(back, done="redelivered"))
    return see_other(link(f"/notifications/{notification_id}", done="redelivered"))


async def delivery(visit: Visit) -> web.StreamResponse:
    """One delivery with its latest attempts."""
    request = GetDeliveryRequest(delivery_id=visit.request.match_info["delivery_id"])
    answer = await visit.calls(visit.api.webhooks.GetDelivery, request)
    endpoint = await visit.calls(visit.api.webhooks.ListEndpoints, ListEndpointsRequest(page_size=100))
    found = next((one for one in endpoint.endpoints if one.endpoint_id == answer.delivery.endpoint_id), None)
    return visit.render("delivery.html", one=answer.delivery, attempts=answer.attempts, endpoint=found, done=DONE)

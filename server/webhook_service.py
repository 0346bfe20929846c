"""The handlers of WebhookService: endpoints, and what became of each delivery."""

from datetime import datetime
from typing import Any, cast

import grpc

from generated.tidemark.v1 import error_reason_pb2, webhook_service_pb2, webhook_service_pb2_grpc
from runtime.clock import Clock
from runtime.targets import TargetPolicy
from server.errors import NotFound
from server.identity import current_organization
from server.mapping.webhooks import (
    attempt_message,
    delivery_message,
    endpoint_message,
    read_event_types,
    read_status,
    read_url,
)
from server.paging import Page, read_page
from server.validation import Violations
from store import deliveries, endpoints
from store.database import Database

Context = grpc.aio.ServicerContext[Any, Any]

_BY_TIME = (datetime, str)  # the cursor of lists that are sorted by create_time and id


class WebhookService(webhook_service_pb2_grpc.WebhookServiceServicer):
    """The handlers of tidemark.v1.WebhookService."""

    def __init__(self, database: Database, clock: Clock, policy: TargetPolicy) -> None:
        self._database = database
        self._clock = clock
        self._policy = policy

    async def CreateEndpoint(
        self, request: webhook_service_pb2.CreateEndpointRequest, context: Context
    ) -> webhook_service_pb2.CreateEndpointResponse:
        """Adds an endpoint; its secret is in this answer and in no other."""
        violations = Violations()
        url = read_url(violations, request.url, self._policy)
        description = violations.text("description", request.description)
        event_types = read_event_types(violations, request.event_types)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            created = await endpoints.create(
                connection,
                current_organization().organization_id,
                url=url,
                description=description,
                event_types=event_types,
                now=self._clock.now(),
            )
        return webhook_service_pb2.CreateEndpointResponse(
            endpoint=endpoint_message(created.endpoint), secret=created.secret
        )

    async def GetEndpoint(
        self, request: webhook_service_pb2.GetEndpointRequest, context: Context
    ) -> webhook_service_pb2.GetEndpointResponse:
        """One endpoint."""
        violations = Violations()
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            found = await endpoints.get(connection, current_organization().organization_id, endpoint_id)
        if found is None:
            raise _no_endpoint(endpoint_id)
        return webhook_service_pb2.GetEndpointResponse(endpoint=endpoint_message(found))

    async def ListEndpoints(
        self, request: webhook_service_pb2.ListEndpointsRequest, context: Context
    ) -> webhook_service_pb2.ListEndpointsResponse:
        """A page of endpoints, the oldest first."""
        violations = Violations()
        page = read_page(violations, request.page_size, request.page_token, "ListEndpoints", (), _BY_TIME)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            rows = await endpoints.list_page(
                connection, current_organization().organization_id, after=_time_and_id(page), limit=page.limit
            )
        return webhook_service_pb2.ListEndpointsResponse(
            endpoints=[endpoint_message(row) for row in page.shown(rows)],
            next_page_token=page.next_token(rows, lambda row: (row.create_time, row.endpoint_id)),
        )

    async def DeleteEndpoint(
        self, request: webhook_service_pb2.DeleteEndpointRequest, context: Context
    ) -> webhook_service_pb2.DeleteEndpointResponse:
        """Removes an endpoint and cancels what waits for it."""
        violations = Violations()
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            deleted = await endpoints.delete_endpoint(
                connection, current_organization().organization_id, endpoint_id, self._clock.now()
            )
        if not deleted:
            raise _no_endpoint(endpoint_id)
        return webhook_service_pb2.DeleteEndpointResponse()

    async def ListDeliveries(
        self, request: webhook_service_pb2.ListDeliveriesRequest, context: Context
    ) -> webhook_service_pb2.ListDeliveriesResponse:
        """A page of deliveries, the newest first."""
        violations = Violations()
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id, required=False)
        notification_id = violations.identifier("notification_id", request.notification_id, required=False)
        status = read_status(violations, request.status)
        page = read_page(
            violations,
            request.page_size,
            request.page_token,
            "ListDeliveries",
            (endpoint_id, notification_id, status or ""),
            _BY_TIME,
        )
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            rows = await deliveries.list_page(
                connection,
                current_organization().organization_id,
                endpoint_id=endpoint_id or None,
                notification_id=notification_id or None,
                status=status,
                after=_time_and_id(page),
                limit=page.limit,
            )
        return webhook_service_pb2.ListDeliveriesResponse(
            deliveries=[delivery_message(row) for row in page.shown(rows)],
            next_page_token=page.next_token(rows, lambda row: (row.create_time, row.delivery_id)),
        )

    async def ListAttempts(
        self, request: webhook_service_pb2.ListAttemptsRequest, context: Context
    ) -> webhook_service_pb2.ListAttemptsResponse:
        """A page of the attempts of one delivery, in their order."""
        violations = Violations()
        delivery_id = violations.identifier("delivery_id", request.delivery_id)
        page = read_page(violations, request.page_size, request.page_token, "ListAttempts", (delivery_id,), (int,))
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            if await deliveries.get(connection, organization_id, delivery_id) is None:
                raise NotFound(
                    error_reason_pb2.ERROR_REASON_DELIVERY_NOT_FOUND,
                    f"there is no delivery {delivery_id!r}",
                    metadata={"delivery_id": delivery_id},
                )
            rows = await deliveries.list_attempts(
                connection,
                organization_id,
                delivery_id,
                after=0 if page.after is None else cast("int", page.after[0]),
                limit=page.limit,
            )
        return webhook_service_pb2.ListAttemptsResponse(
            attempts=[attempt_message(row) for row in page.shown(rows)],
            next_page_token=page.next_token(rows, lambda row: (row.attempt_number,)),
        )


def _time_and_id(page: Page) -> tuple[datetime, str] | None:
    return cast("tuple[datetime, str] | None", page.after)


def _no_endpoint(endpoint_id: str) -> NotFound:
    return NotFound(
        error_reason_pb2.ERROR_REASON_ENDPOINT_NOT_FOUND,
        f"there is no endpoint {endpoint_id!r}, or it was deleted",
        metadata={"endpoint_id": endpoint_id},
    )

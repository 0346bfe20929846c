"""WebhookService: deliveries and their attempts."""

from typing import cast

from generated.tidemark.v1 import webhook_service_pb2 as messages
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.paging import BY_TIME, after_time_and_id, read_page
from server.calls.validation import Violations
from server.mapping.list_order import read_newest_first
from server.mapping.webhooks import attempt_message, canonical, delivery_message, read_filter
from server.webhooks.errors import delivery_not_found
from store.deliveries import deliveries
from store.postgres.database import Database

LATEST_ATTEMPTS = 50  # that GetDelivery shows


class DeliveryHandlers:
    """Serves the RPCs for deliveries and their attempts."""

    def __init__(self, database: Database, max_total_size: int) -> None:
        """max_total_size: up to which a list counts its deliveries."""
        self._database = database
        self._max_total_size = max_total_size

    async def ListDeliveries(
        self, request: messages.ListDeliveriesRequest, context: Context
    ) -> messages.ListDeliveriesResponse:
        """A page of deliveries, the newest first unless the request says otherwise."""
        violations = Violations()
        wanted = read_filter(violations, request)
        newest_first = read_newest_first(violations, request.order, unset=True)
        page = read_page(
            violations,
            request.page_size,
            request.page_token,
            "ListDeliveries",
            (*canonical(wanted), str(newest_first)),
            BY_TIME,
        )
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            found = await deliveries.list_page(
                connection,
                organization_id,
                wanted,
                after=after_time_and_id(page),
                limit=page.limit,
                newest_first=newest_first,
            )
            total = None
            if request.include_total_size:
                total = await deliveries.count(connection, organization_id, wanted, self._max_total_size)
        answer = messages.ListDeliveriesResponse(total_size=total)
        page = await page.cut_into(answer.deliveries, map(delivery_message, page.shown(found.items)))
        answer.next_page_token = page.next_token(
            found.items, lambda row: (row.create_time, row.delivery_id), found.end
        )
        return answer

    async def GetDelivery(
        self, request: messages.GetDeliveryRequest, context: Context
    ) -> messages.GetDeliveryResponse:
        """One delivery with its latest attempts."""
        violations = Violations()
        delivery_id = violations.identifier("delivery_id", request.delivery_id)
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            found = await deliveries.get(connection, organization_id, delivery_id)
            if found is None:
                raise delivery_not_found(delivery_id)
            attempts = await deliveries.latest_attempts(
                connection, organization_id, delivery_id, limit=LATEST_ATTEMPTS
            )
        return messages.GetDeliveryResponse(
            delivery=delivery_message(found), attempts=[attempt_message(row) for row in attempts]
        )

    async def ListAttempts(
        self, request: messages.ListAttemptsRequest, context: Context
    ) -> messages.ListAttemptsResponse:
        """A page of the attempts of one delivery, in their order."""
        violations = Violations()
        delivery_id = violations.identifier("delivery_id", request.delivery_id)
        page = read_page(violations, request.page_size, request.page_token, "ListAttempts", (delivery_id,), (int,))
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            if await deliveries.get(connection, organization_id, delivery_id) is None:
                raise delivery_not_found(delivery_id)
            rows = await deliveries.list_attempts(
                connection,
                organization_id,
                delivery_id,
                after=0 if page.after is None else cast("int", page.after[0]),
                limit=page.limit,
            )
        answer = messages.ListAttemptsResponse()
        page = await page.cut_into(answer.attempts, map(attempt_message, page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.attempt_number,))
        return answer

"""AlertService: lists the customers and subscriptions for which an alert is disabled."""

from typing import cast

from generated.tidemark.v1 import alert_service_pb2 as messages
from server.alerts.errors import alert_not_found
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.paging import read_page
from server.calls.validation import Violations
from server.mapping.alert_exclusions import exclusion_message
from store.alerts import alerts, exclusions
from store.postgres.database import Database


class AlertExclusionHandlers:
    """Serves the RPC that lists exclusions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ListAlertExclusions(
        self, request: messages.ListAlertExclusionsRequest, context: Context
    ) -> messages.ListAlertExclusionsResponse:
        """A page of the customers and subscriptions for which an alert is disabled."""
        violations = Violations()
        alert_id = violations.identifier("alert_id", request.alert_id)
        customer_id = violations.identifier("customer_id", request.customer_id, required=False) or None
        page = read_page(
            violations,
            request.page_size,
            request.page_token,
            "ListAlertExclusions",
            (alert_id, customer_id or ""),
            (str, str),
        )
        violations.raise_if_any()
        organization_id = current_organization().organization_id
        async with self._database.transaction() as connection:
            if await alerts.get(connection, organization_id, alert_id) is None:
                raise alert_not_found(alert_id)
            found = await exclusions.list_page(
                connection,
                organization_id,
                alert_id,
                customer_id=customer_id,
                after=cast("tuple[str, str] | None", page.after),
                limit=page.limit,
            )
        answer = messages.ListAlertExclusionsResponse()
        page = await page.cut_into(answer.exclusions, map(exclusion_message, page.shown(found)))
        answer.next_page_token = page.next_token(found, lambda one: (one.customer_id, one.subscription_id or ""))
        return answer

"""WebhookService: operator events."""

from generated.tidemark.v1 import webhook_service_pb2 as messages
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.paging import BY_TIME, after_time_and_id, read_page
from server.calls.validation import Violations
from server.mapping.event_types import read_event_types
from server.mapping.webhooks import event_message
from store.deliveries import operator_event_log
from store.postgres.database import Database
from webhooks.example_events import TEST_TYPE
from webhooks.operator_events import OperatorEventType

_OPERATOR_TYPES = (*OperatorEventType, TEST_TYPE)


class OperatorEventHandlers:
    """Serves the RPCs for operator events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ListOperatorEvents(
        self, request: messages.ListOperatorEventsRequest, context: Context
    ) -> messages.ListOperatorEventsResponse:
        """A page of operator events, the newest first."""
        violations = Violations()
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id, required=False)
        event_types = read_event_types(violations, "event_types", request.event_types, _OPERATOR_TYPES)
        page = read_page(
            violations,
            request.page_size,
            request.page_token,
            "ListOperatorEvents",
            (endpoint_id, ",".join(sorted(event_types))),
            BY_TIME,
        )
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            rows = await operator_event_log.list_page(
                connection,
                current_organization().organization_id,
                endpoint_id=endpoint_id or None,
                event_types=event_types,
                after=after_time_and_id(page),
                limit=page.limit,
            )
        answer = messages.ListOperatorEventsResponse()
        page = await page.cut_into(answer.events, map(event_message, page.shown(rows)))
        answer.next_page_token = page.next_token(rows, lambda row: (row.create_time, row.event_id))
        return answer

"""VoidUsageEvents: counted events are taken back."""

import logging
from collections.abc import Sequence

from engine.voiding.voids import UsageVoids, Voided
from evaluator.voids import EventKey, VoidOutcome
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import usage_void_pb2
from runtime.actions import LogAction
from runtime.clock import Clock
from server.alerts.event_errors import check_number
from server.calls.audit_trail import record
from server.calls.context import Context
from server.calls.current_call import current_author, current_organization
from server.calls.idempotency import answer_once, read_request_id
from server.calls.validation import Violations, to_timestamp
from server.mapping.audited_resources import changed
from server.mapping.usage_events import event_message
from store.postgres.database import Connection, Database

MAX_EVENTS = 1_000  # of one request

_OUTCOMES = {
    VoidOutcome.VOIDED: usage_void_pb2.USAGE_EVENT_VOID_OUTCOME_VOIDED,
    VoidOutcome.ALREADY_VOIDED: usage_void_pb2.USAGE_EVENT_VOID_OUTCOME_ALREADY_VOIDED,
    VoidOutcome.NOT_FOUND: usage_void_pb2.USAGE_EVENT_VOID_OUTCOME_NOT_FOUND,
    VoidOutcome.TOO_OLD: usage_void_pb2.USAGE_EVENT_VOID_OUTCOME_TOO_OLD,
    VoidOutcome.AMBIGUOUS: usage_void_pb2.USAGE_EVENT_VOID_OUTCOME_AMBIGUOUS,
}

logger = logging.getLogger(__name__)


class UsageVoidHandlers:
    """The handler of VoidUsageEvents."""

    def __init__(self, database: Database, clock: Clock, voids: UsageVoids) -> None:
        self._database = database
        self._clock = clock
        self._voids = voids

    async def VoidUsageEvents(
        self, request: messages.VoidUsageEventsRequest, context: Context
    ) -> messages.VoidUsageEventsResponse:
        """Takes counted events back, all in one transaction; each event has an outcome of its own."""
        keys = _read_keys(request)
        done: list[Voided] = []

        async def work(connection: Connection) -> messages.VoidUsageEventsResponse:
            voided = await self._voids.void(connection, current_organization(), keys, current_author().key_id)
            done.append(voided)
            changes = [changed(event_message(event), None) for event in voided.events]
            await record(connection, voided.time, *changes)
            outcomes = [_OUTCOMES[one] for one in voided.outcomes]
            return messages.VoidUsageEventsResponse(outcomes=outcomes, void_time=to_timestamp(voided.time))

        answer = await answer_once(
            self._database, self._clock, "VoidUsageEvents", request, messages.VoidUsageEventsResponse, work
        )
        if done and done[-1].events and not request.validate_only:
            logger.info(
                "usage events were voided: %s",
                len(done[-1].events),
                extra={"action": LogAction.USAGE_VOIDED, "organization": current_organization().name},
            )
        return answer


def _read_keys(request: messages.VoidUsageEventsRequest) -> Sequence[EventKey]:
    """The keys of a request. Raises InvalidArgument."""
    check_number("events: the request has", len(request.events), MAX_EVENTS)
    violations = Violations()
    read_request_id(violations, request.request_id)
    keys = []
    for index, key in enumerate(request.events):
        path = f"events[{index}]"
        customer_id = violations.identifier(f"{path}.customer_id", key.customer_id)
        event_id = violations.identifier(f"{path}.event_id", key.event_id)
        time = violations.time(f"{path}.event_time", key.event_time) if key.HasField("event_time") else None
        keys.append(EventKey(customer_id, event_id, time))
    violations.raise_if_any()
    return keys

"""WebhookService: sends a test event, sends deliveries again, and recovers an endpoint."""

from datetime import datetime, timedelta

from engine.redelivery_jobs import RedeliveryJobs
from evaluator.notifications import REACHED_TYPE
from generated.tidemark.v1 import webhook_service_pb2 as messages
from generated.tidemark.v1.event_type_pb2 import EventType
from runtime.clock import Clock
from server.calls.audit_trail import record
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.idempotency import answer_once, read_request_id
from server.calls.validation import Violations
from server.mapping.alerts import read_condition_type
from server.mapping.audited_resources import changed
from server.mapping.event_type_numbers import NUMBERS
from server.mapping.event_types import read_event_type, read_event_types
from server.mapping.webhooks import delivery_message, job_message, read_statuses
from server.webhooks.errors import endpoint_disabled, endpoint_not_found, notification_not_handed_out
from store.deliveries import deliveries, operator_event_log, redelivery, redelivery_jobs
from store.deliveries.deliveries import Delivery, delivery_id
from store.deliveries.redelivery_jobs import JobKind, Selection
from store.endpoints import lifecycle
from store.endpoints.rows import EndpointState
from store.erasures import jobs as erasures
from store.identity import organizations
from store.postgres.database import Connection, Database
from webhooks.deliveries import Trigger
from webhooks.example_events import CONDITION_EVENT_TYPES, TEST_TYPE


class RedeliveryHandlers:
    """Serves the RPCs that send to an endpoint. retention: how long finished deliveries are kept."""

    def __init__(self, database: Database, clock: Clock, jobs: RedeliveryJobs, retention: timedelta) -> None:
        self._database = database
        self._clock = clock
        self._jobs = jobs
        self._retention = retention

    async def SendTestEvent(
        self, request: messages.SendTestEventRequest, context: Context
    ) -> messages.SendTestEventResponse:
        """Sends a test event to one endpoint: an example of the type in the request."""
        violations = _violations(request.request_id)
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id)
        event_type, condition = TEST_TYPE, None
        if request.event_type:
            event_type = read_event_type(violations, "event_type", request.event_type)
        if request.condition_type:
            condition = read_condition_type(violations, "condition_type", request.condition_type)
            event_type = event_type if request.event_type else REACHED_TYPE
            if event_type not in CONDITION_EVENT_TYPES:
                names = " or ".join(EventType.Name(NUMBERS[name]) for name in CONDITION_EVENT_TYPES)
                violations.add("condition_type", f"it needs the event_type {names}: others are of no condition")
        violations.raise_if_any()

        async def send(connection: Connection) -> messages.SendTestEventResponse:
            organization_id = await _lock_enabled(connection, endpoint_id)
            event_id = await operator_event_log.send_test(
                connection,
                organization_id,
                endpoint_id,
                event_type,
                condition,
                idempotency_key=request.request_id or None,
                now=self._clock.now(),
            )
            shown = delivery_message(await _delivery(connection, organization_id, endpoint_id, event_id))
            await record(connection, self._clock.now(), changed(None, shown))
            return messages.SendTestEventResponse(delivery=shown)

        return await answer_once(
            self._database, self._clock, "SendTestEvent", request, messages.SendTestEventResponse, send
        )

    async def RedeliverNotification(
        self, request: messages.RedeliverNotificationRequest, context: Context
    ) -> messages.RedeliverNotificationResponse:
        """Sends a notification to one endpoint again."""
        violations = _violations(request.request_id)
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id)
        notification_id = violations.identifier("notification_id", request.notification_id)
        violations.raise_if_any()

        async def redeliver(connection: Connection) -> messages.RedeliverNotificationResponse:
            organization_id = await _lock_enabled(connection, endpoint_id)
            wanted = await redelivery.known(connection, organization_id, notification_id)
            if wanted is None:
                raise notification_not_handed_out(notification_id)
            await redelivery.make_due(
                connection,
                organization_id,
                endpoint_id,
                [wanted],
                trigger=Trigger.MANUAL,
                idempotency_key=request.request_id or None,
            )
            shown = delivery_message(await _delivery(connection, organization_id, endpoint_id, notification_id))
            await record(connection, self._clock.now(), changed(None, shown))
            return messages.RedeliverNotificationResponse(delivery=shown)

        return await answer_once(
            self._database,
            self._clock,
            "RedeliverNotification",
            request,
            messages.RedeliverNotificationResponse,
            redeliver,
        )

    async def RedeliverDeliveries(
        self, request: messages.RedeliverDeliveriesRequest, context: Context
    ) -> messages.RedeliverDeliveriesResponse:
        """Creates a job that sends the deliveries of a filter again."""
        violations = _violations(request.request_id)
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id)
        statuses = read_statuses(violations, request.statuses)
        if not request.statuses:
            violations.add("statuses", "it is required: give the statuses of the deliveries to send again")
        customer_id = violations.identifier("customer_id", request.customer_id, required=False)
        event_types = read_event_types(violations, "event_types", request.event_types)
        now = self._clock.now()
        start, end = _read_span(violations, request, now)
        violations.raise_if_any()
        selection = Selection(
            start,
            end,
            statuses,
            event_types,
            customer_id or None,
        )

        async def begin(connection: Connection) -> messages.RedeliverDeliveriesResponse:
            if customer_id:
                # Under the lock: a job that is saved beside the erasure would keep the customer's id.
                await organizations.lock_shared(connection, current_organization().organization_id)
                await erasures.refuse_during(connection, current_organization().organization_id, customer_id)
            organization_id = await _lock_enabled(connection, endpoint_id)
            job = await redelivery_jobs.create(
                connection, organization_id, endpoint_id, JobKind.SELECTION, selection, now=now
            )
            shown = job_message(job)
            await record(connection, now, changed(None, shown, customer_id=customer_id))
            return messages.RedeliverDeliveriesResponse(job=shown)

        answer = await answer_once(
            self._database, self._clock, "RedeliverDeliveries", request, messages.RedeliverDeliveriesResponse, begin
        )
        if not request.validate_only:
            self._jobs.wake()
        return answer

    async def RecoverEndpoint(
        self, request: messages.RecoverEndpointRequest, context: Context
    ) -> messages.RecoverEndpointResponse:
        """Creates a job that sends an endpoint all notifications that it missed."""
        violations = _violations(request.request_id)
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id)
        now = self._clock.now()
        start, end = _read_span(violations, request, now)
        if request.HasField("start_time") and start < now - self._retention:
            violations.add(
                "start_time",
                f"it is more than {self._retention.days} days ago; older deliveries are deleted",
            )
        violations.raise_if_any()

        async def begin(connection: Connection) -> messages.RecoverEndpointResponse:
            organization_id = await _lock_enabled(connection, endpoint_id)
            job = await redelivery_jobs.create(
                connection, organization_id, endpoint_id, JobKind.RECOVERY, Selection(start, end), now=now
            )
            shown = job_message(job)
            await record(connection, now, changed(None, shown))
            return messages.RecoverEndpointResponse(job=shown)

        answer = await answer_once(
            self._database, self._clock, "RecoverEndpoint", request, messages.RecoverEndpointResponse, begin
        )
        if not request.validate_only:
            self._jobs.wake()
        return answer


def _violations(request_id: str) -> Violations:
    violations = Violations()
    read_request_id(violations, request_id)
    return violations


def _read_span(
    violations: Violations,
    request: messages.RedeliverDeliveriesRequest | messages.RecoverEndpointRequest,
    now: datetime,
) -> tuple[datetime, datetime]:
    """The start and the end of the time span of a request; the default end is now."""
    has_start, has_end = request.HasField("start_time"), request.HasField("end_time")
    if not has_start:
        violations.add("start_time", "it is required")
    since = violations.time("start_time", request.start_time) if has_start else now
    until = violations.time("end_time", request.end_time) if has_end else now
    if has_start and not violations.found and until <= since:
        violations.add("end_time" if has_end else "start_time", "start_time must be before end_time")
    return since, until


async def _lock_enabled(connection: Connection, endpoint_id: str) -> int:
    """Locks an endpoint that exists and is enabled; returns its organization."""
    organization_id = current_organization().organization_id
    found = await lifecycle.lock(connection, organization_id, endpoint_id)
    if found is None:
        raise endpoint_not_found(endpoint_id)
    if found.state is not EndpointState.ENABLED:
        raise endpoint_disabled(found)
    return organization_id


async def _delivery(connection: Connection, organization_id: int, endpoint_id: str, notification_id: str) -> Delivery:
    """The delivery of a notification to an endpoint. It exists."""
    found = await deliveries.get(
        connection, organization_id, delivery_id(organization_id, endpoint_id, notification_id)
    )
    assert found is not None
    return found

"""The handlers of WebhookService that send something again: one notification, many, a test event; and their jobs."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar

from google.protobuf.message import Message

from engine.jobs import RedeliveryJobs
from generated.tidemark.v1 import error_reason_pb2, webhook_pb2
from generated.tidemark.v1 import webhook_service_pb2 as messages
from runtime.clock import Clock
from server.calls.errors import AlreadyExists, FailedPrecondition, NotFound
from server.calls.identity import current_organization
from server.calls.paging import read_page
from server.calls.validation import Violations
from server.mapping.webhooks import delivery_message, event_message, job_message, read_status
from server.webhooks.handlers import BY_TIME, Context, Handlers, no_endpoint, time_and_id
from store.deliveries import deliveries, operator_event_log, redelivery, redelivery_jobs
from store.deliveries.deliveries import Delivery, delivery_id
from store.deliveries.redelivery_jobs import JobKind, Selection
from store.endpoints import switches as endpoint_switches
from store.endpoints.rows import EndpointState
from store.identity import idempotent_answers as requests
from store.identity.idempotent_answers import RequestIdReused
from store.postgres.database import Connection, Database
from webhooks.deliveries import Trigger
from webhooks.example_events import EXAMPLE_TYPES, TEST_TYPE
from webhooks.secret_box import SecretBox
from webhooks.url_policy import UrlPolicy

MAX_REQUEST_ID_LENGTH = 128  # characters


Answer = TypeVar("Answer", bound=Message)


class RedeliveryHandlers(Handlers):
    """The handlers of tidemark.v1.WebhookService that send something again."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        policy: UrlPolicy,
        box: SecretBox | None,
        jobs: RedeliveryJobs,
        retention: timedelta,
    ) -> None:
        """`retention`: how long finished deliveries are kept."""
        super().__init__(database, clock, policy, box)
        self._jobs = jobs
        self._retention = retention

    async def SendTestEvent(
        self, request: messages.SendTestEventRequest, context: Context
    ) -> messages.SendTestEventResponse:
        """Sends a test event to one endpoint: an example of the type that is asked for."""
        violations = _violations(request.request_id)
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id)
        event_type = request.event_type or TEST_TYPE
        if event_type not in EXAMPLE_TYPES:
            violations.add("event_type", f"there is no such type; there are {', '.join(EXAMPLE_TYPES)}")
        violations.raise_if_any()

        async def send(connection: Connection) -> messages.SendTestEventResponse:
            organization_id = await _lock_enabled(connection, endpoint_id)
            event_id = await operator_event_log.send_test(
                connection,
                organization_id,
                endpoint_id,
                event_type,
                idempotency_key=request.request_id or None,
                now=self._clock.now(),
            )
            sent = await _delivery(connection, organization_id, endpoint_id, event_id)
            return messages.SendTestEventResponse(delivery=delivery_message(sent))

        return await self._once("SendTestEvent", request.request_id, request, messages.SendTestEventResponse, send)

    async def RedeliverNotification(
        self, request: messages.RedeliverNotificationRequest, context: Context
    ) -> messages.RedeliverNotificationResponse:
        """Sends a notification to one endpoint once more."""
        violations = _violations(request.request_id)
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id)
        notification_id = violations.identifier("notification_id", request.notification_id)
        violations.raise_if_any()

        async def redeliver(connection: Connection) -> messages.RedeliverNotificationResponse:
            organization_id = await _lock_enabled(connection, endpoint_id)
            wanted = await redelivery.known(connection, organization_id, notification_id)
            if wanted is None:
                raise NotFound(
                    error_reason_pb2.ERROR_REASON_NOTIFICATION_NOT_FOUND,
                    f"no notification {notification_id!r} has been handed to any endpoint;"
                    " RecoverEndpoint sends an endpoint what it was never handed",
                    metadata={"notification_id": notification_id},
                )
            await redelivery.make_due(
                connection,
                organization_id,
                endpoint_id,
                [wanted],
                trigger=Trigger.MANUAL,
                idempotency_key=request.request_id or None,
            )
            sent = await _delivery(connection, organization_id, endpoint_id, notification_id)
            return messages.RedeliverNotificationResponse(delivery=delivery_message(sent))

        return await self._once(
            "RedeliverNotification", request.request_id, request, messages.RedeliverNotificationResponse, redeliver
        )

    async def RedeliverDeliveries(
        self, request: messages.RedeliverDeliveriesRequest, context: Context
    ) -> messages.RedeliverDeliveriesResponse:
        """Makes a job that sends the deliveries again that a filter selects."""
        violations = _violations(request.request_id)
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id)
        statuses = [read_status(violations, f"statuses[{i}]", status) for i, status in enumerate(request.statuses)]
        if None in statuses and not violations.found:
            violations.add("statuses", "DELIVERY_STATUS_UNSPECIFIED is no status")
        if not statuses:
            violations.add("statuses", "it is required: say what has become of the deliveries to send again")
        customer_id = violations.identifier("customer_id", request.customer_id, required=False)
        event_type = violations.identifier("event_type", request.event_type, required=False)
        now = self._clock.now()
        start, end = _read_span(violations, request, now)
        violations.raise_if_any()
        selection = Selection(
            start,
            end,
            tuple(dict.fromkeys(status for status in statuses if status is not None)),
            event_type or None,
            customer_id or None,
        )

        async def begin(connection: Connection) -> messages.RedeliverDeliveriesResponse:
            organization_id = await _lock_enabled(connection, endpoint_id)
            job = await redelivery_jobs.create(
                connection, organization_id, endpoint_id, JobKind.SELECTION, selection, now=now
            )
            return messages.RedeliverDeliveriesResponse(job=job_message(job))

        answer = await self._once(
            "RedeliverDeliveries", request.request_id, request, messages.RedeliverDeliveriesResponse, begin
        )
        self._jobs.wake()
        return answer

    async def RecoverEndpoint(
        self, request: messages.RecoverEndpointRequest, context: Context
    ) -> messages.RecoverEndpointResponse:
        """Makes a job that sends an endpoint what it has missed."""
        violations = _violations(request.request_id)
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id)
        now = self._clock.now()
        start, end = _read_span(violations, request, now)
        if request.HasField("start_time") and start < now - self._retention:
            violations.add(
                "start_time",
                f"it is more than {self._retention.days} days ago; what was delivered before is not known any more",
            )
        violations.raise_if_any()

        async def begin(connection: Connection) -> messages.RecoverEndpointResponse:
            organization_id = await _lock_enabled(connection, endpoint_id)
            job = await redelivery_jobs.create(
                connection, organization_id, endpoint_id, JobKind.RECOVERY, Selection(start, end), now=now
            )
            return messages.RecoverEndpointResponse(job=job_message(job))

        answer = await self._once(
            "RecoverEndpoint", request.request_id, request, messages.RecoverEndpointResponse, begin
        )
        self._jobs.wake()
        return answer

    async def GetRedeliveryJob(
        self, request: messages.GetRedeliveryJobRequest, context: Context
    ) -> messages.GetRedeliveryJobResponse:
        """One job."""
        violations = Violations()
        job_id = violations.identifier("job_id", request.job_id)
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            job = await redelivery_jobs.get(connection, current_organization().organization_id, job_id)
        if job is None:
            raise NotFound(
                error_reason_pb2.ERROR_REASON_REDELIVERY_JOB_NOT_FOUND,
                f"there is no redelivery job {job_id!r}",
                metadata={"job_id": job_id},
            )
        return messages.GetRedeliveryJobResponse(job=job_message(job))

    async def ListRedeliveryJobs(
        self, request: messages.ListRedeliveryJobsRequest, context: Context
    ) -> messages.ListRedeliveryJobsResponse:
        """A page of jobs, the newest first."""
        violations = Violations()
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id, required=False)
        page = read_page(
            violations, request.page_size, request.page_token, "ListRedeliveryJobs", (endpoint_id,), BY_TIME
        )
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            rows = await redelivery_jobs.list_page(
                connection,
                current_organization().organization_id,
                endpoint_id=endpoint_id or None,
                after=time_and_id(page),
                limit=page.limit,
            )
        shown = [job_message(row) for row in page.shown(rows)]
        page = page.cut(shown)
        return messages.ListRedeliveryJobsResponse(
            jobs=page.shown(shown),
            next_page_token=page.next_token(rows, lambda row: (row.create_time, row.job_id)),
        )

    async def ListOperatorEvents(
        self, request: messages.ListOperatorEventsRequest, context: Context
    ) -> messages.ListOperatorEventsResponse:
        """A page of operator events, the newest first."""
        violations = Violations()
        endpoint_id = violations.identifier("endpoint_id", request.endpoint_id, required=False)
        event_type = violations.identifier("event_type", request.event_type, required=False)
        page = read_page(
            violations,
            request.page_size,
            request.page_token,
            "ListOperatorEvents",
            (endpoint_id, event_type),
            BY_TIME,
        )
        violations.raise_if_any()
        async with self._database.transaction() as connection:
            rows = await operator_event_log.list_page(
                connection,
                current_organization().organization_id,
                endpoint_id=endpoint_id or None,
                event_type=event_type or None,
                after=time_and_id(page),
                limit=page.limit,
            )
        shown = [event_message(row) for row in page.shown(rows)]
        page = page.cut(shown)
        return messages.ListOperatorEventsResponse(
            events=page.shown(shown),
            next_page_token=page.next_token(rows, lambda row: (row.create_time, row.event_id)),
        )

    async def _once(
        self,
        method: str,
        request_id: str,
        request: Message,
        kind: type[Answer],
        work: Callable[[Connection], Awaitable[Answer]],
    ) -> Answer:
        """What `work` answers; with a request_id, the answer that the same request got before."""
        organization_id = current_organization().organization_id
        payload = request.SerializeToString(deterministic=True)
        async with self._database.transaction() as connection:
            if not request_id:
                return await work(connection)
            replay = (connection, organization_id, method, request_id, payload)
            try:
                first = await requests.first_response(*replay)
            except RequestIdReused:
                raise AlreadyExists(
                    error_reason_pb2.ERROR_REASON_REQUEST_ID_REUSED,
                    f"the request id {request_id!r} was used for another request: take a new one",
                    metadata={"request_id": request_id},
                ) from None
            if first is not None:
                return kind.FromString(first)
            answer = await work(connection)
            await requests.remember(*replay, answer.SerializeToString(), self._clock.now())
            return answer


def _violations(request_id: str) -> Violations:
    violations = Violations()
    violations.text("request_id", request_id, max_length=MAX_REQUEST_ID_LENGTH)
    return violations


def _read_span(
    violations: Violations,
    request: messages.RedeliverDeliveriesRequest | messages.RecoverEndpointRequest,
    now: datetime,
) -> tuple[datetime, datetime]:
    """The beginning and the end of what is sent again; the end is now unless it is given."""
    has_start, has_end = request.HasField("start_time"), request.HasField("end_time")
    if not has_start:
        violations.add("start_time", "it is required")
    since = violations.time("start_time", request.start_time) if has_start else now
    until = violations.time("end_time", request.end_time) if has_end else now
    if has_start and not violations.found and until <= since:
        violations.add("end_time" if has_end else "start_time", "start_time has to lie before end_time")
    return since, until


async def _lock_enabled(connection: Connection, endpoint_id: str) -> int:
    """Locks an endpoint that has to be there and enabled; returns its organization."""
    organization_id = current_organization().organization_id
    found = await endpoint_switches.lock(connection, organization_id, endpoint_id)
    if found is None:
        raise no_endpoint(endpoint_id)
    if found.state is not EndpointState.ENABLED:
        reason = webhook_pb2.DisableReason.Name(webhook_pb2.DISABLE_REASON_UNSPECIFIED)
        if found.disable_reason is not None:
            reason = f"DISABLE_REASON_{found.disable_reason}"
        raise FailedPrecondition(
            error_reason_pb2.ERROR_REASON_ENDPOINT_DISABLED,
            f"the endpoint {endpoint_id} is disabled; enable it first",
            metadata={"endpoint_id": endpoint_id, "disable_reason": reason},
        )
    return organization_id


async def _delivery(connection: Connection, organization_id: int, endpoint_id: str, notification_id: str) -> Delivery:
    """The delivery of a notification to an endpoint, which is there."""
    found = await deliveries.get(
        connection, organization_id, delivery_id(organization_id, endpoint_id, notification_id)
    )
    assert found is not None
    return found

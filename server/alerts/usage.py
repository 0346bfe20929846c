"""AlertService: takes usage, and acknowledges it with the transitions that it caused. This is the hot path."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator

from engine.ingest.batches import Batch
from engine.ingest.monitoring import IngestMonitoring
from engine.ingest.pending import Room
from engine.ingest.pipeline import LARGE_COMMIT, Pipeline
from engine.quotas.organization_quotas import OrganizationQuotas
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1.usage_pb2 import Rejection, UsageOutcome
from runtime.clock import Clock
from runtime.configuration import Configuration
from runtime.quotas import QuotaKind
from runtime.tracing.current import current_trace
from runtime.turns import Slices
from server.alerts.event_errors import check_number
from server.alerts.omitted_notifications import store_token
from server.alerts.usage_reading import ParsedBatch, Reader
from server.alerts.usage_rejections import rejections
from server.alerts.usage_requests import EncodedRequest, UsageBatch
from server.calls.answer_size import answer_bytes_problem, room_of
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.few_at_once import FewAtOnce
from server.calls.lifecycle import Drain
from server.calls.stream_end import stream_end
from server.calls.validation import Violations
from server.mapping.usage_answers import write_results
from server.streams.ordered_answers import MAX_STREAM_EVENTS, OrderedAnswers, retrieve
from store.identity.organizations import Organization
from store.postgres.database import Database

MAX_BATCH_ID_LENGTH = 128  # characters


class UsageHandlers:
    """Serves the RPCs that take usage."""

    def __init__(
        self,
        configuration: Configuration,
        database: Database,
        clock: Clock,
        pipeline: Pipeline,
        drain: Drain,
        quotas: OrganizationQuotas,
        *,
        max_stream_events: int = MAX_STREAM_EVENTS,
        monitoring: IngestMonitoring | None = None,
    ) -> None:
        """max_stream_events: of one stream, read and not answered yet."""
        self._configuration = configuration
        self._database = database
        self._clock = clock
        self._pipeline = pipeline
        self._drain = drain
        self._quotas = quotas
        self._max_stream_events = max_stream_events
        self._reader = Reader(configuration.retention)
        self._few = FewAtOnce()
        self._monitoring = monitoring or IngestMonitoring()

    async def EvaluateUsageBatch(
        self, request: messages.EvaluateUsageBatchRequest | EncodedRequest, context: Context
    ) -> messages.EvaluateUsageBatchResponse:
        """Counts one batch, and answers when it is durable. Raises Overloaded and QuotaReached."""
        batch = request.batch
        self._check(batch)
        organization = current_organization()
        if len(batch.events) > LARGE_COMMIT:  # the message would take memory while it waits
            return await self._evaluate(organization, batch)
        async with self._few.turn(organization.organization_id):
            return await self._evaluate(organization, batch)

    async def _evaluate(self, organization: Organization, batch: UsageBatch) -> messages.EvaluateUsageBatchResponse:
        room = await self._pipeline.admit(organization, len(batch.events))
        response = messages.EvaluateUsageBatchResponse()
        try:
            use = self._quotas.use(organization.organization_id)
            use.take(QuotaKind.EVENTS_PER_SECOND, len(batch.events))
            parsed = await self._read_events(organization, batch)
            await self._count(organization, batch, parsed, room, response.outcome)
        finally:
            room.give_up()
        return response

    async def EvaluateUsage(
        self, request_iterator: AsyncIterator[messages.EvaluateUsageRequest | EncodedRequest], context: Context
    ) -> AsyncIterator[messages.EvaluateUsageResponse]:
        """Counts batch after batch. Sends the answers in the order of the requests, each when its batch is durable.

        Requests are read ahead, so that several share a commit.
        """
        stream = OrderedAnswers[messages.EvaluateUsageResponse](self._max_stream_events)
        reading = asyncio.create_task(
            self._read(current_organization(), request_iterator, stream), name="usage-reader"
        )
        sent = stream.sent(
            reading,
            stream_end(self._drain),
            heartbeat=self._configuration.heartbeat,
            alive=lambda: messages.EvaluateUsageResponse(heartbeat=True),
            going_away=lambda: messages.EvaluateUsageResponse(going_away=True),
        )
        async with contextlib.aclosing(sent) as answers:
            async for answer in answers:
                yield answer
                del answer

    async def _read(
        self,
        organization: Organization,
        requests: AsyncIterator[messages.EvaluateUsageRequest | EncodedRequest],
        stream: OrderedAnswers[messages.EvaluateUsageResponse],
    ) -> None:
        """Reads requests and starts the task of each answer, within the limits of the stream and the organization.

        Requests are read one after the other, and tasks begin in the order in which they are created, so batches are
        submitted in the order of the requests. Raises InvalidArgument for a request that is not valid.
        """
        async for request in requests:
            batch = request.batch
            self._check(batch)
            await stream.make_room(len(batch.events))
            use = self._quotas.use(organization.organization_id)
            await use.take_in_turn(QuotaKind.EVENTS_PER_SECOND, len(batch.events))
            room = await self._pipeline.admit(organization, len(batch.events), waits=True)
            try:
                parsed = await self._read_events(organization, batch)
            except BaseException:
                room.give_up()
                raise
            task = asyncio.create_task(self._answer(organization, batch, parsed, room), name="usage-answer")
            task.add_done_callback(functools.partial(_ended, room))
            stream.add(task, len(batch.events))
            del request, batch, parsed, room, task  # an idle stream would keep its last message, and its answer

    async def _read_events(self, organization: Organization, batch: UsageBatch) -> ParsedBatch:
        return await self._reader.read(batch.events, self._clock.now(), Slices(organization.organization_id))

    async def _answer(
        self, organization: Organization, batch: UsageBatch, parsed: ParsedBatch, room: Room
    ) -> messages.EvaluateUsageResponse:
        """The answer of a stream to one batch."""
        response = messages.EvaluateUsageResponse()
        await self._count(organization, batch, parsed, room, response.outcome)
        return response

    async def _count(
        self, organization: Organization, batch: UsageBatch, parsed: ParsedBatch, room: Room, shown: UsageOutcome
    ) -> None:
        """Submits the events of one batch, and fills in its outcome, which is a part of the answer.

        The outcome is not made for itself: a message that is set into another one is copied.
        """
        submitted = Batch(parsed.events, batch.include_gauges, current_trace())
        outcome = await self._pipeline.submit(organization, submitted, room)
        slices = Slices(organization.organization_id)
        shown.batch_id = batch.batch_id
        shown.accepted = outcome.accepted
        shown.duplicates = len(outcome.duplicates)
        rejected: list[Rejection] = []
        self._monitoring.invalid(len(parsed.rejected))
        if parsed.rejected or outcome.conflicting or outcome.too_old or outcome.of_erased or outcome.unrecorded:
            rejected = await rejections(parsed, outcome, room_of(batch.max_answer_bytes), slices)
        if rejected or outcome.transitions or outcome.gauges or outcome.over_limits:
            left_out = await write_results(shown, rejected, outcome, room_of(batch.max_answer_bytes), slices)
            if left_out:
                shown.omitted.notifications_page_token = await store_token(
                    self._database, organization.organization_id, left_out, self._clock.now(), slices
                )

    def _check(self, batch: UsageBatch) -> None:
        check_number("batch.events: the batch has", len(batch.events), self._configuration.max_batch_events)
        violations = Violations()
        if len(batch.batch_id) > MAX_BATCH_ID_LENGTH:
            too_long = f"it has {len(batch.batch_id)} characters; at most {MAX_BATCH_ID_LENGTH} are allowed"
            violations.add("batch.batch_id", too_long)
        if batch.max_answer_bytes and (problem := answer_bytes_problem(batch.max_answer_bytes)) is not None:
            violations.add("batch.max_answer_bytes", problem)
        violations.raise_if_any()


def _ended(room: Room, answer: "asyncio.Task[messages.EvaluateUsageResponse]") -> None:
    """Frees the rest of an answer's room. The task of the answer can end before it begins, so it cannot do this."""
    room.give_up()
    retrieve(answer)

"""AlertService's hot path: usage in, acknowledgements with transitions out."""

import asyncio
import functools
from collections import deque
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, TypeVar

import grpc

from engine.ingest.batches import Batch
from engine.ingest.pending import Overloaded, Room
from engine.ingest.pipeline import Pipeline
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import error_reason_pb2, usage_pb2
from runtime.clock import Clock
from runtime.configuration import Configuration
from runtime.turns import Slices
from server.alerts.usage_reading import ParsedBatch, Reader
from server.alerts.usage_rejections import rejections
from server.calls.errors import FieldViolation, InvalidArgument, ResourceExhausted
from server.calls.identity import current_organization
from server.calls.leaving import time_to_leave
from server.calls.lifecycle import Drain
from server.calls.open_streams import raise_if_revoked
from server.mapping.usage_answers import write_results
from store.identity.organizations import Organization

# Of one stream, read and not yet answered; the client waits beyond that, so that one that sends as fast as it can
# meets flow control and not RESOURCE_EXHAUSTED.
MAX_STREAM_BATCHES = 64
MAX_STREAM_EVENTS = 10_000  # unless a single batch brings more
RETRY_OVERLOAD = timedelta(milliseconds=500)
MAX_BATCH_ID_LENGTH = 128  # characters
MAX_STREAM_AGE = 30 * 60.0  # seconds; below the grace that an aged connection gives its streams

Context = grpc.aio.ServicerContext[Any, Any]
Request = messages.EvaluateUsageRequest | messages.EvaluateUsageBatchRequest
Response = TypeVar("Response", messages.EvaluateUsageResponse, messages.EvaluateUsageBatchResponse)


class _Stream:
    """The answers of one stream that are being prepared, in the order of their requests."""

    def __init__(self) -> None:
        self.answers: deque[asyncio.Task[messages.EvaluateUsageResponse]] = deque()
        self.arrived = asyncio.Event()
        self._sizes: deque[int] = deque()  # events of each batch that is read and not answered
        self._answered = asyncio.Event()

    async def make_room(self, size: int) -> None:
        """Waits until a batch of that many events has room beside those that are being answered."""
        while self._sizes and (len(self._sizes) >= MAX_STREAM_BATCHES or sum(self._sizes) + size > MAX_STREAM_EVENTS):
            self._answered.clear()
            await self._answered.wait()
        self._sizes.append(size)

    async def next_answer(self) -> messages.EvaluateUsageResponse:
        """The next answer, once it is there."""
        answer = await self.answers.popleft()
        self._sizes.popleft()
        self._answered.set()
        return answer


class UsageHandlers:
    """The handlers of tidemark.v1.AlertService that take usage."""

    def __init__(self, configuration: Configuration, clock: Clock, pipeline: Pipeline, drain: Drain) -> None:
        self._configuration = configuration
        self._clock = clock
        self._pipeline = pipeline
        self._drain = drain
        self._reader = Reader(configuration.retention)

    async def EvaluateUsageBatch(
        self, request: messages.EvaluateUsageBatchRequest, context: Context
    ) -> messages.EvaluateUsageBatchResponse:
        """Counts one batch and answers once it is durable."""
        self._check(request)
        organization = current_organization()
        try:
            room = await self._pipeline.admit(organization, len(request.events))
        except Overloaded as error:
            raise overloaded(error) from None
        try:
            return await self._answer(organization, request, messages.EvaluateUsageBatchResponse(), room)
        finally:
            room.give_up()

    async def EvaluateUsage(
        self, request_iterator: AsyncIterator[messages.EvaluateUsageRequest], context: Context
    ) -> AsyncIterator[messages.EvaluateUsageResponse]:
        """Counts batch after batch; answers in the order of the requests, each once it is durable.

        Requests are read ahead, so that many share a commit. The end of the requests does not end a commit: the
        service cannot distinguish a client that hung up from one that has sent everything.
        """
        stream = _Stream()
        reading = asyncio.create_task(
            self._read(current_organization(), request_iterator, stream), name="usage-reader"
        )
        leaving = asyncio.create_task(time_to_leave(self._drain, MAX_STREAM_AGE), name="usage-leaving")
        try:
            while True:
                while stream.answers and not leaving.done():
                    yield await stream.next_answer()
                if reading.done() or leaving.done():
                    break
                stream.arrived.clear()
                arrival = asyncio.create_task(stream.arrived.wait(), name="usage-arrival")
                done, _ = await asyncio.wait(
                    {arrival, reading, leaving},
                    timeout=self._configuration.heartbeat,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                arrival.cancel()
                if not done:
                    yield messages.EvaluateUsageResponse(heartbeat=True)
            going_away = not reading.done()
            await _cancel(reading)
            # Requests that were read are answered; the client sends the others again.
            while stream.answers:
                yield await stream.next_answer()
            raise_if_revoked()
            if going_away:
                yield messages.EvaluateUsageResponse(going_away=True)
            elif not reading.cancelled():
                reading.result()  # raises what went wrong with reading
        finally:
            reading.cancel()
            leaving.cancel()
            for answer in stream.answers:
                answer.cancel()

    async def _read(
        self,
        organization: Organization,
        requests: AsyncIterator[messages.EvaluateUsageRequest],
        stream: "_Stream",
    ) -> None:
        """Starts an answer to each request; waits while too many are unanswered or the organization has no room.

        Requests are read one after the other, and tasks begin in the order in which they are made, so batches are
        submitted in the order of the requests. Raises InvalidArgument for a request that is wrong as a whole.
        """
        async for request in requests:
            self._check(request)
            await stream.make_room(len(request.events))
            room = await self._pipeline.admit(organization, len(request.events), waits=True)
            try:
                read = await self._read_events(organization, request)
            except BaseException:
                room.give_up()
                raise
            answer = self._answer(organization, request, messages.EvaluateUsageResponse(), room, read)
            task = asyncio.create_task(answer, name="usage-answer")
            task.add_done_callback(functools.partial(_ended, room))
            stream.answers.append(task)
            stream.arrived.set()

    async def _read_events(self, organization: Organization, request: Request) -> ParsedBatch:
        return await self._reader.read(request.events, self._clock.now(), Slices(organization.organization_id))

    async def _answer(
        self,
        organization: Organization,
        request: Request,
        response: Response,
        room: Room,
        parsed: ParsedBatch | None = None,
    ) -> Response:
        """Fills in the answer to one request. room: for its events. parsed: its events, if they are read already."""
        parsed = parsed or await self._read_events(organization, request)
        batch = Batch(parsed.events, request.include_gauges)
        outcome = await self._pipeline.submit(organization, batch, room)
        slices = Slices(organization.organization_id)
        response.batch_id = request.batch_id
        response.accepted = outcome.accepted
        response.duplicates = len(outcome.duplicates)
        rejected: list[usage_pb2.Rejection] = []
        if parsed.rejected or outcome.conflicting or outcome.too_old or outcome.unrecorded:
            rejected = await rejections(request.events, parsed, outcome, slices)
        if rejected or outcome.transitions or outcome.gauges:
            await write_results(response, rejected, outcome, slices)
        return response

    def _check(self, request: Request) -> None:
        count, limit = len(request.events), self._configuration.max_batch_events
        if count == 0:
            raise InvalidArgument(
                error_reason_pb2.ERROR_REASON_BATCH_EMPTY, "events: the request brings none; send 1 or more"
            )
        if count > limit:
            raise InvalidArgument(
                error_reason_pb2.ERROR_REASON_BATCH_TOO_LARGE,
                f"events: the request brings {count}; send at most {limit} in one",
                metadata={"events": str(count), "limit": str(limit)},
            )
        if len(request.batch_id) > MAX_BATCH_ID_LENGTH:
            too_long = f"it has {len(request.batch_id)} characters; at most {MAX_BATCH_ID_LENGTH} are allowed"
            raise InvalidArgument(
                error_reason_pb2.ERROR_REASON_INVALID_FIELD,
                f"batch_id: {too_long}",
                violations=[FieldViolation("batch_id", too_long)],
            )


def overloaded(error: Overloaded) -> ResourceExhausted:
    """The error of a batch that there is no room for."""
    own = error.pending_of_organization
    if own is not None:
        # The present size of that share is not shown: it depends on what other organizations send.
        return ResourceExhausted(
            error_reason_pb2.ERROR_REASON_OVERLOADED,
            f"{own} events of this organization wait for the database; these {error.events} are more than the rest of"
            " its share of this server: send this batch again a little later",
            metadata={"share_of": "organization", "pending_events": str(own)},
            retry_after=RETRY_OVERLOAD,
        )
    return ResourceExhausted(
        error_reason_pb2.ERROR_REASON_OVERLOADED,
        f"this server has no room for {error.events} more events: send this batch again a little later, or fewer"
        " events at once",
        metadata={"share_of": "server"},
        retry_after=RETRY_OVERLOAD,
    )


def _ended(room: Room, answer: "asyncio.Task[messages.EvaluateUsageResponse]") -> None:
    """Gives up what is left of an answer's room, also where its task was cancelled before it began."""
    room.give_up()
    # The result of an answer whose stream was cut off is not needed; reading its exception marks it as handled.
    if not answer.cancelled():
        answer.exception()


async def _cancel(task: "asyncio.Task[None]") -> None:
    """Cancels a task and waits for its end; its exception is not raised here."""
    task.cancel()
    await asyncio.wait({task})

"""LimitService: the stream of requests, of which those of one message, and of messages that wait, share a commit."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from engine.enforcement.requests import Request
from engine.ingest.pending import Room
from generated.tidemark.v1 import limit_service_pb2 as messages
from runtime.clock import Clock
from runtime.turns import Slices
from server.alerts.event_errors import check_number
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.errors import ApiError
from server.calls.lifecycle import Drain
from server.calls.stream_end import stream_end
from server.calls.validation import Violations
from server.enforcement.answers import write_results
from server.enforcement.deciding import Deciding
from server.enforcement.errors import error_table
from server.enforcement.reading import Check, read_item
from server.mapping.requested_usage import UsageBounds
from server.streams.ordered_answers import MAX_STREAM_EVENTS, OrderedAnswers, retrieve
from store.identity.organizations import Organization

MAX_REQUESTS = 1_000  # of one message
MAX_BATCH_ID_LENGTH = 128  # characters


class EnforcementStreamHandlers:
    """Serves EnforceUsage. heartbeat: seconds without an answer until a stream sends one. retention: of events."""

    def __init__(
        self,
        clock: Clock,
        deciding: Deciding,
        drain: Drain,
        *,
        heartbeat: float,
        retention: timedelta,
        max_stream_requests: int = MAX_STREAM_EVENTS,
    ) -> None:
        """max_stream_requests: of one stream, read and not answered yet."""
        self._clock = clock
        self._deciding = deciding
        self._drain = drain
        self._heartbeat = heartbeat
        self._retention = retention
        self._max_stream_requests = max_stream_requests
        self._errors = error_table()

    async def EnforceUsage(
        self, request_iterator: AsyncIterator[messages.EnforceUsageRequest], context: Context
    ) -> AsyncIterator[messages.EnforceUsageResponse]:
        """Answers message after message, each when all that it changes is durable."""
        stream = OrderedAnswers[messages.EnforceUsageResponse](self._max_stream_requests)
        reading = asyncio.create_task(
            self._read(current_organization(), request_iterator, stream), name="enforcement-reader"
        )
        sent = stream.sent(
            reading,
            stream_end(self._drain),
            heartbeat=self._heartbeat,
            alive=lambda: messages.EnforceUsageResponse(heartbeat=True),
            going_away=lambda: messages.EnforceUsageResponse(going_away=True),
        )
        async with contextlib.aclosing(sent) as answers:
            async for answer in answers:
                yield answer
                del answer

    async def _read(
        self,
        organization: Organization,
        sent: AsyncIterator[messages.EnforceUsageRequest],
        stream: OrderedAnswers[messages.EnforceUsageResponse],
    ) -> None:
        """Reads messages and starts the task of each answer, within the limits of stream and organization.

        Tasks begin in the order in which they are created, so messages are submitted in their order. Raises
        InvalidArgument for a message that is not valid.
        """
        async for message in sent:
            number = len(message.requests)
            check_number("requests: the message has", number, MAX_REQUESTS)
            if len(message.batch_id) > MAX_BATCH_ID_LENGTH:
                violations = Violations()
                too_long = f"it has {len(message.batch_id)} characters; at most {MAX_BATCH_ID_LENGTH} are allowed"
                violations.add("batch_id", too_long)
                violations.raise_if_any()
            await stream.make_room(number)
            room = await self._deciding.admit(organization, message)
            try:
                now = self._clock.now()
                requests = await self._parsed(organization, message, now)
            except BaseException:
                room.give_up()
                raise
            task = asyncio.create_task(
                self._answer(organization, message.batch_id, requests, now, room), name="enforcement-answer"
            )
            task.add_done_callback(functools.partial(_ended, room))
            stream.add(task, number)
            del message, requests, room, task  # an idle stream would keep its last message, and its answer

    async def _parsed(
        self, organization: Organization, message: messages.EnforceUsageRequest, now: datetime
    ) -> list[Request | Check | ApiError]:
        """The requests of a message, each checked on its own, in slices."""
        bounds = UsageBounds(now, self._retention)
        slices = Slices(organization.organization_id)
        slices.begin_at_once()
        found: list[Request | Check | ApiError] = []
        for index, one in enumerate(message.requests):
            violations = Violations()
            request = read_item(violations, one, bounds, f"requests[{index}]")
            found.append(violations.error() if violations.found or request is None else request)
            await slices.pause()
        return found

    async def _answer(
        self,
        organization: Organization,
        batch_id: str,
        requests: list[Request | Check | ApiError],
        now: datetime,
        room: Room,
    ) -> messages.EnforceUsageResponse:
        """The answer to one message."""
        valid = [request for request in requests if not isinstance(request, ApiError)]
        answers = await self._deciding.answer(organization, valid, room)
        response = messages.EnforceUsageResponse(batch_id=batch_id)
        await write_results(response, requests, answers, now, self._errors, Slices(organization.organization_id))
        return response


def _ended(room: Room, answer: "asyncio.Task[messages.EnforceUsageResponse]") -> None:
    """Frees the rest of an answer's room. The task of the answer can end before it begins, so it cannot do this."""
    room.give_up()
    retrieve(answer)

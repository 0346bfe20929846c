"""A client of WatchNotifications that misses no notification: a new stream begins with the last resume token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import NamedTuple

import grpc

from tidemark_client.connection.target import Metadata
from tidemark_client.errors.exceptions import Cancelled, error_of_call
from tidemark_client.errors.status import PASSING, Cause, cause_of_call
from tidemark_client.tasks.backoff import FIRST_PAUSE, LONGEST_PAUSE, Backoff
from tidemark_client.tasks.cancellation import is_being_cancelled
from tidemark_client.tasks.timeouts import within
from tidemark_client.v1.alert_service_pb2 import WatchNotificationsRequest, WatchNotificationsResponse
from tidemark_client.v1.notification_pb2 import Notification

DEFAULT_SILENCE = 60.0  # seconds without a notification or a heartbeat after which a stream counts as broken

_METHOD = "/tidemark.v1.AlertService/WatchNotifications"


class Position(NamedTuple):
    """A notification, and the token that begins right after it. notification: None for a heartbeat."""

    notification: Notification | None
    resume_token: str


class NotificationStream:
    """The notifications that match a request, from one stream after another.

    resume_token: stands for the position after the last notification that was taken; empty until the first stream has
    begun. on_interruption: called with a sentence whenever a stream broke. first_pause: seconds before the first new
    stream; the pause doubles after each failure. silence: seconds without a notification or a heartbeat after which a
    stream counts as broken. must_begin: an error of the first stream is raised, even if a new one can succeed.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        metadata: Metadata,
        request: WatchNotificationsRequest,
        on_interruption: Callable[[str], None] = lambda sentence: None,
        *,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
        silence: float = DEFAULT_SILENCE,
        must_begin: bool = True,
    ) -> None:
        self._method: grpc.aio.UnaryStreamMultiCallable[WatchNotificationsRequest, WatchNotificationsResponse] = (
            channel.unary_stream(
                _METHOD, WatchNotificationsRequest.SerializeToString, WatchNotificationsResponse.FromString
            )
        )
        self._metadata = metadata
        self._request = request
        self._on_interruption = on_interruption
        self._silence = silence
        self._backoff = Backoff(first_pause, longest_pause)
        self._must_begin = must_begin
        self.resume_token = request.resume_token

    async def notifications(self) -> AsyncGenerator[Notification, None]:
        """Every notification, without end.

        Raises TidemarkError if the first stream cannot begin, or if a new stream would fail in the same way.
        """
        async for position in self.positions():
            if position.notification is not None:
                yield position.notification

    async def positions(self) -> AsyncGenerator[Position, None]:
        """Every notification and every heartbeat, without end. Raises TidemarkError, as `notifications` does."""
        has_begun = False
        while True:
            try:
                async for answer in self._answers(self._next_request()):
                    has_begun = True
                    self._backoff.reset()
                    yield Position(
                        answer.notification if answer.HasField("notification") else None, answer.resume_token
                    )
                    # Set after the yield: a consumer that stops at a notification gets it again when it resumes.
                    self.resume_token = answer.resume_token
                # A server that drains ends the stream without an error, and another server takes the next stream.
            except grpc.aio.AioRpcError as error:
                cause = cause_of_call(error)
                is_passing = cause.code in PASSING or cause.retry_after is not None
                if not is_passing or (self._must_begin and not has_begun):
                    raise error_of_call(error) from error
                self._on_interruption(cause.message)
            except grpc.aio.UsageError:
                raise _closed() from None
            except TimeoutError:
                self._on_interruption(f"the server was silent for {self._silence:g} seconds")
            await asyncio.sleep(self._backoff.next())

    def _next_request(self) -> WatchNotificationsRequest:
        request = WatchNotificationsRequest()
        request.CopyFrom(self._request)
        if self.resume_token:
            request.ClearField("start_time")
            request.resume_token = self.resume_token
        return request

    async def _answers(self, request: WatchNotificationsRequest) -> AsyncIterator[WatchNotificationsResponse]:
        call = self._method(request, metadata=self._metadata)
        try:
            while True:
                try:
                    answer = await within(self._silence, call.read())
                except asyncio.CancelledError:
                    # grpc.aio raises this also when the channel is closed.
                    if is_being_cancelled():
                        raise
                    raise _closed() from None
                if not isinstance(answer, WatchNotificationsResponse):
                    return
                yield answer
        finally:
            call.cancel()


def _closed() -> Cancelled:
    return Cancelled(Cause(grpc.StatusCode.CANCELLED, "the client was closed"))

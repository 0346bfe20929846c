"""A client of WatchNotifications that misses no notification: a new stream begins with the last resume token."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import grpc

from cli.client.connection import FIRST_PAUSE, LONGEST_PAUSE, Metadata
from cli.client.errors import PASSING, error_message
from generated.tidemark.v1.alert_service_pb2 import WatchNotificationsRequest, WatchNotificationsResponse
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.notification_pb2 import Notification
from runtime.backoff import Backoff

DEFAULT_SILENCE = 60.0  # seconds without a notification or a heartbeat after which a stream counts as broken


class NotificationStream:
    """The notifications that match a request, from one stream after another.

    resume_token: stands for the position after the last notification that was taken; empty until the first stream has
    begun. on_interruption: called with a sentence whenever a stream broke. first_pause: seconds before the first new
    stream; the pause doubles after each failure. silence: seconds without a notification or a heartbeat after which a
    stream counts as broken.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        metadata: Metadata,
        request: WatchNotificationsRequest,
        on_interruption: Callable[[str], None] = lambda sentence: None,
        *,
        first_pause: float = FIRST_PAUSE,
        silence: float = DEFAULT_SILENCE,
    ) -> None:
        self._stub = AlertServiceStub(channel)
        self._metadata = metadata
        self._request = request
        self._on_interruption = on_interruption
        self._silence = silence
        self._backoff = Backoff(first_pause, LONGEST_PAUSE)
        self.resume_token = request.resume_token

    async def notifications(self) -> AsyncGenerator[Notification, None]:
        """Every notification, without end.

        Raises AioRpcError if the first stream cannot begin, or if a new stream would fail in the same way.
        """
        has_begun = False
        while True:
            try:
                async for answer in self._answers(self._next_request()):
                    has_begun = True
                    self._backoff.reset()
                    if answer.HasField("notification"):
                        yield answer.notification
                    # Set after the yield: a consumer that stops at a notification gets it again when it resumes.
                    self.resume_token = answer.resume_token
                # A server that drains ends the stream without an error, and another server takes the next stream.
            except grpc.aio.AioRpcError as error:
                if not has_begun or error.code() not in PASSING:
                    raise
                self._on_interruption(error_message(error))
            except TimeoutError:
                self._on_interruption(f"the server was silent for {self._silence:g} seconds")
            await self._backoff.sleep()

    def _next_request(self) -> WatchNotificationsRequest:
        request = WatchNotificationsRequest()
        request.CopyFrom(self._request)
        if self.resume_token:
            request.ClearField("start_time")
            request.resume_token = self.resume_token
        return request

    async def _answers(self, request: WatchNotificationsRequest) -> AsyncIterator[WatchNotificationsResponse]:
        call = self._stub.WatchNotifications(request, metadata=self._metadata)
        try:
            while True:
                async with asyncio.timeout(self._silence):
                    answer = await call.read()
                if not isinstance(answer, WatchNotificationsResponse):
                    return
                yield answer
        finally:
            call.cancel()

"""A client of WatchNotifications that misses nothing: when a stream ends it goes on with the last token."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import grpc

from cli.client.connection import FIRST_PAUSE, LONGEST_PAUSE, Metadata
from generated.tidemark.v1.alert_service_pb2 import WatchNotificationsRequest, WatchNotificationsResponse
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.notification_pb2 import Notification
from runtime.backoff import Backoff

SILENCE = 60.0  # seconds without a heartbeat after which a stream counts as lost

# What a new stream can mend. INTERNAL is among them because a connection cut in the middle of a frame shows as it.
_PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


class Following:
    """The notifications that a request asks for, from one stream after another.

    token: begins a stream behind what was handed out last; empty before the first stream began.
    on_interruption: called with a sentence whenever a stream has broken off.
    first_pause: seconds before the first new try.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        metadata: Metadata,
        request: WatchNotificationsRequest,
        on_interruption: Callable[[str], None] = lambda sentence: None,
        *,
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        self._stub = AlertServiceStub(channel)
        self._metadata = metadata
        self._request = request
        self._on_interruption = on_interruption
        self._backoff = Backoff(first_pause, LONGEST_PAUSE)
        self.token = request.resume_token

    async def notifications(self) -> AsyncGenerator[Notification, None]:
        """Every notification, without end. Raises AioRpcError for what no new stream can mend."""
        begun = False
        while True:
            request = WatchNotificationsRequest()
            request.CopyFrom(self._request)
            if self.token:
                request.ClearField("start_time")
                request.resume_token = self.token
            try:
                async for answer in self._answers(request):
                    begun = True
                    self._backoff.reset()
                    if answer.HasField("notification"):
                        yield answer.notification
                    # Only now: whoever breaks off in between gets it again.
                    self.token = answer.resume_token
                # It said goodbye, and another server may have room. The pause is for a server that says nothing else.
            except grpc.aio.AioRpcError as error:
                if not begun or error.code() not in _PASSING:
                    raise
                self._on_interruption(error.details() or error.code().name)
            except TimeoutError:
                self._on_interruption(f"nothing was heard for {SILENCE:g} seconds")
            await self._backoff.sleep()

    async def _answers(self, request: WatchNotificationsRequest) -> AsyncIterator[WatchNotificationsResponse]:
        call = self._stub.WatchNotifications(request, metadata=self._metadata)
        try:
            while True:
                async with asyncio.timeout(SILENCE):
                    answer = await call.read()
                if not isinstance(answer, WatchNotificationsResponse):
                    return
                yield answer
        finally:
            call.cancel()

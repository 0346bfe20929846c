"""One EvaluateUsage call: writes batches while it reads answers, until the stream ends."""

import asyncio
import contextlib
from collections.abc import Callable

import grpc

from cli.client.batches import Batch, BatchWindow
from cli.client.cancellation import is_being_cancelled
from cli.client.connection import Metadata
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageRequest, EvaluateUsageResponse
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.usage_pb2 import UsageBatch, UsageOutcome

Call = grpc.aio.StreamStreamCall[EvaluateUsageRequest, EvaluateUsageResponse]


class StreamBroken(Exception):
    """The stream cannot be used any longer, and grpc.aio has no status for the cause; the message names it."""


class UsageCall:
    """Sends the unacknowledged batches again, then new ones, over one stream.

    on_outcome: called with the outcome of each batch. on_alive: called when the server shows that it is alive without
    an answer. silence: seconds without an answer or a heartbeat after which the stream counts as broken. farewell:
    seconds for the server to end a stream in which it sent going_away. resent: events that were sent again.
    """

    def __init__(
        self,
        window: BatchWindow,
        *,
        on_outcome: Callable[[UsageOutcome], None],
        on_alive: Callable[[], None],
        include_gauges: bool,
        silence: float,
        farewell: float,
    ) -> None:
        self._window = window
        self._on_outcome = on_outcome
        self._on_alive = on_alive
        self._include_gauges = include_gauges
        self._silence = silence
        self._farewell = farewell
        self.resent = 0

    async def run(self, stub: AlertServiceStub, metadata: Metadata) -> None:
        """Returns when the stream ends. Raises StreamBroken and AioRpcError."""
        call: Call = stub.EvaluateUsage(metadata=metadata)
        writer = asyncio.create_task(self._write(call), name="writer")
        try:
            while (response := await self._read(call, writer)) is not None:
                if response.going_away:
                    await self._wait_for_end(call)
                    return
                if response.heartbeat:
                    self._on_alive()
                else:
                    self._on_outcome(response.outcome)
        finally:
            call.cancel()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _read(self, call: Call, writer: "asyncio.Task[None]") -> EvaluateUsageResponse | None:
        """The next answer; None at the end of the stream."""
        try:
            async with asyncio.timeout(self._silence):
                response = await call.read()
        except TimeoutError:
            if not self._window.unacknowledged:  # the server owed a heartbeat only
                self._on_alive()
            raise StreamBroken(f"the server was silent for {self._silence:g} seconds") from None
        except asyncio.CancelledError:
            # grpc.aio raises this also when the writer or the channel cancelled the call. Passed on, it would end
            # this task silently, as if the task had been cancelled.
            if is_being_cancelled():
                raise
            if writer.done() and not writer.cancelled() and (error := writer.exception()) is not None:
                raise error from None
            raise StreamBroken("the call was cancelled on this side") from None
        if is_being_cancelled():  # a call that ends at the same time swallows the cancellation
            raise asyncio.CancelledError
        return response if isinstance(response, EvaluateUsageResponse) else None

    async def _wait_for_end(self, call: Call) -> None:
        """Waits until the server ends a stream in which it sent going_away; no answer follows that.

        The writer runs on. Cancelled in call.write(), where flow control may block it, it would cancel the call.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._farewell):
                await call.code()

    async def _write(self, call: Call) -> None:
        """Writes every batch. The reader raises what fails here."""
        try:
            for batch in tuple(self._window.unacknowledged):
                self.resent += len(batch.events)
                await call.write(self._request(batch))
            while not self._window.is_exhausted:
                new = await self._window.next()
                if new is not None:
                    await call.write(self._request(new))
            await call.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
            pass  # the stream has ended, and the reader gets its status
        except Exception:
            call.cancel()  # otherwise the reader waits for the answer to a batch that is never written
            raise

    def _request(self, batch: Batch) -> EvaluateUsageRequest:
        return EvaluateUsageRequest(
            batch=UsageBatch(batch_id=batch.batch_id, events=batch.events, include_gauges=self._include_gauges)
        )

"""One EvaluateUsage call: writes batches while it reads answers, until the stream ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from tidemark_client.tasks.cancellation import has_been_cancelled, is_being_cancelled
from tidemark_client.tasks.timeouts import within
from tidemark_client.usage.batches import AnyBatch, request
from tidemark_client.usage.methods import UsageMethods
from tidemark_client.usage.window import BatchWindow
from tidemark_client.v1.alert_service_pb2 import EvaluateUsageResponse
from tidemark_client.v1.usage_pb2 import UsageOutcome

if TYPE_CHECKING:  # the class has no parameters where it runs
    Call = grpc.aio.StreamStreamCall[bytes, EvaluateUsageResponse]


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
        window: BatchWindow[Any],
        *,
        on_outcome: Callable[[UsageOutcome], None],
        on_alive: Callable[[], None],
        silence: float,
        farewell: float,
    ) -> None:
        self._window = window
        self._on_outcome = on_outcome
        self._on_alive = on_alive
        self._silence = silence
        self._farewell = farewell
        self.resent = 0

    async def run(self, methods: UsageMethods) -> None:
        """Returns when the stream ends. Raises StreamBroken and AioRpcError."""
        call = methods.open_stream()
        writer = asyncio.create_task(self._write(call, methods), name="writer")
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

    async def _read(self, call: Call, writer: asyncio.Task[None]) -> EvaluateUsageResponse | None:
        """The next answer; None at the end of the stream."""
        try:
            response = await within(self._silence, call.read())
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
        if has_been_cancelled():
            raise asyncio.CancelledError  # a call that ends at the same time swallows the cancellation
        return response if isinstance(response, EvaluateUsageResponse) else None

    async def _wait_for_end(self, call: Call) -> None:
        """Waits until the server ends a stream in which it sent going_away; no answer follows that.

        The writer runs on. Cancelled in call.write(), where flow control may block it, it would cancel the call.
        """
        with contextlib.suppress(TimeoutError):
            await within(self._farewell, call.code())

    async def _write(self, call: Call, methods: UsageMethods) -> None:
        """Writes every batch. The reader raises what fails here."""
        try:
            for number, batch in enumerate(
                tuple(self._window.unacknowledged), self._window.acknowledgement_count + 1
            ):
                await call.write(_request(batch, methods))
                if number <= self._window.written:  # without a connection, it was not sent before
                    self.resent += len(batch.events)
                self._window.written = max(self._window.written, number)
            while not self._window.is_exhausted:
                new = await self._window.next()
                if new is not None:
                    number = self._window.acknowledgement_count + len(self._window.unacknowledged)
                    await call.write(_request(new, methods))
                    self._window.written = number
            await call.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
            pass  # the stream has ended, and the reader gets its status
        except Exception:
            call.cancel()  # otherwise the reader waits for the answer to a batch that is never written
            raise


def _request(batch: AnyBatch, methods: UsageMethods) -> bytes:
    return request(batch.batch_id, batch.events, methods.options)

"""A client of EvaluateUsage that loses no batch: it keeps each batch until the server acknowledges it.

Several batches are in flight at once. When the connection breaks or the server drains, the client opens a new stream
and sends the unacknowledged batches again, unchanged and in order. The server counts no event twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from tidemark_client.connection.target import Metadata
from tidemark_client.errors.exceptions import ConnectionLost, error_of_call
from tidemark_client.errors.status import PASSING, SERVER_FAULTS, Cause, cause_of_call
from tidemark_client.tasks.backoff import FIRST_PAUSE, LONGEST_PAUSE, Backoff
from tidemark_client.tasks.cancellation import is_being_cancelled
from tidemark_client.usage.batches import AnswerOptions, AnyBatch
from tidemark_client.usage.call import StreamBroken, UsageCall
from tidemark_client.usage.isolation import Isolation
from tidemark_client.usage.methods import UsageMethods
from tidemark_client.usage.window import BatchType, BatchWindow
from tidemark_client.v1.usage_pb2 import UsageOutcome

DEFAULT_WINDOW = 4  # batches in flight at once
DEFAULT_PATIENCE = 60.0  # seconds without an answer after which the client gives up
DEFAULT_SILENCE = 60.0  # seconds, twice the interval of heartbeats, after which a silent stream counts as broken
FAREWELL = 2.0  # seconds for the server to end a stream in which it sent going_away
LONGEST_DELAY = 60.0  # seconds that a server may ask the client to wait
MAX_FAULTS = 3  # streams in a row that may end with a fault of the server over the same batch

_STATUS_LOST = "Internal error from Core"  # grpc.aio's message for a write into a stream that has ended
_PASSING = PASSING | {grpc.StatusCode.ABORTED}

_OnOutcome = Callable[[UsageOutcome], None]


@dataclass(frozen=True)
class _Interruption:
    """Why a stream ended before every batch was acknowledged.

    delay: seconds that the server asks to wait. is_fault: the server failed itself. is_settled: the cause is settled,
    and a new stream can be opened at once.
    """

    sentence: str
    delay: float = 0.0
    is_fault: bool = False
    is_settled: bool = False


class UsageStream:
    """Sends batches and reports their acknowledgements, in the order of the batches. One instance serves one `send`.

    window: batches in flight at once. include_gauges: whether answers contain the values of the gauges. patience:
    seconds without an answer, after a stream broke, until `send` gives up; `math.inf`: never. silence: seconds
    without an answer or a heartbeat after which a stream counts as broken. on_interruption: called with a sentence
    whenever a stream broke. first_pause, longest_pause: seconds between two streams; the pause doubles after each
    failure. farewell: seconds for the server to end a stream in which it sent going_away. sleep: how the client waits
    between two streams. resent: events that were sent again. isolated: the last batch that was sent in parts.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        metadata: Metadata = (),
        *,
        window: int = DEFAULT_WINDOW,
        include_gauges: bool = False,
        max_answer_bytes: int = 0,
        patience: float = DEFAULT_PATIENCE,
        silence: float = DEFAULT_SILENCE,
        on_interruption: Callable[[str], None] = lambda sentence: None,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
        farewell: float = FAREWELL,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._methods = UsageMethods(channel, metadata, AnswerOptions(include_gauges, max_answer_bytes))
        self._patience = patience
        self._silence = silence
        self._on_interruption = on_interruption
        self._backoff = Backoff(first_pause, longest_pause)
        self._farewell = farewell
        self._sleep = sleep
        self._window: BatchWindow[Any] = BatchWindow(window)
        self._alive_at = 0.0  # the event loop's time of the last answer or heartbeat
        self.resent = 0
        self.isolated: AnyBatch | None = None

    async def send(
        self, batches: AsyncIterator[BatchType], acknowledge: Callable[[BatchType, UsageOutcome], None]
    ) -> None:
        """Sends every batch; returns when all of them are acknowledged.

        An error of `batches` is raised after every batch before it is acknowledged. Raises ConnectionLost. Raises
        another TidemarkError if a new stream would fail in the same way. Raises CancelledError only when its task is
        cancelled.
        """

        def on_outcome(outcome: UsageOutcome) -> None:
            batch = self._window.acknowledge(outcome)
            self._note_alive()
            acknowledge(batch, outcome)

        # The source runs in a task of its own: a stream that breaks must not cancel it in the middle of a batch.
        source = asyncio.create_task(self._window.fill(batches), name="batches")
        try:
            await self._send_all(on_outcome)
            await source
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from error
        finally:
            source.cancel()
            await asyncio.gather(source, return_exceptions=True)

    async def _send_all(self, on_outcome: _OnOutcome) -> None:
        """Opens one stream after another until every batch is acknowledged."""
        self._note_alive()
        faults = 0  # streams in a row that ended with a fault of the server, and without an acknowledgement
        while True:
            alive_at, acknowledgement_count = self._alive_at, self._window.acknowledgement_count
            interruption = await self._send_over_one_stream(on_outcome)
            if interruption is None:
                return
            if interruption.is_settled:
                self._on_interruption(interruption.sentence)
                continue
            if not interruption.is_fault:
                faults = 0
            else:
                faults = faults + 1 if self._window.acknowledgement_count == acknowledgement_count else 1
            if faults >= MAX_FAULTS and self._window.unacknowledged:
                # One event may be the cause. Sent again without end, its batch would hold up all later batches.
                self._on_interruption(f"{interruption.sentence}; searching the batch for the event that causes it")
                if await self._isolate(on_outcome):
                    faults = 0
                    self._backoff.reset()
                    continue
            await self._pause(interruption, has_been_alive=self._alive_at > alive_at)

    async def _pause(self, interruption: _Interruption, *, has_been_alive: bool) -> None:
        """Waits before the next stream. Raises ConnectionLost when the patience is used up."""
        if has_been_alive:
            # The patience begins now: a stream that fell silent has used up as much time already.
            self._note_alive()
            self._backoff.reset()
        elif asyncio.get_running_loop().time() - self._alive_at > self._patience:
            raise _lost(interruption.sentence)
        self._on_interruption(interruption.sentence)
        # The server's delay can only lengthen the pause: a server that always asks for 0 would cause a busy loop.
        longest = min(LONGEST_DELAY, self._patience)
        await self._sleep(max(min(interruption.delay, longest), self._backoff.next()))

    async def _send_over_one_stream(self, on_outcome: _OnOutcome) -> _Interruption | None:
        """Why the stream ended; None when every batch is acknowledged."""
        call = UsageCall(
            self._window,
            on_outcome=on_outcome,
            on_alive=self._note_alive,
            silence=self._silence,
            farewell=self._farewell,
        )
        try:
            await call.run(self._methods)
        except StreamBroken as broken:
            return _Interruption(str(broken))
        except grpc.aio.UsageError as closed:
            raise _lost(str(closed)) from None
        except grpc.aio.AioRpcError as raised:
            error = await self._actual_error(raised, on_outcome)
            if error is None:
                return _Interruption("the stream ended while a batch was being written", is_settled=True)
            cause = cause_of_call(error)
            if cause.retry_after is None and cause.code not in _PASSING:
                raise error from None
            return _Interruption(cause.message, cause.retry_after or 0.0, is_fault=cause.code in SERVER_FAULTS)
        finally:
            self.resent += call.resent
        return None if self._window.is_complete else _Interruption("the server is shutting down or restarting")

    async def _actual_error(self, error: grpc.aio.AioRpcError, on_outcome: _OnOutcome) -> grpc.aio.AioRpcError | None:
        """The error with which the server ended the stream; None when the batch in question is acknowledged now.

        grpc.aio loses the server's status when a write meets the end of the stream, and reports a message of its own
        instead. The unary call with the same batch gets the status, or an acknowledgement.
        """
        if error.details() != _STATUS_LOST or not self._window.unacknowledged:
            return error
        batch = self._window.unacknowledged[0]
        try:
            outcome = await self._methods.send(batch.batch_id, batch.events)
        except grpc.aio.AioRpcError as actual:
            return actual
        except (asyncio.CancelledError, grpc.aio.UsageError):  # the channel is closed; the next stream reports that
            if is_being_cancelled():
                raise
            return error
        finally:
            self.resent += len(batch.events)
        on_outcome(outcome)
        return None

    async def _isolate(self, on_outcome: _OnOutcome) -> bool:
        """Sends the oldest batch in parts, so that an event with which the server fails is rejected alone.

        False, and the batch stays unacknowledged, when the server does not answer or fails with every event. Raises
        AioRpcError if a new try would fail in the same way.
        """
        batch = self.isolated = self._window.unacknowledged[0]
        isolation = Isolation(self._methods, batch.batch_id)
        try:
            outcome = await isolation.send(batch.events)
        except grpc.aio.AioRpcError as error:
            cause = cause_of_call(error)
            if cause.code in _PASSING or cause.retry_after is not None:
                return False
            raise
        except (asyncio.CancelledError, grpc.aio.UsageError):
            if is_being_cancelled():
                raise
            return False
        finally:
            self.resent += isolation.sent
        on_outcome(outcome)
        return True

    def _note_alive(self) -> None:
        self._alive_at = asyncio.get_running_loop().time()


def _lost(sentence: str) -> ConnectionLost:
    return ConnectionLost(Cause(grpc.StatusCode.UNAVAILABLE, sentence))

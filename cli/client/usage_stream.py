"""A client of EvaluateUsage that loses nothing: batches stay here until they are acknowledged.

Several batches are on their way at once. When the connection breaks, or the server drains, what was not
acknowledged is sent again as it was, in order, over a new stream; the server counts no event twice.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc

from cli.client.connection import FIRST_PAUSE, LONGEST_PAUSE, Metadata, retry_delay
from cli.client.isolation import FAULTS, Isolation
from generated.tidemark.v1.alert_service_pb2 import (
    EvaluateUsageBatchRequest,
    EvaluateUsageRequest,
    EvaluateUsageResponse,
)
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.usage_pb2 import UsageEvent
from runtime.backoff import Backoff

DEFAULT_WINDOW = 4  # batches on their way at once
DEFAULT_PATIENCE = 60.0  # seconds without an answer before the connection counts as lost for good
DEFAULT_SILENCE = 60.0  # seconds without even a heartbeat, twice their distance, after which a stream counts as lost
FAREWELL = 2.0  # seconds in which a stream that said going_away may end by itself
TWIN_TIMEOUT = 30.0  # seconds for a batch that is sent on its own
LONGEST_WAIT = 60.0  # seconds of a delay that a server asks for
MAX_FAILURES = 3  # streams in a row that a server ends with an error of its own over the same batch

_STATUS_LOST = "Internal error from Core"  # how grpc.aio words a write into a stream that has ended

# What a new stream can mend. INTERNAL is among them because a connection cut in the middle of a frame shows as it.
_PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}

Call = grpc.aio.StreamStreamCall[EvaluateUsageRequest, EvaluateUsageResponse]


class ConnectionLost(Exception):
    """No server answered for too long; the message is what the last try said."""


class _Interrupted(Exception):
    """A stream is of no more use, though grpc.aio has no status for it; the message says why."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that go in one message. lines: of each event, where a file gave it."""

    batch_id: str
    events: Sequence[UsageEvent]
    lines: Sequence[int] = ()


Acknowledge = Callable[[Batch, EvaluateUsageResponse], None]


class UsageStream:
    """Sends batches and reports each acknowledgement, in the order of the batches.

    window: batches on their way at once. patience: seconds without an answer, after a stream broke, before `send`
    gives up. silence: seconds after which a stream that brings nothing, not even a heartbeat, counts as broken.
    on_interruption: called with a sentence whenever the stream has to be opened anew. resent: events sent again.
    first_pause, longest_pause: seconds between two tries, doubled from try to try. farewell: seconds in which a
    stream that said going_away may end by itself. sleep: how it waits between two tries.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        metadata: Metadata = (),
        *,
        window: int = DEFAULT_WINDOW,
        include_gauges: bool = False,
        patience: float = DEFAULT_PATIENCE,
        silence: float = DEFAULT_SILENCE,
        on_interruption: Callable[[str], None] = lambda sentence: None,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
        farewell: float = FAREWELL,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._stub = AlertServiceStub(channel)
        self._metadata = metadata
        self._include_gauges = include_gauges
        self._patience = patience
        self._silence = silence
        self._on_interruption = on_interruption
        self._backoff = Backoff(first_pause, longest_pause)
        self._farewell_limit = farewell
        self._sleep = sleep
        self._room = asyncio.Semaphore(window)
        self._pending: deque[Batch] = deque()  # sent or about to be, not acknowledged, oldest first
        self._ready: asyncio.Queue[Batch | None] = asyncio.Queue(1)  # None: there are no more
        self._exhausted = False
        self._answered = 0.0
        self._acknowledgements = 0
        self.resent = 0

    async def send(self, batches: AsyncIterator[Batch], acknowledge: Acknowledge) -> None:
        """Sends every batch; returns when all are acknowledged.

        An error of `batches` is raised after everything before it was acknowledged. Raises ConnectionLost, and
        grpc.aio.AioRpcError for what no new stream can mend. Raises CancelledError only when its task is cancelled.
        """
        # The source runs in a task of its own: a stream that breaks must not cancel it in the middle of a batch.
        pump = asyncio.create_task(self._pump(batches), name="batches")
        try:
            await self._until_all_acknowledged(acknowledge)
            await pump
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def _pump(self, batches: AsyncIterator[Batch]) -> None:
        try:
            async for batch in batches:
                await self._ready.put(batch)
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            await self._ready.put(None)
            raise RuntimeError("the source of the batches was cancelled before it ended") from None
        except Exception:
            await self._ready.put(None)
            raise
        await self._ready.put(None)

    async def _until_all_acknowledged(self, acknowledge: Acknowledge) -> None:
        clock = asyncio.get_running_loop().time
        self._answered = clock()
        failures = 0  # streams in a row that the server ended with an error of its own, without an acknowledgement
        while True:
            before, acknowledged = self._answered, self._acknowledgements
            wait: float | None = None
            fault = False
            try:
                if await self._one_stream(acknowledge):
                    return
                sentence = "the server is shutting down or restarting"
            except _Interrupted as interrupted:
                sentence = str(interrupted)
            except grpc.aio.UsageError as closed:
                raise ConnectionLost(str(closed)) from None
            except grpc.aio.AioRpcError as raised:
                error = await self._said_plainly(raised, acknowledge)
                if error is None:
                    self._on_interruption("the stream ended while a batch was being written")
                    continue
                wait = retry_delay(error)
                if wait is None and error.code() not in _PASSING:
                    raise error from None
                sentence = error.details() or error.code().name
                fault = error.code() in FAULTS
            failures = failures + 1 if fault and self._acknowledgements == acknowledged else int(fault)
            if failures >= MAX_FAILURES and self._pending:
                # It may be one event that the server cannot take; sent for ever, it would hold up all others.
                self._on_interruption(f"{sentence}; looking for the event that it fails over")
                if await self._isolate(acknowledge):
                    failures = 0
                    self._backoff.reset()
                    continue
            if self._answered > before:
                # Patience begins here: a stream that fell silent has used up as much already.
                self._answered = clock()
                self._backoff.reset()
            elif clock() - self._answered > self._patience:
                raise ConnectionLost(sentence)
            self._on_interruption(sentence)
            # Spread, so that the clients of a server that restarts do not come back all at once.
            # The server's delay only lengthens the pause: with one of 0 for ever this would be a busy loop.
            await self._sleep(max(min(wait or 0.0, LONGEST_WAIT, self._patience), self._backoff.next()))

    async def _isolate(self, acknowledge: Acknowledge) -> bool:
        """Settles the oldest batch in pieces, so that an event which the server cannot take is rejected alone.

        False, and the batch stays, when the server does not answer, or fails over whatever it is sent. Raises
        AioRpcError for what no new try can mend.
        """
        batch = self._pending[0]
        isolation = Isolation(self._stub, self._metadata, batch.batch_id, self._include_gauges, TWIN_TIMEOUT)
        try:
            response = await isolation.settle(batch.events)
        except grpc.aio.AioRpcError as error:
            if error.code() in _PASSING or retry_delay(error) is not None:
                return False
            raise
        except (asyncio.CancelledError, grpc.aio.UsageError):
            if _is_cancelled():
                raise
            return False
        finally:
            self.resent += isolation.sent
        self._acknowledged(response, acknowledge)
        return True

    async def _said_plainly(
        self, error: grpc.aio.AioRpcError, acknowledge: Acknowledge
    ) -> grpc.aio.AioRpcError | None:
        """Why the stream ended; None when there is no reason to wait.

        grpc.aio loses the server's status when a write of ours meets the end of the stream, and keeps a remark of
        its own instead. The unary twin with the same batch says it plainly, or counts the batch.
        """
        if error.details() != _STATUS_LOST or not self._pending:
            return error
        batch = self._pending[0]
        request = EvaluateUsageBatchRequest(
            batch_id=batch.batch_id, events=batch.events, include_gauges=self._include_gauges
        )
        try:
            answer = await self._stub.EvaluateUsageBatch(request, metadata=self._metadata, timeout=TWIN_TIMEOUT)
        except grpc.aio.AioRpcError as plain:
            return plain
        except (asyncio.CancelledError, grpc.aio.UsageError):  # the channel was closed, as the next stream says
            if _is_cancelled():
                raise
            return error
        finally:
            self.resent += len(batch.events)
        response = EvaluateUsageResponse(
            batch_id=answer.batch_id,
            accepted=answer.accepted,
            duplicates=answer.duplicates,
            rejected=answer.rejected,
            transitions=answer.transitions,
            gauges=answer.gauges,
            omitted=answer.omitted if answer.HasField("omitted") else None,
        )
        self._acknowledged(response, acknowledge)
        return None

    def _acknowledged(self, response: EvaluateUsageResponse, acknowledge: Acknowledge) -> None:
        if not self._pending:
            raise RuntimeError(f"the server answered batch {response.batch_id!r} once more than it was sent")
        batch = self._pending.popleft()
        if batch.batch_id != response.batch_id:
            raise RuntimeError(f"the server answered batch {response.batch_id!r} before {batch.batch_id!r}")
        self._answered = asyncio.get_running_loop().time()
        self._acknowledgements += 1
        self._room.release()
        acknowledge(batch, response)

    async def _one_stream(self, acknowledge: Acknowledge) -> bool:
        """Runs one stream to its end; whether everything is acknowledged then."""
        call: Call = self._stub.EvaluateUsage(metadata=self._metadata)
        writer = asyncio.create_task(self._write(call), name="writer")
        try:
            while (response := await self._read(call, writer)) is not None:
                if response.going_away:
                    await self._farewell(call)
                    break
                if response.heartbeat:
                    self._answered = asyncio.get_running_loop().time()
                else:
                    self._acknowledged(response, acknowledge)
            return self._exhausted and not self._pending
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
            if not self._pending:  # nothing was owed but a heartbeat
                self._answered = asyncio.get_running_loop().time()
            raise _Interrupted(f"the server was silent for {self._silence:g} seconds") from None
        except asyncio.CancelledError:
            # A call that is cancelled from elsewhere (by its writer, or with its channel) raises this, too.
            # Passed on it would end our task as if somebody had wanted that, without a word.
            if _is_cancelled():
                raise
            if writer.done() and not writer.cancelled() and (error := writer.exception()) is not None:
                raise error from None
            raise _Interrupted("the call was cancelled on this side") from None
        if _is_cancelled():  # a call that ends in the same moment swallows it
            raise asyncio.CancelledError
        return response if isinstance(response, EvaluateUsageResponse) else None

    async def _farewell(self, call: Call) -> None:
        """Lets the server end a stream in which it said going_away; no answer comes behind that.

        The writer is left alone: cancelled in the middle of call.write(), where flow control may hold it up, it
        would cancel the whole call.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._farewell_limit):
                await call.code()

    async def _write(self, call: Call) -> None:
        """Sends what is pending, then whatever becomes ready. The reader learns of whatever fails here."""
        try:
            for batch in tuple(self._pending):
                self.resent += len(batch.events)
                await call.write(self._request(batch))
            while not self._exhausted:
                batch_or_end = await self._next()
                if batch_or_end is None:
                    self._exhausted = True
                    break
                self._pending.append(batch_or_end)
                await call.write(self._request(batch_or_end))
            await call.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
            pass  # the stream has ended, and its end says why
        except Exception:
            call.cancel()  # otherwise the reader waits for answers to what nobody sends
            raise

    async def _next(self) -> Batch | None:
        await self._room.acquire()
        try:
            batch = await self._ready.get()
        except BaseException:
            self._room.release()
            raise
        if batch is None:
            self._room.release()
        return batch

    def _request(self, batch: Batch) -> EvaluateUsageRequest:
        return EvaluateUsageRequest(batch_id=batch.batch_id, events=batch.events, include_gauges=self._include_gauges)


def _is_cancelled() -> bool:
    """Whether somebody asked the running task to stop: only then is a CancelledError meant for it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

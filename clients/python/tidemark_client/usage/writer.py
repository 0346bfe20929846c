"""`AsyncUsageWriter`: takes events one by one, and sends them in messages, each until it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType

import grpc

from tidemark_client.connection.target import Metadata
from tidemark_client.errors.exceptions import ConnectionLost, TidemarkError, error_of_status
from tidemark_client.errors.status import Cause
from tidemark_client.tasks.timeouts import within
from tidemark_client.usage.batches import EncodedBatch
from tidemark_client.usage.events import complete
from tidemark_client.usage.ledger import Ledger
from tidemark_client.usage.options import WriterCounts, WriterOptions
from tidemark_client.usage.pending import Pending
from tidemark_client.usage.spill import Record, SpillFolder
from tidemark_client.usage.spiller import Spiller
from tidemark_client.usage.stream import FAREWELL, UsageStream
from tidemark_client.v1.usage_pb2 import UsageEvent, UsageOutcome

MAX_TRIES = 3  # of an event that the server fails to record, before it counts as rejected
RETRY_PAUSE = 0.5  # seconds before such an event is sent again
_RECORDED_LATER = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE})

logger = logging.getLogger("tidemark_client.usage")


class AsyncUsageWriter:
    """Sends usage over one stream after another, in the order in which it was given. For one event loop.

    Use it as `async with`: at the end it waits for the acknowledgements.
    """

    def __init__(
        self, channel: grpc.aio.Channel, metadata: Metadata = (), options: WriterOptions | None = None
    ) -> None:
        """Raises OSError and SpillInUse when the folder of the spill cannot be used."""
        self.options = options or WriterOptions()
        self.ledger = Ledger(self.options)
        self._loop = asyncio.get_running_loop()
        self._filling = Pending()
        self._timer: asyncio.TimerHandle | None = None
        self._queue: deque[Pending] = deque()
        self._in_flight: deque[Pending] = deque()
        self._wake = asyncio.Event()
        self._stream = UsageStream(
            channel,
            metadata,
            window=self.options.in_flight,
            include_gauges=self.options.include_gauges,
            max_answer_bytes=self.options.max_answer_bytes,
            patience=self.options.patience,
            on_interruption=self._interrupted,
        )
        self._folder: SpillFolder | None = None
        self._spiller: Spiller | None = None
        if self.options.spill is not None:
            self._folder = SpillFolder(self.options.spill.folder, self.options.spill.max_bytes)
            self._spiller = Spiller(self._folder, self._waiting, lambda: self.ledger.is_full, self.ledger.spilled)
        self._tasks = [self._loop.create_task(self._run(), name="usage writer")]
        if self._spiller is not None:
            self._tasks.append(self._loop.create_task(self._spiller.run(), name="usage spill"))

    @property
    def counts(self) -> WriterCounts:
        """What it has done so far."""
        return self.ledger.counts

    async def __aenter__(self) -> AsyncUsageWriter:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except TidemarkError:
            if error is None:
                raise
            logger.exception("the usage writer did not close well")

    async def send(self, event: UsageEvent) -> None:
        """Takes an event, and waits only for room. An event without an id or a time gets them.

        Raises ValueError for an event that is too large. Raises TidemarkError when the writer has failed.
        """
        content = complete(event)
        if not self.ledger.is_open:
            await self._room()
        self.add(content)

    async def send_all(self, events: Iterable[UsageEvent]) -> None:
        """Takes events one after the other, as `send` does."""
        for event in events:
            content = complete(event)
            if not self.ledger.is_open:
                await self._room()
            self.add(content)

    async def submit(self, event: UsageEvent) -> asyncio.Future[UsageOutcome]:
        """Takes an event; the future has the outcome of its message once it is counted, or raises why it is not.

        A duplicate counts as counted. Raises as `send` does.
        """
        content = complete(event)
        if not self.ledger.is_open:
            await self._room()
        future: asyncio.Future[UsageOutcome] = self._loop.create_future()
        self.add(content, future)
        return future

    async def flush(self, timeout: float | None = None) -> None:
        """Waits until every event so far is acknowledged or rejected.

        Raises TimeoutError after `timeout` seconds, TidemarkError when the writer fails.
        """
        self.seal()
        await within(float("inf") if timeout is None else timeout, self.ledger.acknowledged())

    async def close(self, timeout: float | None = None) -> None:
        """Ends the writer, after it waited `timeout` seconds for acknowledgements; unset: `close_timeout`.

        What is not acknowledged then is in the spill, if there is one. Otherwise raises ConnectionLost, as the
        futures of these events do. Raises the error of a writer that has failed.
        """
        if not self.ledger.is_closing:
            self.seal()
            self.ledger.close()
            with contextlib.suppress(TidemarkError, TimeoutError):
                await within(self.options.close_timeout if timeout is None else timeout, self.ledger.acknowledged())
        await self._end()
        error = self.ledger.error
        if error is not None and not (self._folder and isinstance(error, ConnectionLost)):
            raise error
        if self.counts.pending and self._folder is None:
            raise _lost(f"{self.counts.pending:,} usage events are not acknowledged")

    def add(self, content: bytes, future: asyncio.Future[UsageOutcome] | None = None) -> None:
        """Takes an encoded event without waiting for room."""
        filling = self._filling
        filling.add(content, future)
        if filling.count >= self.options.max_batch_events or filling.size >= self.options.max_batch_bytes:
            self.seal()
        elif filling.count == 1:
            self._timer = self._loop.call_later(self.options.linger, self.seal)

    def seal(self) -> None:
        """Ends the message that is being filled, so that it is sent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._filling.count:
            self.ledger.take(self._filling)
            self._queue.append(self._filling)
            self._filling = Pending()
        self._wake.set()
        if self._spiller is not None:
            self._spiller.wake()

    async def _room(self) -> None:
        """Waits for room. The message that is being filled is sent: what fills memory may be in it."""
        self.seal()
        await self.ledger.room()

    async def _run(self) -> None:
        try:
            if self._folder is not None:
                self._load(await asyncio.to_thread(self._folder.load))
            await self._stream.send(self._batches(), self._acknowledge)
        except TidemarkError as error:
            self._fail(error)
        except Exception as error:
            logger.exception("the usage writer has failed")
            self._fail(TidemarkError(Cause(grpc.StatusCode.UNKNOWN, f"the usage writer has failed: {error!r}")))

    def _load(self, records: Iterable[Record]) -> None:
        """Takes what an earlier writer left, before everything else."""
        left = [Pending(None, count=one.events, size=one.length, record=one) for one in records]
        self._queue.extendleft(reversed(left))
        self.ledger.take_spilled(sum(one.count for one in left))
        self.ledger.is_loaded = True
        self.ledger.note_change()

    async def _batches(self) -> AsyncIterator[EncodedBatch]:
        while True:
            while self._queue:
                pending = self._queue.popleft()
                if pending.events is None:
                    assert self._folder is not None
                    assert pending.record is not None
                    self._queue.appendleft(pending)  # until it is read: this task may be cancelled
                    events = await asyncio.to_thread(self._folder.read, pending.record)
                    self._queue.popleft()
                    pending.events = events
                    self.ledger.read_back(pending)
                pending.is_sent = True
                self._in_flight.append(pending)
                yield EncodedBatch(pending.batch_id, pending.events)
            if self.ledger.is_closing and not self._in_flight and not self.ledger.delayed:
                return
            self._wake.clear()
            await self._wake.wait()

    def _acknowledge(self, batch: EncodedBatch, outcome: UsageOutcome) -> None:
        pending = self._in_flight.popleft()
        assert pending.batch_id == batch.batch_id
        again = self._rejected(pending, outcome, is_final=batch is self._stream.isolated)
        counts = self.counts
        counts.acknowledged += outcome.accepted + outcome.duplicates
        counts.duplicates += outcome.duplicates
        counts.resent = self._stream.resent
        for future in pending.futures.values():
            if not future.done():
                future.set_result(outcome)
        if again is not None:
            self._send_later(again)
        pending.is_done = True
        if self._spiller is not None:
            self._spiller.is_away = False
            self._spiller.done(pending)
        self.ledger.finish(pending)
        if self.ledger.is_closing:
            self._wake.set()
        if self.options.on_crossing is not None:
            for transition in outcome.transitions:
                self._tell(self.options.on_crossing, transition)
        if self.options.on_outcome is not None:
            self._tell(self.options.on_outcome, outcome)

    def _rejected(self, pending: Pending, outcome: UsageOutcome, *, is_final: bool) -> Pending | None:
        """Reports the rejected events; returns those that the server may record later."""
        assert pending.events is not None
        again = Pending(tries=pending.tries + 1)
        for rejection in outcome.rejected:
            content = pending.events[rejection.index]
            future = pending.futures.pop(rejection.index, None)
            error = error_of_status(rejection.status)
            if error.code() in _RECORDED_LATER and not is_final and again.tries < MAX_TRIES:
                again.add(content, future)
                continue
            self.counts.rejected += 1
            if future is None:
                self._tell(self.options.on_rejected, UsageEvent.FromString(content), error)
            elif not future.done():
                future.set_exception(error)
        return again if again.count else None

    def _send_later(self, again: Pending) -> None:
        self.ledger.take_again(again)
        self.ledger.delayed.append(again)

        def send() -> None:
            self.ledger.delayed.remove(again)
            self._queue.append(again)
            self._wake.set()

        self._loop.call_later(RETRY_PAUSE, send)

    def _interrupted(self, sentence: str) -> None:
        if self._spiller is not None:
            self._spiller.is_away = True
            self._spiller.wake()
        self.counts.resent = self._stream.resent
        self._tell(self.options.on_interruption, sentence)

    def _waiting(self) -> Iterable[Pending]:
        return itertools.chain(self._in_flight, self._queue, self.ledger.delayed)

    def _fail(self, error: TidemarkError) -> None:
        self.ledger.fail(error)
        self._fail_futures(error)

    def _fail_futures(self, error: TidemarkError) -> None:
        for pending in [*self._waiting(), self._filling]:
            for future in pending.futures.values():
                if not future.done():
                    future.set_exception(error)

    async def _end(self) -> None:
        """Stops the tasks; what is not acknowledged goes into the spill."""
        self._wake.set()
        if not self.counts.pending:
            await asyncio.wait(self._tasks[:1], timeout=FAREWELL)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        sentence = "the usage writer was closed"
        if self._folder is not None and self._spiller is not None:
            await self._spiller.finish()
            sentence += "; the event is in the spill"
            self._folder.close()
        self._fail_futures(self.ledger.error or _lost(sentence))

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        """Calls a function of the program; its errors must not end the stream."""
        try:
            function(*arguments)
        except Exception:
            logger.exception("%r raised an error", function)


def _lost(sentence: str) -> ConnectionLost:
    return ConnectionLost(Cause(grpc.StatusCode.UNAVAILABLE, sentence))

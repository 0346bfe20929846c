"""One of the streams of a writer: the message that is being filled, those that wait, and those that are sent."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import grpc

from tidemark_client.connection.target import Metadata
from tidemark_client.errors.exceptions import TidemarkError, error_of_status
from tidemark_client.usage.batches import EncodedBatch
from tidemark_client.usage.ledger import Ledger
from tidemark_client.usage.options import WriterOptions
from tidemark_client.usage.pending import Pending, memory
from tidemark_client.usage.spill import SpillFolder
from tidemark_client.usage.spiller import Spiller
from tidemark_client.usage.stream import UsageStream
from tidemark_client.v1.usage_pb2 import UsageEvent, UsageOutcome

MAX_TRIES = 3  # of an event that the server fails to record, before it counts as rejected
RETRY_PAUSE = 0.5  # seconds before such an event is sent again
_RECORDED_LATER = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE})

logger = logging.getLogger("tidemark_client.usage")


class Lane:
    """Sends its messages over one stream after another, in their order.

    folder, spiller: of the writer, if it has them.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        metadata: Metadata,
        options: WriterOptions,
        ledger: Ledger,
        folder: SpillFolder | None,
    ) -> None:
        self.queue: deque[Pending] = deque()
        self.spiller: Spiller | None = None
        self._options = options
        self._max_events = options.max_batch_events
        self._max_bytes = options.max_batch_bytes
        self._ledger = ledger
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._filling = Pending()
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False  # the message that is being filled is sent as soon as no other waits
        self._in_flight: deque[Pending] = deque()
        self._delayed: list[Pending] = []
        self._wake = asyncio.Event()
        self._resent = 0
        self._stream = UsageStream(
            channel,
            metadata,
            window=options.in_flight,
            include_gauges=options.include_gauges,
            max_answer_bytes=options.max_answer_bytes,
            patience=options.patience,
            on_interruption=self._interrupted,
        )

    def add(self, content: bytes, future: asyncio.Future[UsageOutcome] | None) -> bool:
        """Takes an encoded event; returns whether it completes a message."""
        filling = self._filling
        filling.add(content, future)
        if filling.count >= self._max_events or filling.size >= self._max_bytes:
            self.seal()
            return True
        if self._timer is None:
            self._timer = self._loop.call_later(self._options.linger, self.linger_ended)
        return False

    def extend(self, contents: Sequence[bytes]) -> None:
        """Takes encoded events without futures."""
        at = 0
        while at < len(contents):
            filling = self._filling
            part = contents[at : at + self._max_events - filling.count]
            at += len(part)
            size = memory(part)
            if filling.size + size >= self._max_bytes:  # somewhere within it a message is complete
                for content in part:
                    self.add(content, None)
                continue
            filling.extend(part, size)
            if filling.count >= self._max_events:
                self.seal()
            elif self._timer is None:
                self._timer = self._loop.call_later(self._options.linger, self.linger_ended)

    def linger_ended(self) -> None:
        """Ends the message that is being filled, unless others wait: behind them it can as well become fuller."""
        if self.queue:
            self._is_due = True
        else:
            self.seal()

    def seal(self) -> None:
        """Ends the message that is being filled, so that it is sent."""
        self._is_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._filling.count:
            self._ledger.take(self._filling)
            self.queue.append(self._filling)
            self._filling = Pending()
            if self.spiller is not None:
                self.spiller.wake()
        self._wake.set()

    def wake(self) -> None:
        """Looks whether there is something to send, or an end."""
        self._wake.set()

    async def run(self) -> None:
        """Sends messages until the writer is closed and all are acknowledged. Raises TidemarkError.

        A lane without messages opens no stream: servers limit their number.
        """
        while not self.queue:
            if self._ledger.is_closing:
                return
            self._wake.clear()
            await self._wake.wait()
        await self._stream.send(self._batches(), self._acknowledge)

    def waiting(self) -> Iterable[Pending]:
        """The messages that are not acknowledged, in their order."""
        return itertools.chain(self._in_flight, self.queue, self._delayed)

    def fail(self, error: TidemarkError) -> None:
        """Fails the futures of all events."""
        for pending in [*self.waiting(), self._filling]:
            for future in pending.futures.values():
                if not future.done():
                    future.set_exception(error)

    async def _batches(self) -> AsyncIterator[EncodedBatch]:
        while True:
            while self.queue:
                pending = self.queue[0]
                if pending.events is None:
                    assert self._folder is not None
                    assert pending.record is not None
                    # It stays in the queue until it is read: this task may be cancelled.
                    pending.events = await asyncio.to_thread(self._folder.read, pending.record)
                    self._ledger.read_back(pending)
                self.queue.popleft()
                pending.is_sent = True
                self._in_flight.append(pending)
                yield EncodedBatch(pending.batch_id, pending.events)
                if self._is_due and not self.queue:
                    self.seal()
            if self._ledger.is_closing and not self._in_flight and not self._delayed:
                return
            self._wake.clear()
            await self._wake.wait()

    def _acknowledge(self, batch: EncodedBatch, outcome: UsageOutcome) -> None:
        pending = self._in_flight.popleft()
        assert pending.batch_id == batch.batch_id
        again = self._rejected(pending, outcome, is_final=batch is self._stream.isolated)
        counts = self._ledger.counts
        counts.acknowledged += outcome.accepted + outcome.duplicates
        counts.duplicates += outcome.duplicates
        self._count_resent()
        for future in pending.futures.values():
            if not future.done():
                future.set_result(outcome)
        if again is not None:
            self._send_later(again)
        pending.is_done = True
        if self.spiller is not None:
            self.spiller.is_away = False
            self.spiller.done(pending)
        self._ledger.finish(pending)
        if self._ledger.is_closing:
            self._wake.set()
        if self._options.on_crossing is not None:
            for transition in outcome.transitions:
                self._tell(self._options.on_crossing, transition)
        if self._options.on_outcome is not None:
            self._tell(self._options.on_outcome, outcome)

    def _rejected(self, pending: Pending, outcome: UsageOutcome, *, is_final: bool) -> Pending | None:
        """Reports the rejected events; returns those that the server may record later."""
        assert pending.events is not None
        again = Pending(tries=pending.tries + 1, epoch=pending.epoch)
        for rejection in outcome.rejected:
            content = pending.events[rejection.index]
            future = pending.futures.pop(rejection.index, None)
            error = error_of_status(rejection.status)
            if error.code() in _RECORDED_LATER and not is_final and again.tries < MAX_TRIES:
                again.add(content, future)
                continue
            self._ledger.counts.rejected += 1
            if future is None:
                self._tell(self._options.on_rejected, UsageEvent.FromString(content), error)
            elif not future.done():
                future.set_exception(error)
        return again if again.count else None

    def _send_later(self, again: Pending) -> None:
        self._ledger.take_again(again)
        self._delayed.append(again)

        def send() -> None:
            self._delayed.remove(again)
            self.queue.append(again)
            self._wake.set()

        self._loop.call_later(RETRY_PAUSE, send)

    def _interrupted(self, sentence: str) -> None:
        if self.spiller is not None:
            self.spiller.is_away = True
            self.spiller.wake()
        self._count_resent()
        self._tell(self._options.on_interruption, sentence)

    def _count_resent(self) -> None:
        self._ledger.counts.resent += self._stream.resent - self._resent
        self._resent = self._stream.resent

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        """Calls a function of the program; its errors must not end the stream."""
        try:
            function(*arguments)
        except Exception:
            logger.exception("%r raised an error", function)

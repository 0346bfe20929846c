"""`UsageWriter`: the usage writer for programs with threads. Any number of threads may share it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Iterable
from types import TracebackType

from tidemark_client.connection.target import Target
from tidemark_client.errors.exceptions import TidemarkError
from tidemark_client.threads.background import LoopUser
from tidemark_client.usage.events import complete
from tidemark_client.usage.options import WriterCounts, WriterOptions
from tidemark_client.usage.pending import EVENT_OVERHEAD
from tidemark_client.usage.portions import Portion, portions, stream_of
from tidemark_client.usage.writer import AsyncUsageWriter
from tidemark_client.v1.usage_pb2 import UsageEvent, UsageOutcome

_Portion = Portion[concurrent.futures.Future[UsageOutcome]]

logger = logging.getLogger("tidemark_client.usage")


class UsageWriter:
    """`AsyncUsageWriter`, in a loop in the background, whose thread calls the functions of the options.

    Threads add to a list, which goes to the loop as a whole: a call into the loop for each event would cost more than
    all the rest.
    """

    def __init__(self, target: Target, options: WriterOptions | None = None) -> None:
        """Raises OSError and SpillInUse when the folder of the spill cannot be used."""
        self._options = options or WriterOptions()
        self._condition = threading.Condition()
        self._events = self._bytes = 0  # in memory
        self._taken = self._portion()
        self._timer: asyncio.TimerHandle | None = None  # until what was taken goes to the loop
        self._is_closed = False
        self._user = LoopUser()
        try:
            self._channel = self._user.make(target.async_channel)
            try:
                self._writer = self._user.make(
                    lambda: AsyncUsageWriter(self._channel, target.call_metadata, self._options)
                )
            except BaseException:
                self._user.call(self._channel.close())
                raise
        except BaseException:
            self._user.close()
            raise
        self._writer.ledger.on_release = self._released
        self._writer.ledger.on_failure = self._failed

    @property
    def counts(self) -> WriterCounts:
        """What it has done so far. Events that wait for the loop are not among the pending ones."""
        return self._writer.counts

    def __enter__(self) -> UsageWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except TidemarkError as failure:
            if error is None:
                raise
            if failure is not error:
                logger.exception("the usage writer did not close well")

    def send(self, event: UsageEvent) -> None:
        """Takes an event, and waits only for room. An event without an id or a time gets them.

        Raises ValueError for an event that is too large. Raises TidemarkError when the writer has failed.
        """
        self._take(event, complete(event), None)

    def send_all(self, events: Iterable[UsageEvent]) -> None:
        """Takes events one after the other, as `send` does. A list or a tuple takes the least time."""
        if not isinstance(events, (list, tuple)):
            for event in events:
                self.send(event)
            return
        portion: _Portion
        for portion in portions(events, self._options):
            with self._condition:
                self._wait_for_room()
                before = self._taken.count
                self._taken.extend(portion)
                self._note_taken(before, portion.size)

    def submit(self, event: UsageEvent) -> concurrent.futures.Future[UsageOutcome]:
        """Takes an event; the future has the outcome of its message once it is counted, or raises why it is not.

        A duplicate counts as counted. Raises as `send` does.
        """
        future: concurrent.futures.Future[UsageOutcome] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        self._take(event, complete(event), future)
        return future

    def flush(self, timeout: float | None = None) -> None:
        """Waits until every event so far is acknowledged or rejected.

        Raises TimeoutError after `timeout` seconds, TidemarkError when the writer fails.
        """

        async def flush() -> None:
            self._hand_over()
            await self._writer.flush(timeout)

        self._user.call(flush())

    def close(self, timeout: float | None = None) -> None:
        """Ends the writer, after it waited `timeout` seconds for acknowledgements; see `AsyncUsageWriter.close`."""
        with self._condition:
            if self._is_closed:
                return
            self._is_closed = True
            self._condition.notify_all()

        async def close() -> None:
            try:
                self._hand_over()
                await self._writer.close(timeout)
            finally:
                await self._channel.close()

        try:
            self._user.call(close())
        finally:
            self._user.close()

    def _take(
        self, event: UsageEvent, content: bytes, future: concurrent.futures.Future[UsageOutcome] | None
    ) -> None:
        stream = stream_of(event.customer_id, self._options.streams)
        with self._condition:
            self._wait_for_room()
            before = self._taken.count
            self._taken.add(stream, content, future)
            self._note_taken(before, len(content) + EVENT_OVERHEAD)

    def _wait_for_room(self) -> None:
        options = self._options
        while self._bytes >= options.max_pending_bytes or self._events >= options.max_pending_events:
            self._check()
            self._user.loop.call_soon_threadsafe(self._seal)
            self._condition.wait()
        self._check()

    def _note_taken(self, before: int, size: int) -> None:
        """Counts new events, and tells the loop of the first ones and of those that fill a message."""
        count = self._taken.count
        self._events += count - before
        self._bytes += size
        if before < self._options.max_batch_events <= count:
            self._user.loop.call_soon_threadsafe(self._hand_over)
        elif not before:
            self._user.loop.call_soon_threadsafe(self._hand_over_later)

    def _portion(self) -> _Portion:
        return Portion([[] for _ in range(self._options.streams)])

    def _check(self) -> None:
        if self._writer.ledger.error is not None:
            raise self._writer.ledger.error
        if self._is_closed:
            raise RuntimeError("the usage writer is closed")

    # --- in the loop -----------------------------------------------------------------------------------------

    def _hand_over_later(self) -> None:
        if self._timer is None:
            self._timer = self._user.loop.call_later(self._options.linger, self._linger_ended)

    def _linger_ended(self) -> None:
        self._hand_over()
        self._writer.linger_ended()

    def _seal(self) -> None:
        self._hand_over()
        self._writer.seal()

    def _hand_over(self) -> None:
        """Gives what was taken to the streams, which send it when a message is full or `linger` has passed again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        empty = self._portion()
        with self._condition:
            taken, self._taken = self._taken, empty
        linked: Portion[asyncio.Future[UsageOutcome]] = Portion(taken.parts)
        for inner, futures in zip(linked.futures, taken.futures, strict=True):
            inner.update((index, self._linked(future)) for index, future in futures.items())
        self._writer.take(linked)

    def _linked(self, future: concurrent.futures.Future[UsageOutcome]) -> asyncio.Future[UsageOutcome]:
        """A future of the loop whose result becomes that of the given one."""
        inner: asyncio.Future[UsageOutcome] = self._user.loop.create_future()

        def pass_on(done: asyncio.Future[UsageOutcome]) -> None:
            error = done.exception()
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(done.result())

        inner.add_done_callback(pass_on)
        return inner

    def _released(self, events: int, size: int) -> None:
        with self._condition:
            self._events -= events
            self._bytes -= size
            self._condition.notify_all()

    def _failed(self) -> None:
        with self._condition:
            self._condition.notify_all()

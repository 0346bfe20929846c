"""`AsyncUsageWriter`: takes events one by one, and sends them in messages, each until it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterable
from types import TracebackType

import grpc

from tidemark_client.connection.target import Metadata
from tidemark_client.errors.exceptions import ConnectionLost, TidemarkError
from tidemark_client.errors.status import Cause
from tidemark_client.tasks.timeouts import within
from tidemark_client.usage.events import complete
from tidemark_client.usage.lane import Lane
from tidemark_client.usage.ledger import Ledger
from tidemark_client.usage.options import WriterCounts, WriterOptions
from tidemark_client.usage.pending import Pending
from tidemark_client.usage.portions import Portion, portions, stream_of
from tidemark_client.usage.spill import Record, SpillFolder
from tidemark_client.usage.spiller import Spiller
from tidemark_client.usage.stream import FAREWELL
from tidemark_client.v1.usage_pb2 import UsageEvent, UsageOutcome

logger = logging.getLogger("tidemark_client.usage")


class AsyncUsageWriter:
    """Sends usage over streams that survive interruptions.

    For one event loop. The events of a customer keep their order.

    Use it as `async with`: at the end it waits for the acknowledgements.
    """

    def __init__(
        self, channel: grpc.aio.Channel, metadata: Metadata = (), options: WriterOptions | None = None
    ) -> None:
        """Raises OSError and SpillInUse when the folder of the spill cannot be used."""
        self.options = options or WriterOptions()
        self.ledger = Ledger(self.options)
        self._loop = asyncio.get_running_loop()
        self._folder: SpillFolder | None = None
        if self.options.spill is not None:
            self._folder = SpillFolder(self.options.spill.folder, self.options.spill.max_bytes)
        self._lanes = [
            Lane(channel, metadata, self.options, self.ledger, self._folder) for _ in range(self.options.streams)
        ]
        self._spiller: Spiller | None = None
        if self._folder is not None:
            self._spiller = Spiller(self._folder, self._waiting, lambda: self.ledger.is_full, self.ledger.spilled)
            for lane in self._lanes:
                lane.spiller = self._spiller
        self._sending = self._loop.create_task(self._run(), name="usage writer")
        self._spilling = None if self._spiller is None else self._loop.create_task(self._spiller.run(), name="spill")

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
        except TidemarkError as failure:
            if error is None:
                raise
            if failure is not error:
                logger.exception("the usage writer did not close well")

    async def send(self, event: UsageEvent) -> None:
        """Takes an event, and waits only for room. An event without an id or a time gets them.

        Raises ValueError for an event that is too large. Raises TidemarkError when the writer has failed.
        """
        content = complete(event)
        if not self.ledger.is_open:
            await self._room()
        if self._lane(event).add(content, None):
            await asyncio.sleep(0)  # otherwise a program that only sends would keep the streams from sending

    async def send_all(self, events: Iterable[UsageEvent]) -> None:
        """Takes events one after the other, as `send` does. A list or a tuple takes the least time."""
        if not isinstance(events, (list, tuple)):
            for event in events:
                await self.send(event)
            return
        portion: Portion[asyncio.Future[UsageOutcome]]
        for portion in portions(events, self.options):
            if not self.ledger.is_open:
                await self._room()
            self.take(portion)
            await asyncio.sleep(0)

    async def submit(self, event: UsageEvent) -> asyncio.Future[UsageOutcome]:
        """Takes an event; the future has the outcome of its message once it is counted, or raises why it is not.

        A duplicate counts as counted. Raises as `send` does.
        """
        content = complete(event)
        if not self.ledger.is_open:
            await self._room()
        future: asyncio.Future[UsageOutcome] = self._loop.create_future()
        self._lane(event).add(content, future)
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

    def take(self, portion: Portion[asyncio.Future[UsageOutcome]]) -> None:
        """Takes encoded events without waiting for room."""
        for lane, contents, futures in zip(self._lanes, portion.parts, portion.futures, strict=True):
            if futures:
                for index, content in enumerate(contents):
                    lane.add(content, futures.get(index))
            else:
                lane.extend(contents)

    def linger_ended(self) -> None:
        """Ends the messages that are being filled where no others wait."""
        for lane in self._lanes:
            lane.linger_ended()

    def seal(self) -> None:
        """Ends the messages that are being filled, so that they are sent."""
        for lane in self._lanes:
            lane.seal()

    def _lane(self, event: UsageEvent) -> Lane:
        return self._lanes[stream_of(event.customer_id, len(self._lanes))]

    async def _room(self) -> None:
        """Waits for room. The message that is being filled is sent: what fills memory may be in it."""
        self.seal()
        await self.ledger.room()

    async def _run(self) -> None:
        lanes: list[asyncio.Task[None]] = []
        try:
            if self._folder is not None:
                self._load(await asyncio.to_thread(self._folder.load))
            lanes += [self._loop.create_task(lane.run(), name="usage stream") for lane in self._lanes]
            await asyncio.gather(*lanes)
        except TidemarkError as error:
            self._fail(error)
        except Exception as error:
            logger.exception("the usage writer has failed")
            self._fail(TidemarkError(Cause(grpc.StatusCode.UNKNOWN, f"the usage writer has failed: {error!r}")))
        finally:
            for task in lanes:
                task.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    def _load(self, records: Iterable[Record]) -> None:
        """Takes what an earlier writer left, in its order, before everything else."""
        left = [Pending(None, count=one.events, size=one.length, record=one) for one in records]
        self._lanes[0].queue.extendleft(reversed(left))
        for one in left:
            self.ledger.take_spilled(one)
        self.ledger.is_loaded = True
        self.ledger.note_change()

    def _waiting(self) -> Iterable[Pending]:
        return itertools.chain.from_iterable(lane.waiting() for lane in self._lanes)

    def _fail(self, error: TidemarkError) -> None:
        self.ledger.fail(error)
        for lane in self._lanes:
            lane.fail(error)

    async def _end(self) -> None:
        """Stops the tasks; what is not acknowledged goes into the spill."""
        for lane in self._lanes:
            lane.wake()
        if not self.counts.pending:
            await asyncio.wait([self._sending], timeout=FAREWELL)
        tasks = [task for task in (self._sending, self._spilling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        sentence = "the usage writer was closed"
        if self._folder is not None and self._spiller is not None:
            await self._spiller.finish()
            sentence += "; the event is in the spill"
            self._folder.close()
        for lane in self._lanes:
            lane.fail(self.ledger.error or _lost(sentence))


def _lost(sentence: str) -> ConnectionLost:
    return ConnectionLost(Cause(grpc.StatusCode.UNAVAILABLE, sentence))

"""The usage streams of the demo: each customer always on the same stream, several batches in flight at once."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterable

import grpc

from demo.contract import usage_event
from demo.definitions import Event
from generated.tidemark.v1.usage_pb2 import UsageOutcome
from tidemark_client.usage.batches import Batch
from tidemark_client.usage.stream import UsageStream

STREAMS = 2
WINDOW = 8  # batches in flight at once on each stream


class UsageStreams:
    """Streams that stay open until `close`. include_gauges: whether answers bring the gauges' values."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        acknowledge: Callable[[Batch, UsageOutcome], None],
        on_interruption: Callable[[str], None],
        *,
        include_gauges: bool = False,
    ) -> None:
        self._acknowledge = acknowledge
        self._count = 0
        self._open: set[str] = set()  # batches that were not acknowledged yet
        self._idle = asyncio.Event()
        self._idle.set()
        self._queues: list[asyncio.Queue[Batch | None]] = [asyncio.Queue() for _ in range(STREAMS)]
        self._tasks = [
            asyncio.create_task(
                UsageStream(
                    channel, window=WINDOW, include_gauges=include_gauges, on_interruption=on_interruption
                ).send(_batches(queue), self._acknowledged),
                name=f"stream {number}",
            )
            for number, queue in enumerate(self._queues)
        ]

    def send(self, events: Iterable[Event]) -> None:
        """Sends events, in order, in one batch for each stream that has any of them."""
        parts: dict[int, list[Event]] = {}
        for event in events:
            parts.setdefault(zlib.adler32(event.customer.encode()) % STREAMS, []).append(event)
        for number, part in parts.items():
            self._count += 1
            batch = Batch(f"batch-{self._count}", [usage_event(event) for event in part])
            self._open.add(batch.batch_id)
            self._idle.clear()
            self._queues[number].put_nowait(batch)

    async def settle(self) -> None:
        """Waits until everything sent is acknowledged; raises what broke a stream."""
        idle = asyncio.create_task(self._idle.wait())
        try:
            await asyncio.wait({idle, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in self._tasks:
                if task.done():
                    task.result()
        finally:
            idle.cancel()

    async def close(self) -> None:
        """Ends the streams, when everything is acknowledged."""
        for queue in self._queues:
            queue.put_nowait(None)
        await asyncio.gather(*self._tasks)

    def _acknowledged(self, batch: Batch, outcome: UsageOutcome) -> None:
        self._acknowledge(batch, outcome)
        self._open.discard(batch.batch_id)
        if not self._open:
            self._idle.set()


async def _batches(queue: asyncio.Queue[Batch | None]) -> AsyncIterator[Batch]:
    while (batch := await queue.get()) is not None:
        yield batch

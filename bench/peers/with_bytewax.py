"""A dataflow of Bytewax that keeps sums and ids in memory; a script.

Events come from a queue in the same process: no broker is read. Without a broker that can be read again, and without
recovery, a crash loses all that was counted. Recovery would save the state each 10 seconds by default.
"""

import asyncio
import bisect
import queue
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import bytewax.operators as op  # type: ignore[import-not-found]  # only in the environment of the peer
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]
from bytewax.inputs import DynamicSource, StatelessSourcePartition  # type: ignore[import-not-found]
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition  # type: ignore[import-not-found]
from bytewax.testing import run_main  # type: ignore[import-not-found]

from bench.peers.script import Peer, run
from bench.peers.task import Event, Task

Events = queue.SimpleQueue[Sequence[tuple[str, Event]] | None]  # by customer; None: there are no more


class _Source(DynamicSource, StatelessSourcePartition):  # type: ignore[misc]
    """Takes batches from the queue."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def build(self, step_id: str, worker_index: int, worker_count: int) -> "_Source":
        """The only part of it."""
        return self

    def next_batch(self) -> Iterable[tuple[str, Event]]:
        """The next batch, or none yet."""
        try:
            batch = self._events.get_nowait()
        except queue.Empty:
            return ()
        if batch is None:
            raise StopIteration
        return batch

    def next_awake(self) -> datetime | None:
        """As soon as possible."""
        return None


class _Customer(StatefulBatchLogic):  # type: ignore[misc]
    """The sum and the ids of one customer."""

    def __init__(self, task: Task, totals: dict[str, int]) -> None:
        self._thresholds = sorted(task.thresholds)
        self._recurring = task.recurring
        self._totals = totals
        self._ids = set[str]()

    def on_batch(self, events: list[Event]) -> tuple[Iterable[tuple[int, bool]], bool]:
        """Counts events; returns how many, and whether a threshold is reached."""
        reached = False
        for event in events:
            if event.event_id in self._ids:
                continue
            self._ids.add(event.event_id)
            before = self._totals.get(event.customer_id, 0)
            after = self._totals[event.customer_id] = before + event.quantity
            passed = bisect.bisect(self._thresholds, after) > bisect.bisect(self._thresholds, before)
            reached = reached or passed or after // self._recurring > before // self._recurring
        return [(len(events), reached)], False

    def snapshot(self) -> Any:
        """Nothing: there is no recovery."""
        return None


class _Sink(DynamicSink, StatelessSinkPartition):  # type: ignore[misc]
    """Hands results to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, peer: "InBytewax") -> None:
        self._loop = loop
        self._peer = peer

    def build(self, step_id: str, worker_index: int, worker_count: int) -> "_Sink":
        """The only part of it."""
        return self

    def write_batch(self, results: list[tuple[str, tuple[int, bool]]]) -> None:
        """Passes on how many events were counted, and which customers reached a threshold."""
        counted = sum(events for _, (events, _) in results)
        reached = [customer_id for customer_id, (_, found) in results if found]
        self._loop.call_soon_threadsafe(self._peer.note, counted, reached)


class InBytewax(Peer):
    """One worker in a thread. A batch is acknowledged when as many events as were sent until then are counted."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._events = Events()
        self._totals: dict[str, int] = {}
        self._waiting = deque[tuple[int, asyncio.Future[None]]]()
        self._sent = self._counted = 0

    async def open(self) -> None:
        """Starts the dataflow."""
        flow = Dataflow("usage")
        events = op.input("events", flow, _Source(self._events))
        counted = op.stateful_batch("count", events, lambda state: _Customer(self.task, self._totals))
        op.output("results", counted, _Sink(asyncio.get_running_loop(), self))
        self._thread = threading.Thread(target=run_main, args=(flow,), daemon=True)
        self._thread.start()

    def encode(self, events: Sequence[Event]) -> Any:
        """Pairs of a key and an event."""
        return [(event.customer_id, event) for event in events]

    async def count(self, caller: int, call: Any) -> None:
        """Waits until the events of the batch are counted."""
        counted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sent += len(call)
        self._waiting.append((self._sent, counted))
        self._events.put(call)
        await counted

    def note(self, counted: int, reached: Sequence[str]) -> None:
        """Notes results."""
        self._counted += counted
        for customer_id in reached:
            self.reached(customer_id)
        while self._waiting and self._waiting[0][0] <= self._counted:
            self._waiting.popleft()[1].set_result(None)

    async def totals(self) -> dict[str, int]:
        """The sums in memory."""
        return dict(self._totals)

    async def close(self) -> None:
        """Ends the dataflow."""
        self._events.put(None)
        await asyncio.to_thread(self._thread.join)


if __name__ == "__main__":
    run(InBytewax)

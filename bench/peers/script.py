"""What the script of each peer does with its task. Only the standard library and uvloop, for each environment."""

import asyncio
import contextlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import uvloop

from bench.peers.task import ACKNOWLEDGED, Event, Step, Task, batches, read_events, read_task

LAST_WAIT = 5.0  # seconds after the last paced event for the last threshold to become known


class Peer(ABC):
    """Something that counts usage by customer and finds thresholds that are reached.

    reached: called with the customer when the program knows of one. batch_events: of one call when it has to be fast.
    callers: how many calls are made at a time.
    """

    batch_events = 500
    callers = 8

    def __init__(self, task: Task) -> None:
        self.task = task
        self.reached: Callable[[str], None] = lambda customer_id: None

    @abstractmethod
    async def open(self) -> None:
        """Connects, and makes the tables or whatever it needs."""

    @abstractmethod
    def encode(self, events: Sequence[Event]) -> Any:
        """The call for these events, as far as it can be made before the measurement."""

    @abstractmethod
    async def count(self, caller: int, call: Any) -> None:
        """Makes a call of a caller, by its number; returns when the events are acknowledged."""

    @abstractmethod
    async def totals(self) -> dict[str, int]:
        """The sum of each customer."""

    @abstractmethod
    async def close(self) -> None:
        """Ends the connections."""


def run(peer: Callable[[Task], Peer]) -> None:
    """Does the steps of the task with a peer, and prints one line of JSON for each."""
    uvloop.run(_run(peer(read_task())))


async def _run(peer: Peer) -> None:
    await peer.open()
    for step in peer.task.steps:
        print(json.dumps(await _STEPS[step.kind](peer, step)), flush=True)
    await peer.close()


Call = tuple[int, int, Any]  # the number of its first event, how many events it has, and what the peer made of them


def _calls(peer: Peer, path: str) -> list[Call]:
    size = peer.batch_events
    parts = batches(read_events(path), size)
    return [(number * size, len(part), peer.encode(part)) for number, part in enumerate(parts)]


async def _make(
    peer: Peer, calls: Iterable[Call], *, limit: float = math.inf, show: bool = False
) -> tuple[int, float]:
    """Makes calls, but begins none after so many seconds. Returns the acknowledged events, and the seconds."""
    remaining = iter(calls)
    acknowledged = 0
    started = time.perf_counter()

    async def caller(number: int) -> None:
        nonlocal acknowledged
        for first, events, call in remaining:
            await peer.count(number, call)
            acknowledged += events
            if show:
                print(ACKNOWLEDGED, first, events, flush=True)
            if time.perf_counter() - started >= limit:
                return

    await asyncio.gather(*(caller(number) for number in range(peer.callers)))
    return acknowledged, time.perf_counter() - started


async def _send(peer: Peer, step: Step) -> dict[str, Any]:
    await _make(peer, _calls(peer, step.events))
    return {}


async def _rate(peer: Peer, step: Step) -> dict[str, Any]:
    events, seconds = await _make(peer, _calls(peer, step.events), limit=step.seconds)
    return {"events": events, "seconds": seconds}


async def _acknowledge(peer: Peer, step: Step) -> dict[str, Any]:
    await _make(peer, _calls(peer, step.events), show=True)
    return {}


async def _totals(peer: Peer, step: Step) -> dict[str, Any]:
    return {"totals": await peer.totals()}


async def _pace(peer: Peer, step: Step) -> dict[str, Any]:
    """Sends each event when it is due. An event of the recurring amount reaches a threshold of its customer."""
    events = read_events(step.events)
    calls = [(event.due, peer.encode([event])) for event in events]
    expected = {event.customer_id: event.due for event in events if event.quantity >= peer.task.recurring}
    known: dict[str, float] = {}
    complete = asyncio.Event()

    def note(customer_id: str) -> None:
        known.setdefault(customer_id, time.perf_counter())
        if expected.keys() <= known.keys():
            complete.set()

    peer.reached = note
    start = time.perf_counter()
    await _make_when_due(peer, calls, start, complete)
    delays = [known[customer_id] - start - due for customer_id, due in expected.items() if customer_id in known]
    return {"delays": delays, "missed": len(expected) - len(delays)}


async def _make_when_due(
    peer: Peer, calls: Iterable[tuple[float, Any]], start: float, complete: asyncio.Event
) -> None:
    """Makes each call so many seconds after `start`; then waits for `complete`, at most LAST_WAIT seconds."""
    waiting = asyncio.Queue[Any]()

    async def caller(number: int) -> None:
        while (call := await waiting.get()) is not None:
            await peer.count(number, call)

    async with asyncio.TaskGroup() as callers:
        for number in range(peer.callers):
            callers.create_task(caller(number))
        for due, call in calls:
            if (early := start + due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            waiting.put_nowait(call)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WAIT):
                await complete.wait()
        for _ in range(peer.callers):
            waiting.put_nowait(None)


_STEPS = {"send": _send, "rate": _rate, "acknowledge": _acknowledge, "totals": _totals, "pace": _pace}

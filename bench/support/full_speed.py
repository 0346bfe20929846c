"""Usage as fast as the server accepts it."""

import asyncio
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import grpc

from bench.support import load
from bench.support.access import Access
from bench.support.client import Job
from bench.support.load import Load
from bench.support.sending import Call, check, close_channels, evaluate_usage

BATCH_EVENTS = 500  # of one message
STREAMS = 4  # for each worker
IN_FLIGHT = 8  # batches of one stream that are sent and not yet answered


@dataclass(frozen=True)
class Sent:
    """The result of a round, as the client measured it. transitions: thresholds that the events reached."""

    seconds: float
    accepted: int
    transitions: int


@dataclass
class Send(Job[Sent]):
    """Sends a round as fast as the server accepts it, over several streams with several batches in flight each.

    seconds: after this time no further message is sent.
    """

    access: Access
    events: Load | None  # None: the first events of the gauges
    gauges: int
    streams: int = STREAMS
    batch_events: int = BATCH_EVENTS
    seconds: float = math.inf
    _messages: list[bytes] = field(default_factory=list)
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def prepare(self) -> None:
        """Encodes the messages and connects."""
        events = load.first_events(self.gauges, load.now()) if self.events is None else self.events.make()
        self._messages = load.messages(events, self.batch_events)
        self._channels = await self.access.channels(self.streams)

    async def run(self) -> Sent:
        """Sends all messages; the measured time ends with the last acknowledgement."""
        started = time.perf_counter()
        messages = _until(started + self.seconds, self._messages)
        done = await asyncio.gather(
            *(_stream(evaluate_usage(over, self.access.metadata), messages) for over in self._channels)
        )
        seconds = time.perf_counter() - started
        await close_channels(self._channels)
        return Sent(seconds, sum(accepted for accepted, _ in done), sum(transitions for _, transitions in done))


def _until(end: float, messages: Sequence[bytes]) -> Iterator[bytes]:
    """The messages, but none after that time."""
    return itertools.takewhile(lambda _: time.perf_counter() < end, messages)


async def _stream(call: Call, messages: Iterator[bytes]) -> tuple[int, int]:
    """Sends messages that no other stream has sent; returns the numbers of accepted events and of transitions."""
    room = asyncio.Semaphore(IN_FLIGHT)

    async def write() -> None:
        for message in messages:
            await room.acquire()
            await call.write(message)
        await call.done_writing()

    writing = asyncio.create_task(write())
    accepted = transitions = 0
    async for response in call:
        room.release()
        check(response)
        accepted += response.outcome.accepted
        transitions += len(response.outcome.transitions) + response.outcome.omitted.transition_count
    await writing
    return accepted, transitions

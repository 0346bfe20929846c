"""Many open streams of usage: busy ones, and idle ones."""

import asyncio
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

import grpc

from bench.support import load
from bench.support.access import Access
from bench.support.client import Job
from bench.support.sending import Call, check, close_channels, evaluate_usage
from evaluator.events import UsageEvent
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageResponse

STREAMS_OF_A_CHANNEL = 100
PAUSE = 0.1  # seconds between the answer to an event and the next event of a busy stream


@dataclass
class Kept:
    """What busy streams got. acknowledged: ids of events. ended: how many streams the server ended, by status."""

    acknowledged: list[str] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)


@dataclass
class Streams(Job[Kept]):
    """Opens streams, and keeps them until it is stopped or the server ends them. On busy ones it sends events."""

    access: Access
    number: int
    busy: bool
    _channels: list[grpc.aio.Channel] = field(default_factory=list)
    _calls: list[Call] = field(default_factory=list)

    async def prepare(self) -> None:
        """Connects, and gets an acknowledgement on each stream."""
        self._channels = await self.access.channels(-(-self.number // STREAMS_OF_A_CHANNEL))
        for over in self._channels:
            number = min(STREAMS_OF_A_CHANNEL, self.number - len(self._calls))
            opened = [evaluate_usage(over, self.access.metadata) for _ in range(number)]
            self._calls += opened
            await asyncio.gather(*(_acknowledged(call, f"first-{uuid.uuid4()}") for call in opened))

    async def run(self) -> Kept:
        """Returns when it is stopped, or when the server has ended all streams."""
        kept, stopping = Kept(), asyncio.create_task(self.stopping.wait())
        send = _busy if self.busy else _idle
        streams = [asyncio.create_task(send(call, number, kept)) for number, call in enumerate(self._calls)]
        all_ended = asyncio.create_task(asyncio.wait(streams))
        await asyncio.wait([stopping, all_ended], return_when=asyncio.FIRST_COMPLETED)
        for task in (stopping, all_ended, *streams):
            task.cancel()
        await asyncio.gather(stopping, all_ended, *streams, return_exceptions=True)
        await close_channels(self._channels)
        return kept


async def _busy(call: Call, number: int, kept: Kept) -> None:
    """Sends events until the server ends the stream.

    It reads also while it sends nothing: a client that writes to a stream that the server has ended gets INTERNAL
    from grpc.aio in place of the server's status.
    """
    sent, reading = 0, asyncio.ensure_future(call.read())
    try:
        while not (await asyncio.wait([reading], timeout=PAUSE))[0]:
            sent += 1
            await call.write(_message(event_id := f"kept-{number}-{sent}"))
            answer = await reading
            reading = asyncio.ensure_future(call.read())
            if not isinstance(answer, EvaluateUsageResponse) or answer.going_away:
                break
            check(answer)
            kept.acknowledged.append(event_id)
        kept.ended[(await call.code()).name] += 1
    finally:
        reading.cancel()


async def _idle(call: Call, number: int, kept: Kept) -> None:
    """Waits until the server ends the stream."""
    kept.ended[(await call.code()).name] += 1


async def _acknowledged(call: Call, event_id: str) -> None:
    await call.write(_message(event_id))
    answer = await call.read()
    assert isinstance(answer, EvaluateUsageResponse)
    check(answer)


def _message(event_id: str) -> bytes:
    """A request with one event."""
    time = load.now() - timedelta(seconds=1)
    event = UsageEvent(event_id, load.customer(1), time, load.METRIC, Decimal(1), None, None, None, {})
    return load.messages([event], 1)[0]

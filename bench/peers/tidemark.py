"""Tidemark itself, through the same script as its peers: streams of EvaluateUsage, in batches; a script."""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import grpc
import psycopg

from bench.peers.script import Peer, run
from bench.peers.task import Event, Task
from bench.support import load
from bench.support.sending import Call, check, close_channels, evaluate_usage, open_channels
from evaluator.events import UsageEvent
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageResponse

STREAMS = 4
IN_FLIGHT = 8  # batches of one stream

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Stream:
    """One stream. Responses come in the order of the messages."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._writing = asyncio.Lock()
        self._waiting = deque[asyncio.Future[EvaluateUsageResponse]]()
        self._reading = asyncio.create_task(self._read())

    async def ask(self, message: bytes) -> EvaluateUsageResponse:
        """Sends a message; returns its answer."""
        answer: asyncio.Future[EvaluateUsageResponse] = asyncio.get_running_loop().create_future()
        async with self._writing:
            self._waiting.append(answer)
            await self._call.write(message)
        return await answer

    async def _read(self) -> None:
        try:
            async for response in self._call:
                if not response.heartbeat:
                    self._waiting.popleft().set_result(response)
        except grpc.aio.AioRpcError as error:
            for answer in self._waiting:
                answer.set_exception(error)

    async def close(self) -> None:
        """Ends the stream."""
        await self._call.done_writing()
        await self._reading


class Tidemark(Peer):
    """The server is a process of its own, so this process is only its client."""

    callers = STREAMS * IN_FLIGHT

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._channels: list[grpc.aio.Channel] = []
        self._streams: list[_Stream] = []

    async def open(self) -> None:
        """Opens the streams."""
        self._channels = await open_channels(self.task.store, STREAMS)
        self._streams = [_Stream(evaluate_usage(channel)) for channel in self._channels]

    def encode(self, events: Sequence[Event]) -> Any:
        """The encoded message, and the customer of its first event."""
        usage = [
            UsageEvent(
                event.event_id,
                event.customer_id,
                _EPOCH + timedelta(microseconds=event.time),
                load.METRIC,
                Decimal(event.quantity),
                None,
                None,
                None,
                {},
            )
            for event in events
        ]
        [message] = load.messages(usage, len(usage))
        return message, events[0].customer_id

    async def count(self, caller: int, call: Any) -> None:
        """One message. The answer has the transitions of its events."""
        message, customer_id = call
        response = await self._streams[caller % STREAMS].ask(message)
        if response.outcome.rejected:
            check(response)
        if response.outcome.transitions:
            self.reached(customer_id)

    async def totals(self) -> dict[str, int]:
        """The values of the gauges."""
        async with await psycopg.AsyncConnection.connect(self.task.database_url) as connection:
            found = await connection.execute("SELECT customer_id, value FROM gauge")
            return {customer_id: int(value) for customer_id, value in await found.fetchall()}

    async def close(self) -> None:
        """Ends the streams."""
        for stream in self._streams:
            await stream.close()
        await close_channels(self._channels)


if __name__ == "__main__":
    run(Tidemark)

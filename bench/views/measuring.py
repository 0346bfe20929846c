"""Calls of a server in this process: their time, the statements and rows behind them, blocks of the event loop."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from server.calls import current_call
from tests.support.postgres.plans import recorded

REPEATS = 3  # of each call; the figures are medians
TIMEOUT = 60.0  # seconds of a call
BEAT = 0.001  # seconds between two beats of the event loop


@dataclass(frozen=True)
class Case:
    """One call: its name in the table, and its request, as often as it is repeated the same."""

    name: str
    method: str  # "tidemark.v1.AlertService/ListAlerts"
    request: Message


@dataclass(frozen=True)
class Measured:
    """Medians of one call. block: the longest pass of the event loop, in milliseconds of CPU time."""

    name: str
    size: int
    statements: int
    rows: int
    buffers: int
    milliseconds: float
    answer_bytes: int
    block: float


class Beats:
    """The longest time that the event loop worked between two beats since the last `reset`.

    It is CPU time of the loop's thread: on a busy machine the time of a clock shows what other processes do.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = time.thread_time()

    def reset(self) -> None:
        """Begins anew."""
        self.longest, self._last = 0.0, time.thread_time()

    @contextlib.asynccontextmanager
    async def counting(self) -> AsyncIterator["Beats"]:
        """Beats while the block runs."""
        task = asyncio.create_task(self._beat(), name="beats")
        try:
            yield self
        finally:
            task.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            now = time.thread_time()
            self.longest = max(self.longest, now - self._last)
            self._last = now


def _is_of_a_call() -> bool:
    try:
        current_call.get()
    except LookupError:
        return False
    return True


async def measure(channel: grpc.aio.Channel, key: str, url: str, case: Case, size: int, beats: Beats) -> Measured:
    """Repeats a call, and explains the statements of the last one. Answers stay encoded: only the server decodes."""
    call: Any = channel.unary_unary(f"/{case.method}", request_serializer=type(case.request).SerializeToString)
    metadata = (("authorization", f"Bearer {key}"),)
    taken, blocks, answer = list[float](), list[float](), b""
    await call(case.request, metadata=metadata, timeout=TIMEOUT)  # prepares the statements
    with recorded(_is_of_a_call) as statements:
        for _ in range(REPEATS):
            statements.executed.clear()
            await asyncio.sleep(2 * BEAT)
            beats.reset()
            started = time.perf_counter()
            answer = await call(case.request, metadata=metadata, timeout=TIMEOUT)
            taken.append(time.perf_counter() - started)
            blocks.append(beats.longest)
    costs = await asyncio.to_thread(statements.costs, url)
    return Measured(
        name=case.name,
        size=size,
        statements=len(costs),
        rows=sum(cost.rows for cost in costs),
        buffers=sum(cost.buffers for cost in costs),
        milliseconds=round(1_000 * statistics.median(taken), 1),
        answer_bytes=len(answer),
        block=round(1_000 * statistics.median(blocks), 1),
    )

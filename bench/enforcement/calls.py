"""Unary calls: as fast as callers get answers, and at random times at a steady rate."""

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health_pb2

from bench.enforcement.requests import CALLERS, CUSTOMERS, SERVICE, batch_check, reserve, unary, usage
from bench.support.access import Access
from bench.support.client import Job
from bench.support.sending import TIMEOUT, close_channels
from generated.tidemark.v1 import limit_service_pb2 as messages

CHANNELS = 4
WARM_UP = 1.0  # seconds of a paced round
MOST_OPEN = 200  # paced calls at a time: fewer than an organization's share; the wait for it counts
BATCH = 100  # customers of one BatchCheckUsage
EMPTY, RESERVE, CHECK, BATCH_CHECK = "empty", "reserve", "check", "batch check"

_METHODS = {
    EMPTY: "/grpc.health.v1.Health/Check",
    RESERVE: f"{SERVICE}ReserveUsage",
    CHECK: f"{SERVICE}CheckUsage",
    BATCH_CHECK: f"{SERVICE}BatchCheckUsage",
}
_HEALTH = health_pb2.HealthCheckRequest(service="liveness").SerializeToString()
_MAKE: dict[str, Callable[[int, str], bytes]] = {
    EMPTY: lambda number, name: _HEALTH,
    RESERVE: lambda number, name: reserve(number % CUSTOMERS, f"{name}-{number:06d}").SerializeToString(),
    CHECK: lambda number, name: messages.CheckUsageRequest(usage=usage(number % CUSTOMERS)).SerializeToString(),
    BATCH_CHECK: lambda number, name: batch_check(number * BATCH, BATCH).SerializeToString(),
}


@dataclass
class Calls(Job[float]):
    """Calls of one method by several callers, each after the answer to its last one; the calls a second.

    kind: one of the names above. requests: that are made before the measurement; it ends early when all are sent.
    """

    access: Access
    kind: str
    name: str
    seconds: float
    requests: int
    callers: int = CALLERS
    _requests: list[bytes] = field(default_factory=list)
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def prepare(self) -> None:
        """Encodes the requests and connects."""
        make = _MAKE[self.kind]
        self._requests = [make(number, self.name) for number in range(self.requests)]
        self._channels = await self.access.channels(CHANNELS)

    async def run(self) -> float:
        """Calls for so many seconds."""
        methods = [unary(over, _METHODS[self.kind]) for over in self._channels]
        remaining = iter(self._requests)
        started = time.perf_counter()
        done = 0

        async def caller(number: int) -> None:
            nonlocal done
            method = methods[number % CHANNELS]
            for request in remaining:
                await method(request, metadata=self.access.metadata, timeout=TIMEOUT)
                done += 1
                if time.perf_counter() - started > self.seconds:
                    return

        await asyncio.gather(*(caller(number) for number in range(self.callers)))
        seconds = time.perf_counter() - started
        await close_channels(self._channels)
        return done / seconds


@dataclass
class Paced(Job[list[float]]):
    """Reservations that are due at random times, and the seconds from then to each answer; WARM_UP does not count.

    customers: the first so many, in turn.
    """

    access: Access
    name: str
    rate: int
    seconds: float
    customers: int = CUSTOMERS
    _due: list[float] = field(default_factory=list)
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def prepare(self) -> None:
        """Connects."""
        self._due = due_times(self.name, self.rate, self.seconds)
        self._channels = await self.access.channels(CHANNELS)

    async def run(self) -> list[float]:
        """Calls without waiting for the answers of earlier calls."""
        methods = [unary(over, _METHODS[RESERVE]) for over in self._channels]
        requests = [
            reserve(number % self.customers, f"{self.name}-{number:06d}").SerializeToString()
            for number in range(len(self._due))
        ]
        start = time.perf_counter()

        room = asyncio.Semaphore(MOST_OPEN)

        async def call(number: int, due: float) -> float:
            async with room:
                await methods[number % CHANNELS](requests[number], metadata=self.access.metadata, timeout=TIMEOUT)
            return time.perf_counter() - start - due

        calls: list[asyncio.Task[float]] = []
        for number, due in enumerate(self._due):
            if (early := start + due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            calls.append(asyncio.create_task(call(number, due)))
        took = await asyncio.gather(*calls)
        await close_channels(self._channels)
        return [one for one, due in zip(took, self._due, strict=True) if due >= WARM_UP]


def due_times(name: str, rate: int, seconds: float) -> list[float]:
    """Random times, `rate` a second on average, in WARM_UP and so many seconds."""
    draw = random.Random(name)
    times = itertools.accumulate(draw.expovariate(rate) for _ in itertools.count())
    return list(itertools.takewhile(lambda time: time < WARM_UP + seconds, times))

"""WatchDecisions: what watched decisions cost a server, and how soon a change of one of them arrives."""

import asyncio
import time
from dataclasses import dataclass, field

import grpc

from bench.enforcement.requests import CUSTOMERS, SERVICE, reserve, unary
from bench.support import load
from bench.support.access import Access
from bench.support.client import Job
from bench.support.sending import TIMEOUT, close_channels
from generated.tidemark.v1 import limit_service_pb2 as messages
from generated.tidemark.v1 import requested_usage_pb2

STREAMS_OF_A_CHANNEL = 50
GAP = 0.05  # seconds between two changes, beside a part of the time that the last one took to arrive

_Watch = grpc.aio.UnaryStreamCall[messages.WatchDecisionsRequest, messages.WatchDecisionsResponse]


@dataclass(frozen=True)
class Watched:
    """first: seconds until every stream had all decisions. delays: of changes, after their own answer, in seconds."""

    first: float
    delays: tuple[float, ...]


@dataclass
class Watches(Job[Watched]):
    """Streams that watch so many decisions each, and changes of one customer after the other.

    A stream watches `usages` usages of `customers` customers; the first ones of all streams are the same.
    """

    access: Access
    name: str
    streams: int
    customers: int
    usages: int
    changes: int
    _channels: list[grpc.aio.Channel] = field(default_factory=list)
    _calls: list[_Watch] = field(default_factory=list)

    async def prepare(self) -> None:
        """Connects."""
        self._channels = await self.access.channels(1 + (self.streams - 1) // STREAMS_OF_A_CHANNEL)

    async def run(self) -> Watched:
        """Opens the streams; then changes something, and waits until the first stream says so."""
        started = time.perf_counter()
        self._calls = [self._open(number) for number in range(self.streams)]
        await asyncio.gather(*(self._all_of(call) for call in self._calls))
        first = time.perf_counter() - started
        others = [asyncio.ensure_future(_drain(call)) for call in self._calls[1:]]
        method = unary(self._channels[0], f"{SERVICE}ReserveUsage")
        delays = []
        for number in range(self.changes):
            customer = number * 7919 % self.customers
            request = reserve(customer, f"{self.name}-{number}").SerializeToString()
            await method(request, metadata=self.access.metadata, timeout=TIMEOUT)
            answered = time.perf_counter()
            await self._change_of(self._calls[0], load.customer(customer))
            delays.append(time.perf_counter() - answered)
            await asyncio.sleep(GAP + 0.37 * number / self.changes)
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await close_channels(self._channels)
        return Watched(first, tuple(delays))

    def _open(self, number: int) -> _Watch:
        """A stream: each has usages of its own, unless there is one."""
        over = self._channels[number // STREAMS_OF_A_CHANNEL]
        method: grpc.aio.UnaryStreamMultiCallable[messages.WatchDecisionsRequest, messages.WatchDecisionsResponse] = (
            over.unary_stream(
                f"{SERVICE}WatchDecisions",
                messages.WatchDecisionsRequest.SerializeToString,
                messages.WatchDecisionsResponse.FromString,
            )
        )
        first = 1 + (number * self.usages if self.usages > 1 else 0)
        request = messages.WatchDecisionsRequest(
            customer_ids=[load.customer(one % CUSTOMERS) for one in range(self.customers)],
            usages=[
                requested_usage_pb2.CheckedUsage(metric_id=load.METRIC, quantity=str(first + one))
                for one in range(self.usages)
            ],
        )
        return method(request, metadata=self.access.metadata)

    async def _all_of(self, call: _Watch) -> None:
        seen = set[tuple[str, int]]()
        while len(seen) < self.customers * self.usages:
            answer = await call.read()
            assert isinstance(answer, messages.WatchDecisionsResponse)
            seen.update((one.customer_id, one.usage_index) for one in answer.decisions)

    async def _change_of(self, call: _Watch, customer_id: str) -> None:
        """Waits for all decisions about a customer."""
        missing = set(range(self.usages))
        while missing:
            answer = await call.read()
            assert isinstance(answer, messages.WatchDecisionsResponse)
            missing -= {one.usage_index for one in answer.decisions if one.customer_id == customer_id}


async def _drain(call: _Watch) -> None:
    """Reads what comes."""
    while isinstance(await call.read(), messages.WatchDecisionsResponse):
        pass

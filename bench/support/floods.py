"""Floods: one organization calls as fast as it can, while the calls of another organization are measured."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import grpc

from bench.support import load
from bench.support.client import Job
from bench.support.flood_calls import TIMEOUT, WATCHERS, FloodCalls, Metadata, metadata_of
from bench.support.sending import close_channels, open_channels
from generated.tidemark.v1 import alert_service_pb2, usage_pb2
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub

CHANNELS = 8
REFUSED_PAUSE = 0.5  # seconds that a refused caller waits, as RetryInfo asks

Call = Callable[[FloodCalls, int], Awaitable[None]]

# The callers of each kind of flood: how many, and what each of them calls again and again.
KINDS: Mapping[str, tuple[tuple[int, Call], ...]] = {
    "batches": ((40, FloodCalls.batch),),
    "streams": ((8, FloodCalls.stream),),
    "crossings": ((8, FloodCalls.stream),),
    "singles": ((64, FloodCalls.single),),
    "puts": ((60, FloodCalls.put),),
    "creates": ((60, FloodCalls.create),),
    "edits": ((64, FloodCalls.edit),),
    "create batches": ((4, FloodCalls.create_batch),),
    "groups": ((4, FloodCalls.list_groups),),
    "lists": ((64, FloodCalls.list_page),),
    "watchers": ((WATCHERS, FloodCalls.watch), (2, FloodCalls.crossings)),
    "organizations": ((20, FloodCalls.stream),),
    "poison": ((8, FloodCalls.poison), (8, FloodCalls.conflict)),  # the last: its trigger stays
}
ORGANIZATIONS = 20  # that flood at once in the kind of this name; in the others, one does


@dataclass
class Flooded:
    """The calls of a flood, counted by status code; a message of a stream counts as a call."""

    codes: dict[str, int] = field(default_factory=dict)

    def count(self, code: str) -> None:
        """Counts one more call with this code."""
        self.codes[code] = self.codes.get(code, 0) + 1


@dataclass
class Flood(Job[Flooded]):
    """Calls of one kind by many callers; each caller calls again as soon as it gets an answer.

    keys: of the organizations; the callers are divided among them. round: of several floods of this kind.
    grouped_alert: see `flood_data.make_groups`.
    """

    server: str
    keys: list[str]
    kind: str
    seconds: float
    round: int = 0
    grouped_alert: str = ""
    _calls: FloodCalls | None = None
    _channels: list[grpc.aio.Channel] = field(default_factory=list)
    _flooded: Flooded = field(default_factory=Flooded)

    async def prepare(self) -> None:
        """Encodes the messages and connects."""
        self._channels = await open_channels(self.server, CHANNELS)
        self._calls = FloodCalls(
            self._channels,
            self.keys,
            self.kind,
            self.round,
            lambda: self._flooded.count("OK"),
            grouped_alert=self.grouped_alert,
        )
        await self._calls.prepare()

    async def run(self) -> Flooded:
        """Floods for `seconds`, and counts the answers in that time."""
        assert self._calls is not None
        tasks = [
            asyncio.create_task(self._caller(self._calls, number, call))
            for callers, call in KINDS[self.kind]
            for number in range(callers)
        ]
        done, _ = await asyncio.wait(tasks, timeout=self.seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await close_channels(self._channels)
        for task in done:
            task.result()
        return self._flooded

    async def _caller(self, calls: FloodCalls, number: int, call: Call) -> None:
        while True:
            try:
                await call(calls, number)
            except grpc.aio.AioRpcError as error:
                self._flooded.count(error.code().name)
                await asyncio.sleep(REFUSED_PAUSE)
            else:
                self._flooded.count("OK")


async def settled(server: str, keys: list[str]) -> None:
    """Waits until the pending events of a flood are committed, by sending events of many customers after them."""
    [over] = await open_channels(server, 1)
    stub = AlertServiceStub(over)
    await asyncio.gather(*(_settled(stub, metadata_of(key)) for key in keys))
    await close_channels([over])


async def _settled(stub: AlertServiceStub, metadata: Metadata) -> None:
    events = list[usage_pb2.UsageEvent]()
    for number in range(50):
        event = usage_pb2.UsageEvent(
            event_id=f"settled-{time.monotonic_ns()}", customer_id=f"s{number}", metric_id=load.METRIC, quantity="1"
        )
        event.event_time.FromDatetime(load.now())
        events.append(event)
    while True:
        request = alert_service_pb2.EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=events))
        try:
            await stub.EvaluateUsageBatch(request, metadata=metadata, timeout=2 * TIMEOUT)
            return
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            await asyncio.sleep(REFUSED_PAUSE)

"""neighbours: the latency of the calls of one organization while another organization floods the server."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.table import Table

from bench.support import floods, load
from bench.support.client import Client, Job
from bench.support.figures import milliseconds
from bench.support.floods import Flood, Flooded, Metadata, metadata_of
from bench.support.sending import close_channels, evaluate_usage, open_channels
from bench.support.stack import PostgreSQL, Stack
from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    scope_pb2,
    threshold_pb2,
    usage_pb2,
)
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageResponse
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from runtime.clock import SystemClock
from store.identity import keys
from store.postgres.database import Database

ALONE_SECONDS = 3.0
FLOOD_SECONDS = 5.0
LEAD = 1.0  # seconds of a flood before the canary starts
PAUSE = 0.02  # seconds between an answer and the canary's next call
BEAT = 0.002  # seconds between an answer of the health service and the next call to it
TIMEOUT = 30.0  # seconds of a call
PROBES = ("event", "read", "stream")
GOAL_FACTOR, GOAL_EXTRA = (
    2.0,
    50.0,
)  # limit of the p99 during a flood: the p99 alone, times this factor, plus so many ms


@dataclass
class Waited:
    """The latencies of the canary's calls in seconds, by probe. health: of calls of the health service.

    A call of the health service needs no identity and no database. So the longest one shows for how long the event
    loop of the server was blocked at most.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: {probe: [] for probe in PROBES})
    health: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@dataclass
class Canary(Job[Waited]):
    """A few calls of one organization: a single event, an event on a stream, a read of an alert."""

    server: str
    key: str
    name: str
    seconds: float
    lead: float = 0.0
    _alert_id: str = ""
    _channels: list[grpc.aio.Channel] = field(default_factory=list)
    _waited: Waited = field(default_factory=Waited)

    async def prepare(self) -> None:
        """Connects, and creates the alert that the probe reads."""
        self._channels = await open_channels(self.server, len(PROBES) + 1)
        created = await AlertServiceStub(self._channels[0]).CreateAlert(
            alert_service_pb2.CreateAlertRequest(alert=_alert(self.name)), metadata=self._metadata, timeout=TIMEOUT
        )
        self._alert_id = created.alert.alert_id

    async def run(self) -> Waited:
        """Calls for `seconds`, after `lead` seconds."""
        await asyncio.sleep(self.lead)
        probes = (self._events(), self._reads(), self._streams(), self._beats())
        tasks = [asyncio.create_task(probe) for probe in probes]
        await asyncio.wait(tasks, timeout=self.seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                self._waited.failed.append(repr(ended)[:500])
        await close_channels(self._channels)
        return self._waited

    @property
    def _metadata(self) -> Metadata:
        return metadata_of(self.key)

    async def _timed(self, probe: str, call: Callable[[], Awaitable[Any]]) -> None:
        started = time.perf_counter()
        try:
            await call()
        except grpc.aio.AioRpcError as error:
            self._waited.failed.append(error.code().name)
        self._waited.seconds[probe].append(time.perf_counter() - started)
        await asyncio.sleep(PAUSE)

    async def _events(self) -> None:
        stub, number = AlertServiceStub(self._channels[0]), 0
        while True:
            number += 1
            request = alert_service_pb2.EvaluateUsageBatchRequest(
                batch=usage_pb2.UsageBatch(events=[_event(f"{self.name}-e{number}", "unary")])
            )
            call = functools.partial(stub.EvaluateUsageBatch, metadata=self._metadata, timeout=TIMEOUT)
            await self._timed("event", functools.partial(call, request))

    async def _reads(self) -> None:
        stub = AlertServiceStub(self._channels[1])
        request = alert_service_pb2.GetAlertRequest(alert_id=self._alert_id)
        while True:
            await self._timed("read", lambda: stub.GetAlert(request, metadata=self._metadata, timeout=TIMEOUT))

    async def _streams(self) -> None:
        call, number = evaluate_usage(self._channels[2], self._metadata), 0

        async def echo(message: bytes) -> None:
            nonlocal call
            if call.done():  # refused
                call = evaluate_usage(self._channels[2], self._metadata)
            await call.write(message)
            while isinstance(answer := await call.read(), EvaluateUsageResponse) and answer.heartbeat:
                pass

        while True:
            number += 1
            request = alert_service_pb2.EvaluateUsageRequest(
                batch=usage_pb2.UsageBatch(events=[_event(f"{self.name}-s{number}", "stream")])
            )
            await self._timed("stream", functools.partial(echo, request.SerializeToString()))

    async def _beats(self) -> None:
        stub: Any = health_pb2_grpc.HealthStub(self._channels[3])
        while True:
            started = time.perf_counter()
            await stub.Check(health_pb2.HealthCheckRequest(service="liveness"), timeout=TIMEOUT)
            self._waited.health.append(time.perf_counter() - started)
            await asyncio.sleep(BEAT)


@dataclass(frozen=True)
class Case:
    """One flood, with the latencies of the canary before it (alone) and during it (beside), on the same data."""

    kind: str
    alone: Waited
    beside: Waited
    flooded: Flooded

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        probes = {}
        for probe in PROBES:
            alone, beside = self.alone.seconds[probe], self.beside.seconds[probe]
            goal = round(GOAL_FACTOR * milliseconds(alone, 0.99) + GOAL_EXTRA, 2)
            probes[probe] = {
                "alone_p50_ms": milliseconds(alone, 0.5),
                "alone_p99_ms": milliseconds(alone, 0.99),
                "beside_p50_ms": milliseconds(beside, 0.5),
                "beside_p99_ms": milliseconds(beside, 0.99),
                "goal_p99_ms": goal,
                "samples": len(beside),
            }
        return {
            "kind": self.kind,
            "probes": probes,
            "canary_failed": len(self.beside.failed),
            "canary_failures": sorted(set(self.beside.failed)),
            "flood": self.flooded.codes,
            "loop_block_alone_ms": milliseconds(self.alone.health, 1.0),
            "loop_block_beside_ms": milliseconds(self.beside.health, 1.0),
            "loop_p99_beside_ms": milliseconds(self.beside.health, 0.99),
        }


@dataclass(frozen=True)
class Report:
    """The results of all floods."""

    cases: Sequence[Case]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {"cases": [case.figures() for case in self.cases]}

    def table(self) -> Table:
        """The figures as a table for people."""
        table = Table(title="another organization's calls beside a flood, ms")
        table.add_column("flood", no_wrap=True)
        table.add_column("call", no_wrap=True)
        for name, width in (("alone p50 / p99", 13), ("beside", 13), ("goal", 5), ("failed", 6), ("block", 5)):
            table.add_column(name, justify="right", min_width=width)
        for case in self.cases:
            figures = case.figures()
            for number, probe in enumerate(PROBES):
                one = figures["probes"][probe]
                first = (case.kind, "", "")[number]
                last = (str(figures["canary_failed"]), f"{figures['loop_block_beside_ms']:,.0f}")
                table.add_row(
                    first,
                    probe,
                    f"{one['alone_p50_ms']:,.0f} / {one['alone_p99_ms']:,.0f}",
                    f"{one['beside_p50_ms']:,.0f} / {one['beside_p99_ms']:,.0f}",
                    f"{one['goal_p99_ms']:,.0f}",
                    *(("", "") if number else last),
                )
            answered = ", ".join(f"{code} {count:,}" for code, count in sorted(figures["flood"].items()))
            table.add_row("", f"({answered})", end_section=True)
        return table


async def measure(
    postgresql: PostgreSQL, report: Callable[[str], None], kinds: Sequence[str] = floods.KINDS
) -> Report:
    """Measures every flood on one server and one database, in under two minutes."""
    cases = []
    async with postgresql.stack("bench_neighbours") as stack:
        noisy, quiet = await _keys(stack, "noisy"), await _keys(stack, "quiet")
        with Client() as flooding, Client() as calling:
            if "lists" in kinds:
                await floods.make_groups(stack.server, noisy)
            for kind in kinds:
                flood = await flooding.prepare(Flood(stack.server, noisy, kind, LEAD + FLOOD_SECONDS))
                await floods.settled(stack.server, noisy)
                alone = await (await calling.prepare(Canary(stack.server, quiet, f"{kind}-alone", ALONE_SECONDS)))()
                canary = await calling.prepare(
                    Canary(stack.server, quiet, f"{kind}-beside", FLOOD_SECONDS - 0.5, LEAD)
                )
                beside, flooded = await asyncio.gather(canary(), flood())
                cases.append(Case(kind, alone, beside, flooded))
                figures = cases[-1].figures()["probes"]["event"]
                report(f"{kind}: an event's p99 {figures['alone_p99_ms']:,} ms, {figures['beside_p99_ms']:,} beside")
    return Report(cases)


async def _keys(stack: Stack, name: str) -> str:
    """The key of a new organization."""
    database = Database(stack.url, pool_size=1)
    try:
        async with database.transaction() as connection:
            return (await keys.create_key(connection, name, SystemClock().now())).key
    finally:
        await database.close()


def _alert(name: str) -> alert_pb2.Alert:
    return alert_pb2.Alert(
        display_name=name,
        scope=scope_pb2.AlertScope(all_customers=scope_pb2.AllCustomersScope()),
        usage_threshold_reached=condition_pb2.UsageThresholdReachedCondition(metric_id=load.METRIC),
        thresholds=[threshold_pb2.Threshold(value=str(load.OUT_OF_REACH))],
    )


def _event(event_id: str, customer: str) -> usage_pb2.UsageEvent:
    event = usage_pb2.UsageEvent(event_id=event_id, customer_id=customer, metric_id=load.METRIC, quantity="1")
    event.event_time.FromDatetime(load.now())
    return event

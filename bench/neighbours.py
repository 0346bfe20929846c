"""neighbours: the latency of the calls of one organization while another organization floods the server."""

import asyncio
import functools
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.table import Table

from bench.support import flood_data, floods, load
from bench.support.client import Client, Job
from bench.support.figures import milliseconds
from bench.support.flood_calls import Metadata, metadata_of
from bench.support.floods import Flood, Flooded
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

ROUNDS = 3  # of each kind of flood
ALONE_SECONDS = 2.0
FLOOD_SECONDS = 4.0
LEAD = 1.0  # seconds of a flood before the canary starts
PAUSE = 0.02  # seconds between an answer and the canary's next call
BEAT = 0.002  # seconds between an answer of the health service and the next call to it
TIMEOUT = 30.0  # seconds of a call
PROBES = ("event", "read", "stream")
# Limit of the p99 during a flood: the p99 alone, times this factor, plus so many ms.
GOAL_FACTOR, GOAL_EXTRA = 2.0, 20.0
# One organization has 1,000 watchers; without the settings it gets 100.
SETTINGS = {"TIDEMARK_ORGANIZATION_WATCHERS": "1000", "TIDEMARK_MAX_WATCHERS": "2100"}


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
        finally:
            # Also when the time is over: without the call in progress, the longest waits would be missing.
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
            try:
                await stub.Check(health_pb2.HealthCheckRequest(service="liveness"), timeout=TIMEOUT)
            finally:
                self._waited.health.append(time.perf_counter() - started)
            await asyncio.sleep(BEAT)


@dataclass(frozen=True)
class Round:
    """The latencies of the canary before a flood (alone) and during it (beside), on the same data."""

    alone: Waited
    beside: Waited
    flooded: Flooded


@dataclass(frozen=True)
class Case:
    """Some floods of one kind, each after a time without it: what else the machine does affects both."""

    kind: str
    rounds: Sequence[Round]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        beside = [one.beside for one in self.rounds]
        codes: Counter[str] = Counter()
        for one in self.rounds:
            codes.update(one.flooded.codes)
        failures = [failure for one in beside for failure in one.failed]
        return {
            "kind": self.kind,
            "probes": {probe: self._probe(probe) for probe in PROBES},
            "canary_failed": len(failures),
            "canary_failures": sorted(set(failures)),
            "flood": dict(codes),
            "loop_block_alone_ms": max(milliseconds(one.alone.health, 1.0) for one in self.rounds),
            "loop_block_beside_ms": max(milliseconds(one.health, 1.0) for one in beside),
            "loop_p99_beside_ms": statistics.median(milliseconds(one.health, 0.99) for one in beside),
        }

    def _probe(self, probe: str) -> dict[str, Any]:
        """p50 and p99 are medians of those of the rounds; ratio: the median of p99 beside ÷ alone of each round."""
        alone = [one.alone.seconds[probe] for one in self.rounds]
        beside = [one.beside.seconds[probe] for one in self.rounds]
        p99 = [(milliseconds(one, 0.99), milliseconds(other, 0.99)) for one, other in zip(alone, beside, strict=True)]
        p99_alone = statistics.median(one for one, _ in p99)
        return {
            "alone_p50_ms": statistics.median(milliseconds(one, 0.5) for one in alone),
            "alone_p99_ms": p99_alone,
            "beside_p50_ms": statistics.median(milliseconds(one, 0.5) for one in beside),
            "beside_p99_ms": statistics.median(other for _, other in p99),
            "beside_max_ms": max(milliseconds(one, 1.0) for one in beside),
            "ratio": round(statistics.median(other / one for one, other in p99), 2),
            "goal_p99_ms": round(GOAL_FACTOR * p99_alone + GOAL_EXTRA, 2),
            "samples": sum(map(len, beside)),
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
        table.add_column("flood, call", no_wrap=True)
        for name in ("alone", "p99", "beside", "p99", "max", "goal", "failed", "block"):
            table.add_column(name, justify="right", no_wrap=True)
        for case in self.cases:
            figures = case.figures()
            answered = ", ".join(f"{code} {count:,}" for code, count in sorted(figures["flood"].items()))
            table.add_row(f"{case.kind} ({answered})", style="bold")
            for number, probe in enumerate(PROBES):
                one = figures["probes"][probe]
                names = ("alone_p50_ms", "alone_p99_ms", "beside_p50_ms", "beside_p99_ms", "beside_max_ms")
                last = (str(figures["canary_failed"]), f"{figures['loop_block_beside_ms']:,.0f}")
                table.add_row(
                    f"  {probe}",
                    *(f"{one[name]:,.0f}" for name in names),
                    f"{one['goal_p99_ms']:,.0f}",
                    *(("", "") if number else last),
                    end_section=number == len(PROBES) - 1,
                )
        return table


async def measure(
    postgresql: PostgreSQL,
    report: Callable[[str], None],
    kinds: Sequence[str] = tuple(floods.KINDS),
    rounds: int = ROUNDS,
) -> Report:
    """Measures every kind of flood on one server and one database, in about five minutes."""
    cases = []
    async with postgresql.stack("bench_neighbours", settings=SETTINGS) as stack:
        quiet = await _key(stack, "quiet")
        noisy = [await _key(stack, f"noisy-{number}") for number in range(floods.ORGANIZATIONS)]
        grouped_alert = await _prepare(postgresql, stack, kinds, noisy[0])
        with Client() as flooding, Client() as calling:
            for kind in kinds:
                keys = noisy if kind == "organizations" else noisy[:1]
                measured = []
                if kind == "poison":
                    await flood_data.refuse_poison(stack.url)
                for number in range(rounds):
                    flood = await flooding.prepare(
                        Flood(stack.server, keys, kind, LEAD + FLOOD_SECONDS, number, grouped_alert)
                    )
                    await floods.settled(stack.server, keys)
                    name = f"{kind}-{number}"
                    canary = await calling.prepare(Canary(stack.server, quiet, f"{name}-alone", ALONE_SECONDS))
                    alone = await canary()
                    canary = await calling.prepare(
                        Canary(stack.server, quiet, f"{name}-beside", FLOOD_SECONDS - 0.5, LEAD)
                    )
                    beside, flooded = await asyncio.gather(canary(), flood())
                    measured.append(Round(alone, beside, flooded))
                cases.append(Case(kind, measured))
                event = cases[-1].figures()["probes"]["event"]
                report(
                    f"{kind}: an event's p99 {event['alone_p99_ms']:,} ms, {event['beside_p99_ms']:,} beside;"
                    f" the goal is {event['goal_p99_ms']:,}"
                )
    return Report(cases)


async def _prepare(postgresql: PostgreSQL, stack: Stack, kinds: Sequence[str], key: str) -> str:
    """Makes the data that these kinds of flood need; returns the id of an alert that has a gauge for each group."""
    grouped_alert = ""
    if {"crossings", "watchers", "lists"} & set(kinds):
        await flood_data.create_crossing_alert(stack.server, metadata_of(key))
    if {"groups", "lists"} & set(kinds):
        grouped_alert = await flood_data.make_groups(stack.server, metadata_of(key))
    if "lists" in kinds:
        await flood_data.make_lists(postgresql, stack, metadata_of(key))
    return grouped_alert


async def _key(stack: Stack, name: str) -> str:
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

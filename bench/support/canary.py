"""The canary: a few calls of one organization, whose latencies are measured while another one floods the server."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.support import load
from bench.support.client import Job
from bench.support.flood_calls import Metadata, metadata_of
from bench.support.sending import close_channels, evaluate_usage, open_channels
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

PAUSE = 0.02  # seconds between an answer and the canary's next call
BEAT = 0.002  # seconds between an answer of the health service and the next call to it
TIMEOUT = 30.0  # seconds of a call
PROBES = ("event", "read", "stream")


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

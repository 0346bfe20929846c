"""Reads of one alert that are due at random times, and their latencies."""

import asyncio
import random
import time
from dataclasses import dataclass, field

import grpc

from bench.support import load
from bench.support.access import Access
from bench.support.client import Job
from bench.support.sending import TIMEOUT, close_channels
from generated.tidemark.v1 import alert_service_pb2
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub

RATE = 200  # reads a second
CHANNELS = 4
WARM_UP = 1.0  # seconds that do not count


@dataclass
class Reads(Job[list[float]]):
    """GetAlert, RATE a second for so many seconds; the seconds from when each was due to its answer."""

    access: Access
    seconds: float
    seed: int
    _alert_id: str = ""
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def prepare(self) -> None:
        """Connects, and creates the alert."""
        self._channels = await self.access.channels(CHANNELS)
        created = await AlertServiceStub(self._channels[0]).CreateAlert(
            alert_service_pb2.CreateAlertRequest(alert=load.alerts()[0]),
            metadata=self.access.metadata,
            timeout=TIMEOUT,
        )
        self._alert_id = created.alert.alert_id

    async def run(self) -> list[float]:
        """Reads, without waiting for the answers of earlier reads."""
        draw = random.Random(self.seed)
        start, due = time.perf_counter(), 0.0
        reads: list[asyncio.Task[float]] = []
        while (due := due + draw.expovariate(RATE)) < WARM_UP + self.seconds:
            early = start + due - time.perf_counter()
            if early > 0:
                await asyncio.sleep(early)
            stub = AlertServiceStub(self._channels[len(reads) % CHANNELS])
            reads.append(asyncio.create_task(self._read(stub, start + due)))
        took = await asyncio.gather(*reads)
        await close_channels(self._channels)
        return took[int(RATE * WARM_UP) :]

    async def _read(self, stub: AlertServiceStub, due: float) -> float:
        request = alert_service_pb2.GetAlertRequest(alert_id=self._alert_id)
        await stub.GetAlert(request, metadata=self.access.metadata, timeout=TIMEOUT)
        return time.perf_counter() - due

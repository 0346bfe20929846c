"""Many callers that change rules and facts."""

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import grpc

from bench.rules import requests
from bench.support import cpu
from bench.support.client import Job
from bench.support.figures import milliseconds
from bench.support.goals import Figure, Goal
from bench.support.sending import close_channels, open_channels
from generated.tidemark.v1 import account_service_pb2, alert_service_pb2
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub

BATCH_ALERTS = 1_000
CHANNELS = 4
TIMEOUT = 120.0  # seconds of a call
REFUSED_PAUSE = 0.1  # seconds before a caller that was refused calls again


class Kind(StrEnum):
    """What a call changes."""

    CREATE = "CreateAlert"
    BATCH = "BatchCreateAlerts"
    CUSTOMER = "PutCustomer"
    SUBSCRIPTION = "PutSubscription"
    LIMIT = "PutLimit"


@dataclass
class Changed:
    """The answers. seconds: from the start to the last answer. changed: alerts or facts. waits: seconds of each call.

    cpu: seconds of CPU that the server and PostgreSQL used.
    """

    seconds: float = 0.0
    changed: int = 0
    waits: list[float] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Changes a second."""
        return self.changed / self.seconds if self.seconds else 0.0

    @property
    def cpu_of_change(self) -> float:
        """Milliseconds of CPU for one change."""
        return 1e3 * self.cpu / max(1, self.changed)

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        found: dict[str, Any] = {"changed": self.changed, "per_second": round(self.rate, 1), "failed": self.failed}
        if self.waits:
            found |= {"call_p50_ms": milliseconds(self.waits, 0.5), "call_p99_ms": milliseconds(self.waits, 0.99)}
        if cpu.available():
            found["cpu_ms"] = round(self.cpu_of_change, 2)
        return found


@dataclass
class Changes(Job[Changed]):
    """Calls of one kind. Each caller calls again after its answer, or at the time of its next turn.

    customers: how many there are; the calls take them in turn. first: the number of the first call on this database.
    seconds: no call begins later. calls: at most so many. per_second: of all callers together; 0: without a pause.
    """

    server: str
    kind: Kind
    callers: int
    customers: int
    first: int = 0
    seconds: float = 600.0
    calls: int | None = None
    per_second: float = 0.0
    _channels: list[grpc.aio.Channel] = field(default_factory=list)
    _changed: Changed = field(default_factory=Changed)

    async def prepare(self) -> None:
        """Connects."""
        self._channels = await open_channels(self.server, min(self.callers, CHANNELS))

    async def run(self) -> Changed:
        """Calls, and waits for the last answer."""
        started = time.perf_counter()
        turns = itertools.count() if self.calls is None else iter(range(self.calls))
        callers = (self._caller(self._call_over(number), started, turns) for number in range(self.callers))
        await asyncio.gather(*callers)
        await close_channels(self._channels)
        self._changed.seconds = time.perf_counter() - started
        return self._changed

    async def _caller(self, call: Callable[[int], Awaitable[object]], started: float, turns: Iterator[int]) -> None:
        for turn in turns:
            if self.per_second:
                await asyncio.sleep(started + turn / self.per_second - time.perf_counter())
            began = time.perf_counter()
            if began - started > self.seconds:
                return
            try:
                await call(self.first + turn)
            except grpc.aio.AioRpcError as error:
                code = error.code().name
                self._changed.failed[code] = self._changed.failed.get(code, 0) + 1
                await asyncio.sleep(REFUSED_PAUSE)
            else:
                self._changed.waits.append(time.perf_counter() - began)
                self._changed.changed += BATCH_ALERTS if self.kind is Kind.BATCH else 1

    def _call_over(self, number: int) -> Callable[[int], Awaitable[object]]:
        """The function that makes the call of a turn."""
        over = self._channels[number % len(self._channels)]
        alerts, accounts = AlertServiceStub(over), AccountServiceStub(over)
        match self.kind:
            case Kind.CREATE:
                return lambda turn: alerts.CreateAlert(
                    alert_service_pb2.CreateAlertRequest(alert=requests.for_customer(turn % self.customers)),
                    timeout=TIMEOUT,
                )
            case Kind.BATCH:
                return lambda turn: alerts.BatchCreateAlerts(
                    requests.batch(
                        [number % self.customers for number in range(turn * BATCH_ALERTS, (turn + 1) * BATCH_ALERTS)]
                    ),
                    timeout=TIMEOUT,
                )
            case Kind.CUSTOMER:
                return lambda turn: accounts.PutCustomer(
                    account_service_pb2.PutCustomerRequest(customer=requests.customer(turn % self.customers, turn)),
                    timeout=TIMEOUT,
                )
            case Kind.SUBSCRIPTION:
                return lambda turn: accounts.PutSubscription(
                    account_service_pb2.PutSubscriptionRequest(
                        subscription=requests.subscription(turn % self.customers, turn)
                    ),
                    timeout=TIMEOUT,
                )
            case Kind.LIMIT:
                return lambda turn: accounts.PutLimit(
                    account_service_pb2.PutLimitRequest(limit=requests.limit(turn % self.customers, turn)),
                    timeout=TIMEOUT,
                )


def change_figures(row: str, name: str, rounds: Sequence[Changed], goal: Goal) -> list[Figure]:
    """How many changes a second there were, and the CPU of one, as medians over the rounds."""
    rate = statistics.median(one.rate for one in rounds)
    cpu = statistics.median(one.cpu_of_change for one in rounds)
    return [
        Figure(row, name, rate, "/s", goal, {"rounds": [one.figures() for one in rounds]}),
        Figure(row, "the same, CPU of one", cpu, "ms"),
    ]

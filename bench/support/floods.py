"""Floods: one organization calls as fast as it can, while the calls of another organization are measured."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc

from bench.support import load
from bench.support.client import Job
from bench.support.sending import close_channels, evaluate_usage, open_channels
from generated.tidemark.v1 import (
    account_service_pb2,
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_pb2,
    filter_pb2,
    scope_pb2,
    threshold_pb2,
    usage_pb2,
)
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub

BATCH_EVENTS = 5_000
BATCH_CALLERS = 40
CHANGE_CALLERS = 60
LIST_CALLERS = 4
STREAMS = 8
CHANNELS = 4
MESSAGES = 40  # batches that are encoded beforehand; sent again when all are used
CUSTOMERS = 500  # of the events in batches
GROUPS = 4_900  # of the customer that is listed; 5,000 would disable its alerts
GROUPED_ALERTS = 31  # that watch each of these groups
LISTED = "grouped"  # the customer that is listed
TIMEOUT = 30.0  # seconds of a call
REFUSED_PAUSE = 0.5  # seconds that a refused caller waits, as RetryInfo asks

KINDS = ("batches", "streams", "puts", "creates", "lists")

Metadata = tuple[tuple[str, str], ...]


def metadata_of(key: str) -> Metadata:
    """The metadata of a call with this key."""
    return (("authorization", f"Bearer {key}"),)


@dataclass
class Flooded:
    """The calls of a flood, counted by status code; a message of a stream counts as a call."""

    codes: dict[str, int] = field(default_factory=dict)

    def count(self, code: str) -> None:
        """Counts one more call with this code."""
        self.codes[code] = self.codes.get(code, 0) + 1

    @property
    def refused(self) -> int:
        """The number of calls that were refused because the organization used its share."""
        return self.codes.get("RESOURCE_EXHAUSTED", 0)


@dataclass
class Flood(Job[Flooded]):
    """Calls of one kind by many callers; each caller calls again as soon as it gets an answer."""

    server: str
    key: str
    kind: str
    seconds: float
    _messages: list[bytes] = field(default_factory=list)
    _channels: list[grpc.aio.Channel] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _flooded: Flooded = field(default_factory=Flooded)

    async def prepare(self) -> None:
        """Encodes the messages and connects."""
        self._channels = await open_channels(self.server, CHANNELS)
        if self.kind in ("batches", "streams"):
            events = load.Load(f"flood-{self.kind}", CUSTOMERS, MESSAGES * BATCH_EVENTS, load.now()).make()
            self._messages = load.messages(events, BATCH_EVENTS)

    async def run(self) -> Flooded:
        """Floods for `seconds`, and counts the answers in that time."""
        callers: dict[str, tuple[int, Callable[[int], Awaitable[None]]]] = {
            "batches": (BATCH_CALLERS, self._batch),
            "puts": (CHANGE_CALLERS, self._put),
            "creates": (CHANGE_CALLERS, self._create),
            "lists": (LIST_CALLERS, self._list),
        }
        if self.kind == "streams":
            tasks = [asyncio.create_task(self._stream(number)) for number in range(STREAMS)]
        else:
            number_of_callers, call = callers[self.kind]
            tasks = [asyncio.create_task(self._caller(number, call)) for number in range(number_of_callers)]
        await asyncio.wait(tasks, timeout=self.seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await close_channels(self._channels)
        return self._flooded

    async def _caller(self, number: int, call: Callable[[int], Awaitable[None]]) -> None:
        while True:
            try:
                await call(number)
            except grpc.aio.AioRpcError as error:
                self._flooded.count(error.code().name)
                await asyncio.sleep(REFUSED_PAUSE)
            else:
                self._flooded.count("OK")

    async def _batch(self, number: int) -> None:
        over = self._channels[number % CHANNELS]
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = over.unary_unary(
            "/tidemark.v1.AlertService/EvaluateUsageBatch"
        )
        message = self._messages[next(self._numbers) % MESSAGES]
        await call(message, metadata=metadata_of(self.key), timeout=TIMEOUT)

    async def _stream(self, number: int) -> None:
        call = evaluate_usage(self._channels[number % CHANNELS], metadata_of(self.key))

        async def write() -> None:
            while True:
                await call.write(self._messages[next(self._numbers) % MESSAGES])

        writing = asyncio.create_task(write())
        try:
            async for _ in call:
                self._flooded.count("OK")
        except grpc.aio.AioRpcError as error:
            self._flooded.count(error.code().name)
        finally:
            writing.cancel()
            call.cancel()

    async def _put(self, number: int) -> None:
        count = next(self._numbers)
        customer = customer_pb2.Customer(customer_id=f"put-{count % 1_000}", display_name=str(count))
        await AccountServiceStub(self._channels[number % CHANNELS]).PutCustomer(
            account_service_pb2.PutCustomerRequest(customer=customer),
            metadata=metadata_of(self.key),
            timeout=TIMEOUT,
        )

    async def _create(self, number: int) -> None:
        alert = alert_pb2.Alert(
            display_name="flood",
            scope=scope_pb2.AlertScope(customer=scope_pb2.CustomerScope(customer_id=f"put-{next(self._numbers)}")),
            usage_threshold_reached=condition_pb2.UsageThresholdReachedCondition(metric_id=load.METRIC),
            thresholds=[threshold_pb2.Threshold(value=str(load.OUT_OF_REACH))],
        )
        await AlertServiceStub(self._channels[number % CHANNELS]).CreateAlert(
            alert_service_pb2.CreateAlertRequest(alert=alert), metadata=metadata_of(self.key), timeout=TIMEOUT
        )

    async def _list(self, number: int) -> None:
        await AlertServiceStub(self._channels[number % CHANNELS]).ListCustomerAlerts(
            alert_service_pb2.ListCustomerAlertsRequest(customer_id=LISTED, page_size=100),
            metadata=metadata_of(self.key),
            timeout=TIMEOUT,
        )


async def settled(server: str, key: str) -> None:
    """Waits until the pending events of a flood are committed, by sending events of many customers after them."""
    [over] = await open_channels(server, 1)
    stub, events = AlertServiceStub(over), list[usage_pb2.UsageEvent]()
    for number in range(50):
        event = usage_pb2.UsageEvent(
            event_id=f"settled-{time.monotonic_ns()}", customer_id=f"s{number}", metric_id=load.METRIC, quantity="1"
        )
        event.event_time.FromDatetime(load.now())
        events.append(event)
    while True:
        request = alert_service_pb2.EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=events))
        try:
            await stub.EvaluateUsageBatch(request, metadata=metadata_of(key), timeout=60.0)
            break
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            await asyncio.sleep(REFUSED_PAUSE)
    await close_channels([over])


async def make_groups(server: str, key: str) -> None:
    """Creates a customer with many groups, and alerts that watch all of them."""
    [over] = await open_channels(server, 1)
    stub, metadata = AlertServiceStub(over), metadata_of(key)
    for number in range(GROUPED_ALERTS):
        alert = alert_pb2.Alert(
            display_name=f"each model {number}",
            scope=scope_pb2.AlertScope(customer=scope_pb2.CustomerScope(customer_id=LISTED)),
            usage_threshold_reached=condition_pb2.UsageThresholdReachedCondition(
                metric_id=load.METRIC, group_values=[filter_pb2.GroupSelector(key="model")]
            ),
            thresholds=[threshold_pb2.Threshold(value=str(1 + number))],
        )
        await stub.CreateAlert(alert_service_pb2.CreateAlertRequest(alert=alert), metadata=metadata, timeout=TIMEOUT)
    now = load.now()
    for start in range(0, GROUPS, 700):
        events = []
        for number in range(start, min(GROUPS, start + 700)):
            event = usage_pb2.UsageEvent(
                event_id=f"group-{number}", customer_id=LISTED, metric_id=load.METRIC, quantity="12"
            )
            event.properties["model"] = f"model-{number}"
            event.event_time.FromDatetime(now)
            events.append(event)
        await stub.EvaluateUsageBatch(
            alert_service_pb2.EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=events)),
            metadata=metadata,
            timeout=60.0,
        )
    await close_channels([over])

"""The calls of which floods consist."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from decimal import Decimal

import grpc

from bench.support import flood_data, load
from bench.support.sending import evaluate_usage
from evaluator.events import UsageEvent
from generated.tidemark.v1 import (
    account_service_pb2,
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    customer_pb2,
    scope_pb2,
    threshold_pb2,
    usage_pb2,
    webhook_service_pb2,
)
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub

BATCH_EVENTS = 5_000
CROSSING_EVENTS = 500  # of a batch in which each event reaches a threshold
WATCHED_CROSSINGS = 20  # of a batch for watchers; each of them receives a notification of each customer
MESSAGES = 40  # batches that are encoded beforehand; sent again, as duplicates, when all are used
CUSTOMERS = 500  # of the events in batches
TIMEOUT = 30.0  # seconds of a call

WATCHERS = 1_000

Metadata = tuple[tuple[str, str], ...]
_Watch = grpc.aio.UnaryStreamCall[
    alert_service_pb2.WatchNotificationsRequest, alert_service_pb2.WatchNotificationsResponse
]


def metadata_of(key: str) -> Metadata:
    """The metadata of a call with this key."""
    return (("authorization", f"Bearer {key}"),)


class FloodCalls:
    """Makes one call of a kind; a method that serves a stream returns when the stream ends."""

    def __init__(
        self,
        channels: Sequence[grpc.aio.Channel],
        keys: Sequence[str],
        kind: str,
        round: int,
        answered: Callable[[], None],
        *,
        grouped_alert: str = "",
    ) -> None:
        """answered: called for each answer of a stream. grouped_alert: see `flood_data.make_groups`."""
        self._channels = channels
        self._metadata = [metadata_of(key) for key in keys]
        self._name = f"flood-{kind.replace(' ', '-')}-{round}"
        self._kind = kind
        self._answered = answered
        self._grouped_alert = grouped_alert
        self._messages: list[bytes] = []
        self._numbers = itertools.count()
        self._edited: list[str] = []
        self._watching: dict[int, _Watch] = {}

    async def prepare(self) -> None:
        """Encodes the messages, creates the alerts to edit, and opens the streams of watchers."""
        if self._kind in ("batches", "streams", "organizations"):
            events = load.Load(self._name, CUSTOMERS, MESSAGES * BATCH_EVENTS, load.now()).make()
            self._messages = load.messages(events, BATCH_EVENTS)
        if self._kind == "crossings":
            self._messages = load.messages(self._crossings(MESSAGES * 10 * CROSSING_EVENTS), CROSSING_EVENTS)
        if self._kind == "watchers":
            self._messages = load.messages(self._crossings(MESSAGES * 10 * WATCHED_CROSSINGS), WATCHED_CROSSINGS)
            await asyncio.gather(*map(self._begin_to_watch, range(WATCHERS)))
        if self._kind == "edits":
            self._edited = await flood_data.create_alerts(AlertServiceStub(self._channels[0]), self._metadata[0], 64)

    def _crossings(self, number: int) -> list[UsageEvent]:
        time = load.now()
        return [
            UsageEvent(
                f"{self._name}-{index}",
                load.customer(index % CUSTOMERS),
                time,
                load.CROSSING_METRIC,
                Decimal(1),
                None,
                None,
                None,
                {},
            )
            for index in range(number)
        ]

    def _alerts(self, number: int) -> AlertServiceStub:
        return AlertServiceStub(self._channels[number % len(self._channels)])

    def _key(self, number: int) -> Metadata:
        return self._metadata[number % len(self._metadata)]

    def _next_message(self) -> bytes:
        return self._messages[next(self._numbers) % len(self._messages)]

    async def batch(self, number: int) -> None:
        """A unary batch of the largest size."""
        over = self._channels[number % len(self._channels)]
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = over.unary_unary(
            "/tidemark.v1.AlertService/EvaluateUsageBatch"
        )
        await call(self._next_message(), metadata=self._key(number), timeout=TIMEOUT)

    async def stream(self, number: int) -> None:
        """A stream of batches, as many as the server reads."""
        call = evaluate_usage(self._channels[number % len(self._channels)], self._key(number))

        async def write() -> None:
            while True:
                await call.write(self._next_message())

        writing = asyncio.create_task(write())
        try:
            async for _ in call:
                self._answered()
        finally:
            writing.cancel()
            call.cancel()

    async def crossings(self, number: int) -> None:
        """A unary batch in which each event reaches a threshold."""
        await self.batch(number)

    async def single(self, number: int) -> None:
        """A single event."""
        await self._send(number, [_event(f"{self._name}-{next(self._numbers)}", f"single-{number}", "1")])

    async def poison(self, number: int) -> None:
        """Events of which one cannot be recorded: a trigger refuses it (`flood_data.refuse_poison`)."""
        events = [_event(f"{self._name}-{next(self._numbers)}", f"poison-{index % 50}", "1") for index in range(200)]
        events[100].quantity = flood_data.POISON
        await self._send(number, events)

    async def conflict(self, number: int) -> None:
        """Events that contradict stored ones: the quantity of each differs from call to call."""
        quantity = str(1 + next(self._numbers))
        await self._send(number, [_event(f"conflict-{index}", f"c{index % 50}", quantity) for index in range(2_000)])

    async def _send(self, number: int, events: list[usage_pb2.UsageEvent]) -> None:
        request = alert_service_pb2.EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=events))
        await self._alerts(number).EvaluateUsageBatch(request, metadata=self._key(number), timeout=TIMEOUT)

    async def put(self, number: int) -> None:
        """A put of a customer."""
        count = next(self._numbers)
        customer = customer_pb2.Customer(customer_id=f"put-{count % 1_000}", display_name=f"{self._name}-{count}")
        await AccountServiceStub(self._channels[number % len(self._channels)]).PutCustomer(
            account_service_pb2.PutCustomerRequest(customer=customer), metadata=self._key(number), timeout=TIMEOUT
        )

    async def create(self, number: int) -> None:
        """A new alert of one customer."""
        await self._alerts(number).CreateAlert(
            alert_service_pb2.CreateAlertRequest(alert=self._new_alert()), metadata=self._key(number), timeout=TIMEOUT
        )

    async def create_batch(self, number: int) -> None:
        """1,000 new alerts, each of one customer."""
        requests = [alert_service_pb2.CreateAlertRequest(alert=self._new_alert()) for _ in range(1_000)]
        await self._alerts(number).BatchCreateAlerts(
            alert_service_pb2.BatchCreateAlertsRequest(requests=requests), metadata=self._key(number), timeout=TIMEOUT
        )

    def _new_alert(self) -> alert_pb2.Alert:
        return alert_pb2.Alert(
            display_name="flood",
            scope=scope_pb2.AlertScope(customer=scope_pb2.CustomerScope(customer_id=f"put-{next(self._numbers)}")),
            usage_threshold_reached=condition_pb2.UsageThresholdReachedCondition(metric_id=load.METRIC),
            thresholds=[threshold_pb2.Threshold(value=str(load.OUT_OF_REACH))],
        )

    async def edit(self, number: int) -> None:
        """Another threshold of an alert."""
        value = str(load.OUT_OF_REACH + next(self._numbers))
        alert = alert_pb2.Alert(
            alert_id=self._edited[number % len(self._edited)], thresholds=[threshold_pb2.Threshold(value=value)]
        )
        await self._alerts(number).UpdateAlert(
            alert_service_pb2.UpdateAlertRequest(alert=alert), metadata=self._key(number), timeout=TIMEOUT
        )

    async def list_groups(self, number: int) -> None:
        """The alerts of a customer that has 150,000 gauges."""
        await self._alerts(number).ListCustomerAlerts(
            alert_service_pb2.ListCustomerAlertsRequest(customer_id=flood_data.LISTED, page_size=100),
            metadata=self._key(number),
            timeout=TIMEOUT,
        )

    async def list_page(self, number: int) -> None:
        """The largest page of one of the lists, a different list by each caller."""
        stub, key = self._alerts(number), self._key(number)
        match number % 5:
            case 0:
                await stub.ListAlerts(
                    alert_service_pb2.ListAlertsRequest(page_size=1_000), metadata=key, timeout=TIMEOUT
                )
            case 1:
                await stub.ListCustomerAlerts(
                    alert_service_pb2.ListCustomerAlertsRequest(page_size=1_000), metadata=key, timeout=TIMEOUT
                )
            case 2:
                await stub.ListNotifications(
                    alert_service_pb2.ListNotificationsRequest(page_size=1_000), metadata=key, timeout=TIMEOUT
                )
            case 3:
                await stub.GetCustomerAlert(
                    alert_service_pb2.GetCustomerAlertRequest(
                        alert_id=self._grouped_alert, customer_id=flood_data.LISTED, page_size=1_000
                    ),
                    metadata=key,
                    timeout=TIMEOUT,
                )
            case _:
                await WebhookServiceStub(self._channels[number % len(self._channels)]).ListDeliveries(
                    webhook_service_pb2.ListDeliveriesRequest(page_size=1_000), metadata=key, timeout=TIMEOUT
                )

    async def watch(self, number: int) -> None:
        """A stream of notifications, which `prepare` has opened."""
        call = self._watching[number]
        try:
            async for _ in call:
                self._answered()
        finally:
            call.cancel()

    async def _begin_to_watch(self, number: int) -> None:
        call = self._alerts(number).WatchNotifications(
            alert_service_pb2.WatchNotificationsRequest(), metadata=self._key(number)
        )
        await anext(aiter(call))  # the first answer: the stream has begun
        self._watching[number] = call


def _event(event_id: str, customer: str, quantity: str) -> usage_pb2.UsageEvent:
    event = usage_pb2.UsageEvent(event_id=event_id, customer_id=customer, metric_id=load.METRIC, quantity=quantity)
    event.event_time.FromDatetime(load.now())
    return event

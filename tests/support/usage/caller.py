"""A caller of the API for tests: short calls, short forms of answers, and the stored rows."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import grpc
import psycopg
from psycopg.rows import TupleRow

from engine.limits import DEFAULT_LIMITS, EngineLimits
from generated.tidemark.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    alert_pb2,
    alert_service_pb2,
    alert_service_pb2_grpc,
    customer_alert_pb2,
    customer_pb2,
    metric_pb2,
    subscription_pb2,
    usage_pb2,
)
from runtime.clock import Clock
from runtime.configuration import Configuration
from server.calls.validation import to_timestamp
from server.limits import DEFAULT_SERVER_LIMITS, ServerLimits
from store.postgres.database import Database
from tests.support.postgres.lock_waits import WAITING_SESSIONS
from tests.support.postgres.nodes import workers
from tests.support.schemas import check_body
from tests.support.server.running import UNARY_DEADLINE, Running, running
from tests.support.usage.alerts import (
    ALL_CUSTOMERS,
    BOTH,
    REACHED,
    RESOLVED,
    on_customer,
    on_customer_plan,
    on_plan,
    on_subscription,
    spend_alert,
    thresholds,
    usage_alert,
)
from tests.support.usage.answers import (
    Outcome,
    Refusal,
    ShortTransition,
    Stored,
    explained,
    refusals,
    shortened,
    values,
)

# Most tests of usage need the names of all three modules, and import them from here.
__all__ = [
    "ALL_CUSTOMERS",
    "BOTH",
    "DEADLINE",
    "REACHED",
    "RESOLVED",
    "STREAM_LIMIT",
    "Caller",
    "Outcome",
    "Refusal",
    "ShortTransition",
    "Stored",
    "StreamCall",
    "beside",
    "calling",
    "everything",
    "explained",
    "ingest_held",
    "on_customer",
    "on_customer_plan",
    "on_plan",
    "on_subscription",
    "refusals",
    "settings",
    "shortened",
    "spend_alert",
    "thresholds",
    "until",
    "usage_alert",
    "values",
    "waiting_for_locks",
]

DEADLINE = 60.0  # seconds that a test waits at most
SHORTEST_PAUSE, LONGEST_PAUSE = 0.004, 0.05  # seconds between two checks of what a test waits for
# Seconds that a stream may last. A reader that skips heartbeats would wait for a lost answer for ever.
STREAM_LIMIT = 240.0
StreamCall = grpc.aio.StreamStreamCall[
    alert_service_pb2.EvaluateUsageRequest, alert_service_pb2.EvaluateUsageResponse
]


class Caller:
    """Calls of one organization to a server, and the rows that the server stored for it."""

    def __init__(self, server: Running, clock: Clock, database_url: str, organization: str, key: str) -> None:
        self.server = server
        self.alerts = alert_service_pb2_grpc.AlertServiceStub(server.channel)
        self.accounts = account_service_pb2_grpc.AccountServiceStub(server.channel)
        self.clock = clock
        self.database_url = database_url
        self.organization = organization
        self.key = key
        self._organization_id: int | None = None
        self.metadata: tuple[tuple[str, str], ...] = (("authorization", f"Bearer {key}"),)

    def event(
        self,
        event_id: str,
        quantity: str = "1",
        customer: str = "acme",
        *,
        metric: str = "calls",
        cost: str = "",
        currency: str = "",
        subscription: str = "",
        at: datetime | None = None,
        **properties: str,
    ) -> usage_pb2.UsageEvent:
        """A usage event; at: its time, by default now."""
        return usage_pb2.UsageEvent(
            event_id=event_id,
            customer_id=customer,
            subscription_id=subscription,
            metric_id=metric,
            quantity=quantity,
            cost=cost,
            currency=currency,
            event_time=to_timestamp(at or self.clock.now()),
            properties=properties,
        )

    async def send(self, *events: usage_pb2.UsageEvent, gauges: bool = False) -> Outcome:
        """Sends one batch."""
        request = alert_service_pb2.EvaluateUsageBatchRequest(
            batch=usage_pb2.UsageBatch(events=events, include_gauges=gauges)
        )
        return (await self.alerts.EvaluateUsageBatch(request, metadata=self.metadata, timeout=DEADLINE)).outcome

    def stream(self) -> StreamCall:
        """Opens a stream."""
        return self.alerts.EvaluateUsage(metadata=self.metadata, timeout=STREAM_LIMIT)

    async def create(self, alert: alert_pb2.Alert, *, evaluate: bool | None = None) -> alert_pb2.Alert:
        """Creates an alert and waits for its backfill."""
        created = await self.create_only(alert, evaluate=evaluate)
        await self.backfilled(created.alert_id)
        return created

    async def create_only(self, alert: alert_pb2.Alert, *, evaluate: bool | None = None) -> alert_pb2.Alert:
        """Creates an alert."""
        request = alert_service_pb2.CreateAlertRequest(alert=alert, evaluate_on_create=evaluate)
        return (await self.alerts.CreateAlert(request, metadata=self.metadata, timeout=DEADLINE)).alert

    async def backfilled(self, alert_id: str) -> None:
        """Waits until the backfill of an alert is complete."""
        request = alert_service_pb2.GetAlertRequest(alert_id=alert_id)

        async def done() -> bool:
            answer = await self.alerts.GetAlert(request, metadata=self.metadata)
            return answer.alert.evaluation_status == alert_pb2.EVALUATION_STATUS_DONE

        await until(done)

    async def archive(self, alert_id: str) -> None:
        """Archives an alert."""
        await self.alerts.ArchiveAlert(
            alert_service_pb2.ArchiveAlertRequest(alert_id=alert_id), metadata=self.metadata
        )

    async def state(self, alert_id: str, customer: str = "acme") -> customer_alert_pb2.CustomerAlert:
        """The state of an alert for a customer."""
        request = alert_service_pb2.GetCustomerAlertRequest(alert_id=alert_id, customer_id=customer)
        answer = await self.alerts.GetCustomerAlert(request, metadata=self.metadata, timeout=DEADLINE)
        return answer.customer_alert

    async def put_customer(self, customer: customer_pb2.Customer) -> None:
        """Creates or replaces a customer."""
        await self.accounts.PutCustomer(
            account_service_pb2.PutCustomerRequest(customer=customer), metadata=self.metadata
        )

    async def put_subscription(self, subscription: subscription_pb2.Subscription) -> None:
        """Creates or replaces a subscription."""
        await self.accounts.PutSubscription(
            account_service_pb2.PutSubscriptionRequest(subscription=subscription), metadata=self.metadata
        )

    async def put_metric(
        self, metric_id: str, aggregation: metric_pb2.Aggregation.ValueType, unique_property: str = ""
    ) -> None:
        """Creates or replaces a metric."""
        metric = metric_pb2.Metric(metric_id=metric_id, aggregation=aggregation, unique_property=unique_property)
        await self.accounts.PutMetric(account_service_pb2.PutMetricRequest(metric=metric), metadata=self.metadata)

    async def rows(self, query: str, **parameters: object) -> list[TupleRow]:
        """Rows of this organization; the query may use %(organization_id)s."""
        observer = self.server.observer
        if self._organization_id is None:
            named = "SELECT organization_id FROM organization WHERE name = %(name)s"
            [[self._organization_id]] = await observer.rows(self.database_url, named, {"name": self.organization})
        known = {"organization_id": self._organization_id, **parameters}
        return await observer.rows(self.database_url, query, known)

    async def notifications(self) -> list[Stored]:
        """Every notification, by customer, time, alert, gauge and sequence.

        Checks that each is in the outbox exactly once and conforms to the schema of its type.
        """
        rows = await self.rows(
            "SELECT customer_id, notification_id, alert_id, sequence, event_type, body FROM notification"
            " WHERE organization_id = %(organization_id)s"
            " ORDER BY customer_id, create_time, alert_id, gauge_id, sequence"
        )
        outbox = await self.rows(
            "SELECT customer_id, notification_id FROM outbox WHERE organization_id = %(organization_id)s"
        )
        times = Counter((customer_id, notification_id) for customer_id, notification_id in outbox)
        assert all(times[row[0], row[1]] == 1 for row in rows)
        stored = [Stored(row[0], row[1], row[2], row[3], row[4], json.loads(row[5])) for row in rows]
        for one in stored:
            check_body(one.body)
        return stored

    async def evaluations(self) -> list[Stored]:
        """Every notification of an evaluation: all but those of disabled alerts."""
        return [one for one in await self.notifications() if one.event_type != "alert.disabled"]

    async def event_count(self, customer: str | None = None) -> int:
        """The number of stored events, of one customer or of all."""
        where = "" if customer is None else " AND customer_id = %(customer)s"
        [[number]] = await self.rows(
            "SELECT count(*) FROM event WHERE organization_id = %(organization_id)s" + where, customer=customer
        )
        return int(number)


@asynccontextmanager
async def calling(
    database_url: str,
    clock: Clock,
    organization: str,
    key: str,
    configuration: Configuration | None = None,
    *,
    engine_limits: EngineLimits = DEFAULT_LIMITS,
    server_limits: ServerLimits = DEFAULT_SERVER_LIMITS,
) -> AsyncIterator[Caller]:
    """A server with a pool of its own, and a caller of it."""
    database = Database(database_url)
    try:
        async with running(
            database, clock, configuration=configuration, engine_limits=engine_limits, server_limits=server_limits
        ) as server:
            yield Caller(server, clock, database_url, organization, key)
    finally:
        await database.close()


@asynccontextmanager
async def beside(
    caller: Caller,
    configuration: Configuration | None = None,
    *,
    engine_limits: EngineLimits = DEFAULT_LIMITS,
    server_limits: ServerLimits = DEFAULT_SERVER_LIMITS,
) -> AsyncIterator[Caller]:
    """A second server on the same database, and a caller of it as the same organization."""
    async with calling(
        caller.database_url,
        caller.clock,
        caller.organization,
        caller.key,
        configuration,
        engine_limits=engine_limits,
        server_limits=server_limits,
    ) as other:
        yield other


async def everything(
    stream: StreamCall,
) -> tuple[list[alert_service_pb2.EvaluateUsageResponse], grpc.aio.AioRpcError | None]:
    """Ends the requests of a stream; returns its further answers and the error with which it ends, if any."""
    answers: list[alert_service_pb2.EvaluateUsageResponse] = []
    try:
        async with asyncio.timeout(DEADLINE):
            await stream.done_writing()
            while isinstance(answer := await stream.read(), alert_service_pb2.EvaluateUsageResponse):
                answers.append(answer)
    except grpc.aio.AioRpcError as error:
        return answers, error
    return answers, None


def settings(
    *,
    ingest_writers: int = 2,
    heartbeat: float = 30.0,
    max_pending_events: int = 100_000,
    max_message_bytes: int = 4 * 1024 * 1024,
    drain_timeout: float = 20.0,
    native: bool = True,
) -> Configuration:
    """Settings of a server that listens on a free port and stops without a propagation delay."""
    return Configuration(
        listen_port=0,
        propagation_delay=0.0,
        ingest_writers=ingest_writers,
        heartbeat=heartbeat,
        max_pending_events=max_pending_events,
        max_message_bytes=max_message_bytes,
        drain_timeout=drain_timeout,
        native=native,
        unary_deadline=UNARY_DEADLINE,
    )


@asynccontextmanager
async def ingest_held(caller: Caller) -> AsyncIterator[None]:
    """Holds the organization's lock exclusively inside the block, so that commits wait."""
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    async with await psycopg.AsyncConnection.connect(caller.database_url) as connection:
        while True:
            try:
                await _hold(connection, organization_id)
                break
            except psycopg.errors.DeadlockDetected:  # between nodes, with a backfill, as changes of the service have
                await connection.rollback()
        yield


async def _hold(connection: psycopg.AsyncConnection, organization_id: object) -> None:
    await connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (0x7469, organization_id))
    if workers():  # also at each node; `store.identity.node_epochs` says why rows are changed first
        own = {"organization_id": organization_id}
        await connection.execute(
            "UPDATE organization_epoch SET epoch = epoch WHERE organization_id = %(organization_id)s", own
        )
        await connection.execute(
            "SELECT pg_advisory_xact_lock(29801, %(organization_id)s::int) FROM organization_epoch"
            " WHERE organization_id = %(organization_id)s",
            own,
        )


async def waiting_for_locks(caller: Caller, number: int = 1) -> None:
    """Waits until that number of connections to the database wait for a lock."""

    async def waiting() -> bool:
        [[found]] = await caller.rows(WAITING_SESSIONS)
        return int(found) >= number

    await until(waiting)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits until the condition holds. The pauses grow: a condition that takes long is checked less often."""
    pause = SHORTEST_PAUSE
    async with asyncio.timeout(DEADLINE):
        while not await condition():
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 1.5 * pause)

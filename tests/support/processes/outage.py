"""Programs during an outage of their database: health, refused calls, and notifications that arrive after it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from generated.tidemark.v1 import usage_pb2
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageBatchRequest, EvaluateUsageRequest, ListAlertsRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.usage_pb2 import UsageEvent
from server.health import LIVENESS
from tests.support.notifier.receiver import Receiver
from tests.support.processes import results
from tests.support.processes.programs import DEADLINE, Program, Programs, session, until
from tests.support.processes.results import ALERTS, SEATS
from tests.support.server.running import SERVING, reason_of
from tests.support.webhooks.endpoints import create_endpoint
from tidemark_client.errors.status import error_status

STATUS_LOST = "Internal error from Core"
SHOWN = 10  # missing notifications, and as many rows of each kind
# The rows that say why a notification has not arrived. Leased deliveries of others may take up the endpoint's share.
QUEUE = {
    "now": "SELECT to_jsonb(now())",
    "endpoint": "SELECT to_jsonb(endpoint) - 'headers' - 'credentials' FROM endpoint",
    "leased": "SELECT to_jsonb(delivery_live) FROM delivery_live WHERE lease_token IS NOT NULL",
    "outbox": "SELECT to_jsonb(outbox) FROM outbox WHERE notification_id = ANY (%(notifications)s)",
    "delivery": "SELECT to_jsonb(delivery) FROM delivery WHERE notification_id = ANY (%(notifications)s)",
    "attempt": """
        SELECT to_jsonb(attempt) FROM attempt JOIN delivery USING (organization_id, delivery_id)
        WHERE notification_id = ANY (%(notifications)s)
    """,
}
NO_ANSWER = "the database is not usable"  # all that a server or a notifier has to complain of


class Health:
    """What a watch of the health service reports."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._watch = self._stub.Watch(health_pb2.HealthCheckRequest(service="tidemark.v1.AlertService"))

    @property
    def _stub(self) -> Any:  # it has no types
        return health_pb2_grpc.HealthStub(self._channel)

    async def becomes(self, status: int) -> None:
        """Waits for the next change, which must be this."""
        async with asyncio.timeout(DEADLINE):
            answer: health_pb2.HealthCheckResponse = await self._watch.read()
        assert answer.status == status

    async def lives(self) -> bool:
        """Whether the process calls itself alive."""
        answer: health_pb2.HealthCheckResponse = await self._stub.Check(
            health_pb2.HealthCheckRequest(service=LIVENESS)
        )
        return answer.status == SERVING


async def refused(
    channel: grpc.aio.Channel, events: list[UsageEvent], *, failure: str = "", seconds: int = 1
) -> None:
    """Every kind of call ends with UNAVAILABLE, its reason, and when to try again."""
    stub = AlertServiceStub(channel)

    async def requests() -> AsyncIterator[EvaluateUsageRequest]:
        yield EvaluateUsageRequest(batch=usage_pb2.UsageBatch(events=events))

    calls: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: anext(aiter(stub.EvaluateUsage(requests()))),
        lambda: stub.EvaluateUsageBatch(
            EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=events)), timeout=DEADLINE
        ),
        lambda: stub.ListAlerts(ListAlertsRequest(), timeout=DEADLINE),
    )
    for call in calls:
        while True:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call()
            # The server ends a stream with UNAVAILABLE before it reads the request. A write that meets that end fails
            # in the client, and grpc.aio (`_StreamRequestMixin._write`) then sets INTERNAL in place of the status of
            # the server. This was tried with a plain grpc.aio server that only aborts with UNAVAILABLE: of 6,000
            # streams 62 ended with INTERNAL on a busy machine, of 6,000 unary calls none (grpcio 1.85.1).
            if STATUS_LOST not in (raised.value.details() or ""):
                break
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert reason_of(raised.value) == "ERROR_REASON_DATABASE_UNAVAILABLE"
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in error_status(raised.value).details)
        assert retry.retry_delay == Duration(seconds=seconds)
        if failure:
            info = error_details_pb2.ErrorInfo()
            assert any(detail.Unpack(info) for detail in error_status(raised.value).details)
            assert info.metadata["failure"] == failure


@asynccontextmanager
async def at_work(programs: Programs, receiver: Receiver) -> AsyncIterator[tuple[Program, str]]:
    """A server with alerts, and a notifier, which outlive the block without a hitch; the endpoint's secret."""
    server, notifier = await asyncio.gather(programs.serve(), programs.notify())
    await results.create(server.address, *ALERTS, SEATS)
    async with server.address.channel() as channel:
        secret = await create_endpoint(channel, receiver.url)
    before = server.pid, notifier.pid
    yield server, secret
    assert (server.pid, notifier.pid) == before
    for program in (server, notifier):
        assert await program.stop() == 0
        assert [line for line in program.complaints() if NO_ANSWER not in line] == []


async def everything_arrived(url: str, receiver: Receiver, secret: str) -> None:
    """Waits until each notification has arrived; each is signed, and what was written.

    Fails with the rows of the queue when some do not arrive.
    """
    written = await results.notifications(url)
    try:
        await until(lambda: written.keys() <= set(receiver.ids()), "notifications at the receiver")
    except AssertionError as error:
        missing = sorted(written.keys() - set(receiver.ids()))
        rows = "\n".join(await queued(url, missing[:SHOWN]))
        raise AssertionError(f"{error}; {len(missing)} of {len(written)} are missing:\n{rows}") from None
    results.check_arrivals(receiver.arrivals, secret, written)


async def queued(url: str, notifications: list[str]) -> list[str]:
    """What the queue holds of these notifications and what may keep them from being sent, a line for each row."""
    lines = []
    async with session(url) as connection:
        for name, query in QUEUE.items():
            limited = f"{query} LIMIT {SHOWN}"
            cursor = await connection.execute(limited.encode(), {"notifications": notifications})
            lines += [f"{name}: {row}" async for (row,) in cursor]
    return lines

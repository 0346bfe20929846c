"""On every server, a revoked key ends its open streams, and the first key ends streams without a key."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import alert_service_pb2_grpc, usage_pb2
from generated.tidemark.v1.usage_pb2 import UsageEvent
from runtime.clock import ManualClock
from server import process
from server.authentication import api_keys
from server.authentication.revocation import OpenStreams
from server.calls.lifecycle import CallsInFlight
from server.limits import ServerLimits
from store.identity import keys
from store.identity.keys import CreatedKey
from store.postgres.database import Database
from tests.support.server.limits import with_server_limits
from tests.support.server.odd_service import OddClient
from tests.support.server.running import Running, reason_of, running, status_of

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
LIMIT = 60.0  # seconds, of everything that is waited for
OFTEN_CHECKED = ServerLimits(revocation_interval=0.02)
SOON_CUT = replace(OFTEN_CHECKED, revocation_grace=0.05)


@pytest.fixture
def server_limits() -> ServerLimits:
    return OFTEN_CHECKED


@pytest.fixture
async def second(database: Database, clock: ManualClock, server_limits: ServerLimits) -> AsyncIterator[Running]:
    """Another server on the same database."""
    async with running(database, clock, server_limits=server_limits) as server:
        yield server


async def create_key(database: Database) -> CreatedKey:
    async with database.transaction() as connection:
        return await keys.create_key(connection, "acme", NOW)


async def revoke(database: Database, key: CreatedKey) -> None:
    async with database.transaction() as connection:
        assert await keys.revoke_key(connection, key.key_id, NOW)


def authorized(key: CreatedKey) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key.key}"),)


def usage(event_id: str) -> messages.EvaluateUsageRequest:
    event = UsageEvent(event_id=event_id, customer_id="c", metric_id="calls", quantity="1")
    event.event_time.FromDatetime(NOW)
    return messages.EvaluateUsageRequest(batch=usage_pb2.UsageBatch(batch_id=event_id, events=[event]))


async def read_out(call: Any) -> list[Any]:
    """Reads until the stream ends in order; returns what came."""
    answers = []
    async with asyncio.timeout(LIMIT):
        while (answer := await call.read()) is not grpc.aio.EOF:
            answers.append(answer)
    return answers


async def refused(call: Any) -> None:
    """Reads until the stream ends, which it does with UNAUTHENTICATED, a reason, and no advice to try again."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await read_out(call)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(raised.value) == "ERROR_REASON_UNAUTHENTICATED"
    assert not any(detail.type_url.endswith("RetryInfo") for detail in status_of(raised.value).details)


async def test_idle_streams_of_a_revoked_key_end_on_every_server_and_others_go_on(
    api: Running, second: Running, database: Database
) -> None:
    key, other = await create_key(database), await create_key(database)
    ended: list[Any] = []
    kept: list[Any] = []
    for server in (api, second):
        stub: Any = alert_service_pb2_grpc.AlertServiceStub(server.channel)
        for owner, calls in ((key, ended), (other, kept)):
            stream = stub.EvaluateUsage(metadata=authorized(owner))
            await stream.write(usage(f"e-{owner.key_id}"))
            assert (await stream.read()).outcome.batch_id == f"e-{owner.key_id}"
            watch = stub.WatchNotifications(messages.WatchNotificationsRequest(), metadata=authorized(owner))
            assert (await watch.read()).heartbeat
            calls += [stream, watch]
    await revoke(database, key)
    for call in ended:
        await refused(call)
    for number, call in enumerate(kept):
        assert not call.done()
        if number % 2 == 0:
            await call.write(usage("later"))
            assert (await call.read()).outcome.batch_id == "later"
        call.cancel()


async def test_a_new_call_with_a_revoked_key_is_refused_while_the_clock_stands_still(
    odd: OddClient, database: Database
) -> None:
    key = await create_key(database)
    assert (await odd.unary("WhoAmI")("", metadata=authorized(key))).startswith("acme")
    await revoke(database, key)

    async def call_for_ever() -> None:
        async with asyncio.timeout(LIMIT):
            while True:
                await odd.unary("WhoAmI")("", metadata=authorized(key))
                await asyncio.sleep(0.01)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call_for_ever()
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_streams_without_a_key_end_when_the_first_key_is_created(api: Running, database: Database) -> None:
    stub: Any = alert_service_pb2_grpc.AlertServiceStub(api.channel)
    stream = stub.EvaluateUsage()
    await stream.write(usage("e"))
    assert (await stream.read()).outcome.accepted == 1
    watch = stub.WatchNotifications(messages.WatchNotificationsRequest())
    assert (await watch.read()).heartbeat
    await create_key(database)
    await refused(stream)
    await refused(watch)


# The grace is long, so that no stream is cut on a busy machine.
@with_server_limits(replace(OFTEN_CHECKED, revocation_grace=LIMIT))
async def test_messages_that_were_read_are_answered_before_the_stream_ends(api: Running, database: Database) -> None:
    key = await create_key(database)
    stub: Any = alert_service_pb2_grpc.AlertServiceStub(api.channel)
    stream = stub.EvaluateUsage(metadata=authorized(key))
    for number in range(30):
        await stream.write(usage(f"e-{number}"))
    acknowledged = (await stream.read()).outcome.accepted
    await revoke(database, key)

    async def read_on() -> None:
        nonlocal acknowledged
        async with asyncio.timeout(LIMIT):
            while (answer := await stream.read()) is not grpc.aio.EOF:
                acknowledged += answer.outcome.accepted

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await read_on()
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    async with database.raw_transaction() as connection:
        row = await (await connection.execute("SELECT count(*) FROM event")).fetchone()
    assert row is not None
    assert row[0] == acknowledged >= 1


@with_server_limits(SOON_CUT)
async def test_a_handler_that_does_not_wait_for_the_revocation_is_cut_with_the_status(
    odd: OddClient, database: Database
) -> None:
    key = await create_key(database)
    call = odd.stream("WhoAmIStream")(metadata=authorized(key))
    await call.write("x")
    assert (await call.read()).startswith("acme")
    await revoke(database, key)
    await refused(call)


class Inside:
    """What the servers of a test know of their calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.streams: list[OpenStreams] = []
        self.in_flight: list[CallsInFlight] = []
        monkeypatch.setattr(api_keys, "OpenStreams", lambda grace: self._kept(self.streams, OpenStreams(grace)))
        monkeypatch.setattr(process, "CallsInFlight", lambda: self._kept(self.in_flight, CallsInFlight()))

    @staticmethod
    def _kept(made: list[Any], one: Any) -> Any:
        made.append(one)
        return one

    @property
    def idle(self) -> bool:
        """Whether no stream is registered and no call is counted."""
        return not any(one.key_ids for one in self.streams) and not any(one.count for one in self.in_flight)


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not happened():  # noqa: ASYNC110 (it happens in the server)
            await asyncio.sleep(0.01)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Inside:
    """Ask for it before the server."""
    return Inside(monkeypatch)


@with_server_limits(SOON_CUT)
async def test_a_stream_that_is_blocked_by_a_client_that_does_not_read_ends_at_the_server(
    inside: Inside, odd: OddClient, database: Database
) -> None:
    key = await create_key(database)
    call = odd.server_stream("Flood")("", metadata=authorized(key))
    assert await call.read()
    await until(lambda: not inside.idle)
    await revoke(database, key)
    await until(lambda: inside.idle)
    assert not call.done()  # it has read nothing of that yet
    await refused(call)  # after what was sent before

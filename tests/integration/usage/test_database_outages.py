"""Database outages: callers get UNAVAILABLE, no acknowledged event is lost, and servers recover by themselves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import psycopg
import pytest
from sqlalchemy import URL, make_url

from engine.limits import BackfillLimits, EngineLimits
from generated.tidemark.v1 import alert_service_pb2, usage_pb2
from runtime.clock import ManualClock
from tests.support.postgres.nodes import workers
from tests.support.server.running import NOT_SERVING, SERVING, status_of
from tests.support.server.sharing import own_database
from tests.support.usage.caller import (
    Caller,
    ShortTransition,
    calling,
    everything,
    explained,
    ingest_held,
    until,
    usage_alert,
    values,
    waiting_for_locks,
)
from tests.support.usage.organizations import organization

pytestmark = own_database

Request = alert_service_pb2.EvaluateUsageRequest
UNAVAILABLE = ("UNAVAILABLE", "DATABASE_UNAVAILABLE", ())
_CUT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'tidemark %'
"""


@pytest.fixture
async def caller(database_url: str, clock: ManualClock, engine_limits: EngineLimits) -> AsyncIterator[Caller]:
    """A caller of a server with a database of its own, since these tests interrupt the database."""
    name, key = await organization(database_url, clock)
    async with calling(database_url, clock, name, key, engine_limits=engine_limits) as caller:
        yield caller


async def cut(caller: Caller) -> int:
    """Ends every connection of the servers to the database, on each node; returns their number."""
    async with await psycopg.AsyncConnection.connect(caller.database_url, autocommit=True) as connection:
        if workers():
            cursor = await connection.execute("SELECT sum(result::int) FROM run_command_on_all_nodes(%s)", (_CUT,))
        else:
            cursor = await connection.execute(_CUT.encode())
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])


@asynccontextmanager
async def away(caller: Caller) -> AsyncIterator[None]:
    """Refuses every connection to the database inside the block, on each node: workers commit usage by themselves."""
    url = make_url(caller.database_url)
    async with AsyncExitStack() as stack:
        for node in (url, *(url.set(host=one.host, port=one.port) for one in workers())):
            await stack.enter_async_context(_node_away(node))
        yield


@asynccontextmanager
async def _node_away(url: URL) -> AsyncIterator[None]:
    elsewhere = url.set(database="postgres").render_as_string(hide_password=False)
    async with await psycopg.AsyncConnection.connect(elsewhere, autocommit=True) as connection:
        await connection.execute(f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS false'.encode())
        try:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (url.database,)
            )
            yield
        finally:
            await connection.execute(f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS true'.encode())


async def test_idle_connections_that_died_are_replaced_without_an_error(caller: Caller) -> None:
    await caller.create(usage_alert("2"))
    stream = caller.stream()
    for number in range(3):
        await stream.write(Request(batch=usage_pb2.UsageBatch(events=[caller.event(f"e{number}")])))
        assert isinstance(answer := await stream.read(), alert_service_pb2.EvaluateUsageResponse)
        assert answer.outcome.accepted == 1
        assert await cut(caller) > 0
    stream.cancel()
    assert [one.transitions for one in await caller.notifications()] == [
        [ShortTransition("REACHED", "2", "1", "2", "e1")]
    ]


async def test_commit_is_repeated_when_its_connection_is_cut(caller: Caller) -> None:
    await caller.create(usage_alert("5"))
    events = [caller.event(f"e{number}", "2", customer) for customer in ("ann", "bob") for number in range(3)]
    async with ingest_held(caller):
        sending = asyncio.create_task(caller.send(*events))
        await waiting_for_locks(caller)
        await cut(caller)
        # The server repeats the commit, which waits again.
        await waiting_for_locks(caller)
    answer = await sending
    assert (answer.accepted, answer.duplicates) == (6, 0)
    assert len(answer.transitions) == 2
    again = await caller.send(*events, caller.event("last", "0", "ann"), gauges=True)
    assert (again.accepted, again.duplicates) == (1, 6)
    assert values(again.gauges) == {("ann", "calls"): 6}
    assert [one.transitions for one in await caller.notifications()] == [
        [ShortTransition("REACHED", "5", "4", "6", "e2")]
    ] * 2


async def test_calls_get_unavailable_during_a_database_outage_and_succeed_after_it(caller: Caller) -> None:
    alert = await caller.create(usage_alert("5"))
    before, during = caller.stream(), caller.stream()
    await before.write(Request(batch=usage_pb2.UsageBatch(events=[caller.event("e1", "2")])))
    assert isinstance(answer := await before.read(), alert_service_pb2.EvaluateUsageResponse)
    assert answer.outcome.accepted == 1
    await during.wait_for_connection()
    async with away(caller):
        await before.write(Request(batch=usage_pb2.UsageBatch(events=[caller.event("e2", "2")])))
        for stream in (before, during):
            await stream.write(Request(batch=usage_pb2.UsageBatch(events=[caller.event("e3", "2")])))
            answers, error = await everything(stream)
            assert not answers
            assert error is not None
            assert explained(status_of(error)) == UNAVAILABLE
        for call in (caller.send(caller.event("e4", "2")), caller.create_only(usage_alert("6"))):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert explained(status_of(refused.value)) == UNAVAILABLE

        async def not_serving() -> bool:
            return await caller.server.health_of("tidemark.v1.AlertService") == NOT_SERVING

        await until(not_serving)

    async def serving() -> bool:
        return await caller.server.health_of("tidemark.v1.AlertService") == SERVING

    await until(serving)
    # The client sends again what was not acknowledged.
    answer = await caller.send(*(caller.event(f"e{number}", "2") for number in range(1, 5)), gauges=True)
    assert (answer.accepted, answer.duplicates) == (3, 1)
    assert values(answer.gauges) == {("acme", "calls"): 8}
    assert (await caller.state(alert.alert_id)).gauges[0].gauge.value == "8"
    assert len(await caller.notifications()) == 1


@pytest.mark.parametrize(
    "engine_limits", [EngineLimits(backfills=BackfillLimits(polling_interval=0.05, retry_interval=0.05))]
)
async def test_backfill_of_an_alert_created_before_an_outage_completes_after_it(caller: Caller) -> None:
    await caller.send(caller.event("e1", "8"))
    async with ingest_held(caller):
        creating = asyncio.create_task(caller.create_only(usage_alert("5")))
        await waiting_for_locks(caller)
    alert = await creating
    async with away(caller):
        pass

    async def notified() -> bool:
        return bool(await caller.notifications())

    await until(notified)

    async def backfilled() -> bool:
        try:
            await caller.backfilled(alert.alert_id)
        except grpc.aio.AioRpcError as error:
            return error.code() is not grpc.StatusCode.UNAVAILABLE
        return True

    await until(backfilled)
    assert [one.transitions for one in await caller.notifications()] == [
        [ShortTransition("REACHED", "5", "8", "8", "")]
    ]

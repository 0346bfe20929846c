"""The statements of a call end with the call: at its deadline, when it is cancelled, and when its process hangs."""

import asyncio
from typing import Any

import grpc
import psycopg
import pytest
from sqlalchemy import text

from generated.tidemark.v1 import alert_service_pb2, alert_service_pb2_grpc
from runtime.clock import ManualClock
from runtime.configuration import Configuration
from server.limits import ServerLimits
from store.postgres import failures, sessions, statement_bounds
from store.postgres.database import Database, DatabaseUnavailable
from tests.support.server.observer import Observer
from tests.support.server.odd_service import OddClient, OddService
from tests.support.server.running import Running, reason_of, running
from tests.support.usage.caller import until

SHORT = 0.3  # seconds
LONG = 60.0  # seconds; more than a test waits

_OF_SERVERS = """
SELECT pid, query FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'tidemark%%'
"""


async def running_statements(observer: Observer, url: str) -> list[str]:
    """The statements of servers that run now."""
    rows = await observer.rows(url, _OF_SERVERS + " AND state = 'active'", {})
    return [row[1] for row in rows]


async def until_so_many_run(observer: Observer, url: str, number: int, part: str = "") -> None:
    """Waits until exactly so many statements with that text run."""

    async def running() -> bool:
        return sum(part in one for one in await running_statements(observer, url)) == number

    await until(running)


async def until_none_runs(observer: Observer, url: str) -> None:
    """Waits until no statement of a server runs."""
    await until_so_many_run(observer, url, 0)


async def connections(observer: Observer, url: str) -> set[int]:
    """The backends of the main pools of servers."""
    rows = await observer.rows(url, _OF_SERVERS, {})
    return {row[0] for row in rows}


async def code_of(call: Any) -> grpc.StatusCode:
    """The code with which a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code()


@pytest.mark.parametrize("method", ["SleepInDatabase", "SleepInPipeline"])
async def test_a_statement_ends_at_the_deadline_of_its_call_and_its_connection_is_used_again(
    odd_server: Running, odd: OddClient, database: Database, method: str
) -> None:
    observer, url = odd_server.observer, database.url
    assert await odd.unary("ShowTimeout")("x")
    before = await connections(observer, url)
    for _ in range(3):
        assert await code_of(odd.unary(method)("x", timeout=SHORT)) is grpc.StatusCode.DEADLINE_EXCEEDED
        await until_none_runs(observer, url)
        assert await odd.unary("ShowTimeout")("x", timeout=LONG)
    if method == "SleepInDatabase":
        assert await connections(observer, url) == before


async def test_statements_of_many_calls_that_end_at_their_deadlines_leave_the_connections_to_the_next_ones(
    odd_server: Running, odd: OddClient, database: Database
) -> None:
    calls = [code_of(odd.unary("SleepInDatabase")("x", timeout=SHORT)) for _ in range(40)]
    assert set(await asyncio.gather(*calls)) == {grpc.StatusCode.DEADLINE_EXCEEDED}
    await until_none_runs(odd_server.observer, database.url)
    await asyncio.gather(*(odd.unary("ShowTimeout")("x", timeout=LONG) for _ in range(20)))


async def test_a_statement_ends_when_its_call_is_cancelled(
    odd_server: Running, odd: OddClient, database: Database
) -> None:
    call = odd.unary("SleepInDatabase")("x", timeout=LONG)
    await until_so_many_run(odd_server.observer, database.url, 1, "pg_sleep")
    call.cancel()
    await until_none_runs(odd_server.observer, database.url)
    assert await odd.unary("ShowTimeout")("x", timeout=LONG)


async def test_a_statement_ends_when_its_stream_is_cancelled(
    odd_server: Running, odd: OddClient, database: Database
) -> None:
    stream = odd.stream("SleepInDatabaseStream")()
    await stream.write("x")
    await until_so_many_run(odd_server.observer, database.url, 1, "pg_sleep")
    stream.cancel()
    await until_none_runs(odd_server.observer, database.url)
    assert await odd.unary("ShowTimeout")("x", timeout=LONG)


async def test_a_statement_of_a_call_without_a_deadline_ends_at_the_default(
    database: Database, clock: ManualClock, odd_service: OddService, server_limits: ServerLimits
) -> None:
    configuration = Configuration(listen_port=0, propagation_delay=0.0, unary_deadline=SHORT)
    async with running(database, clock, odd_service.register, configuration, server_limits=server_limits) as server:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await OddClient(server.channel).unary("SleepInDatabase")("x")
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert reason_of(raised.value) == "ERROR_REASON_DEADLINE_EXCEEDED"
        await until_none_runs(server.observer, database.url)


async def test_a_statement_goes_on_when_a_call_of_another_server_ends(
    odd_server: Running, odd: OddClient, database: Database, clock: ManualClock, server_limits: ServerLimits
) -> None:
    observer, url, other_pool = odd_server.observer, database.url, Database(database.url)
    try:
        async with running(other_pool, clock, OddService().register, server_limits=server_limits) as other:
            long = OddClient(other.channel).unary("SleepInDatabase")("x", timeout=LONG)
            await until_so_many_run(observer, url, 1, "pg_sleep")
            assert await code_of(odd.unary("SleepInDatabase")("x", timeout=SHORT)) is (
                grpc.StatusCode.DEADLINE_EXCEEDED
            )
            await until_so_many_run(observer, url, 1, "pg_sleep")
            assert not long.done()
            long.cancel()
            await until_none_runs(observer, url)
    finally:
        await other_pool.close()


async def test_a_read_that_waits_for_a_locked_table_ends_at_its_deadline(api: Running, database: Database) -> None:
    alerts = alert_service_pb2_grpc.AlertServiceStub(api.channel)
    request = alert_service_pb2.GetAlertRequest(alert_id="alt_unknown")
    assert await code_of(alerts.GetAlert(request, timeout=LONG)) is grpc.StatusCode.NOT_FOUND
    async with await psycopg.AsyncConnection.connect(database.url) as holder:
        await holder.execute("LOCK TABLE alert")
        assert await code_of(alerts.GetAlert(request, timeout=SHORT)) is grpc.StatusCode.DEADLINE_EXCEEDED
        await until_so_many_run(api.observer, database.url, 0, "FROM alert")
    assert await code_of(alerts.GetAlert(request, timeout=LONG)) is grpc.StatusCode.NOT_FOUND


async def test_postgresql_knows_the_deadline_of_a_call(odd: OddClient) -> None:
    shown = await odd.unary("ShowTimeout")("x", timeout=20.0)
    assert 1_000 < int(shown) <= (20.0 + statement_bounds.MARGIN) * 1_000
    assert await odd.unary("ShowTimeout")("x", timeout=100_000.0) == str(sessions.STATEMENT_TIMEOUT * 1_000)


async def test_postgresql_ends_the_statement_of_a_task_that_is_not_cancelled(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the process hangs: nothing in it cancels the statement."""
    monkeypatch.setattr(statement_bounds, "MARGIN", 0.1)

    async def work() -> None:
        statement_bounds.bound_statements(0.2)
        async with database.transaction() as connection:
            await connection.execute(text("SELECT pg_sleep(3600)"))

    with pytest.raises(DatabaseUnavailable) as raised:
        await asyncio.create_task(work())
    assert raised.value.failure is failures.STATEMENT_CANCELED
    async with database.transaction() as connection:
        assert await connection.scalar(text("SHOW statement_timeout")) == "15min"


async def test_a_task_that_a_call_creates_has_the_time_of_its_session(database: Database) -> None:
    async def shown() -> str:
        async with database.transaction() as connection:
            return str(await connection.scalar(text("SHOW statement_timeout")))

    async def call() -> tuple[str, str]:
        statement_bounds.bound_statements(5.0)
        return await shown(), await asyncio.create_task(shown())

    own, created = await asyncio.create_task(call())
    assert own != "15min"
    assert created == "15min"


async def test_a_reading_statement_is_its_own_transaction(database: Database) -> None:
    one_connection = Database(database.url, pool_size=1)
    number = text("SELECT pg_current_xact_id()::text")
    try:
        async with one_connection.reading() as connection:
            first, second = await connection.scalar(number), await connection.scalar(number)
        async with one_connection.transaction() as connection:  # the same connection begins transactions again
            third, fourth = await connection.scalar(number), await connection.scalar(number)
    finally:
        await one_connection.close()
    assert first != second
    assert third == fourth


async def test_a_reading_statement_that_a_call_bounds_has_a_time(database: Database) -> None:
    async def shown() -> str:
        statement_bounds.bound_statements(5.0)
        async with database.reading() as connection:
            return str(await connection.scalar(text("SHOW statement_timeout")))

    assert await asyncio.create_task(shown()) != "15min"
    async with database.reading() as connection:
        assert await connection.scalar(text("SHOW statement_timeout")) == "15min"

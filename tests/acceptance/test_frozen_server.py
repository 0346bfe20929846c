"""A server that is frozen in a transaction delays other servers for seconds, and corrupts nothing."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from generated.tidemark.v1 import usage_pb2
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageBatchRequest, EvaluateUsageBatchResponse
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.usage_pb2 import UsageEvent
from tests.support.processes import results
from tests.support.processes.programs import DEADLINE, Program, Programs, session, until_counted
from tests.support.processes.results import ALERTS, for_all_customers
from tests.support.processes.traffic import BATCH, usage

# What a test locks. A server that waited for a gauge lies between two statements when it has the lock; one that
# waited for the table of events is in a COPY, and waits for the data.
GAUGES = "SELECT * FROM gauge FOR UPDATE"
EVENTS = "LOCK TABLE event IN ACCESS EXCLUSIVE MODE"
WAITING = """
SELECT CAST(count(*) > 0 AS integer) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name LIKE '%:{pid}'
"""
HOLDING = """
SELECT CAST(count(*) > 0 AS integer) FROM pg_stat_activity JOIN pg_locks USING (pid)
WHERE datname = current_database() AND application_name LIKE '%:{pid}'
  AND locktype = 'advisory' AND granted AND wait_event_type = 'Client'
"""
TRIES = 20  # to freeze a server at that very moment; what it waits for is given up after seconds


async def send(server: Program, events: list[UsageEvent]) -> EvaluateUsageBatchResponse:
    """Sends a batch, with all the time that the answer may take."""
    async with server.address.channel() as channel:
        request = EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=events))
        answer: EvaluateUsageBatchResponse = await AlertServiceStub(channel).EvaluateUsageBatch(
            request, timeout=DEADLINE
        )
        return answer


@asynccontextmanager
async def frozen(url: str, server: Program, blocking: str, begin: Callable[[], None]) -> AsyncIterator[None]:
    """Inside the block a server that writes is frozen, and its session holds the organization and what it wrote.

    `begin` begins a batch for the server to write, unless the one before is not answered yet.
    """
    for _ in range(TRIES):
        async with session(url, autocommit=False) as connection:
            await connection.execute(blocking.encode())
            begin()  # only now: a batch that was quick enough would wait for nothing
            await until_counted(url, WAITING.format(pid=server.pid), 1)
            os.kill(server.pid, signal.SIGSTOP)
        # Its session gets the lock now, unless the wait for it has just been given up.
        await until_counted(url, WAITING.format(pid=server.pid), 0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await until_counted(url, HOLDING.format(pid=server.pid), 1)
                break
        os.kill(server.pid, signal.SIGCONT)
    else:
        pytest.fail("it was never frozen with the lock")
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize("blocking", [GAUGES, EVENTS], ids=["between statements", "in a COPY"])
async def test_other_servers_resume_while_a_server_is_frozen_in_a_transaction(
    programs: Programs, database_url: str, blocking: str
) -> None:
    # One writer, so that one session of the server has something to write.
    one, other = await asyncio.gather(
        programs.serve("one", INGEST_WRITERS="1"), programs.serve("other", INGEST_WRITERS="1")
    )
    await results.create(one.address, *ALERTS)
    batches = usage("frozen", datetime.now(UTC))
    first, meanwhile = next(batches), next(batches)
    await send(one, first)
    calls: list[tuple[list[UsageEvent], asyncio.Task[EvaluateUsageBatchResponse]]] = []

    def begin() -> None:
        if not calls or calls[-1][1].done():
            events = next(batches)
            calls.append((events, asyncio.create_task(send(one, events))))

    async with frozen(database_url, one, blocking, begin):
        # A change of the rules needs the organization to itself, and usage the same gauges.
        later = for_all_customers("later", ("usage", "calls"), "3")
        await asyncio.gather(results.create(other.address, later, timeout=DEADLINE), send(other, meanwhile))
        said = [line for line in other.said().splitlines() if "waiting for a lock" in line]
        assert any(f":{one.pid}" in line for line in said)
    # The frozen server finds its transaction aborted and repeats it, once.
    for events, call in calls:
        assert (await call).outcome.accepted == BATCH
        assert (await send(other, events)).outcome.duplicates == BATCH
    await results.evaluated(other.address)
    sent = [*first, *(event for events, _ in calls for event in events), *meanwhile]
    assert await results.stored(database_url) == results.expected(sent, *ALERTS, later)
    for server in (one, other):
        assert await server.stop() == 0
        assert server.complaints() == []

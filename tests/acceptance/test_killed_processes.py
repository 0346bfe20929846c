"""`kill -9` during a stream and during a delivery: no event is lost, and none counts twice."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from aiohttp import web

from runtime.clock import SystemClock
from store.postgres.database import Database
from tests.support.notifier.house import House
from tests.support.notifier.receiver import Arrival, Receiver, hang, status
from tests.support.processes import results
from tests.support.processes.programs import DEADLINE, Programs, session, until_counted
from tests.support.processes.results import ALERTS, SEATS
from tests.support.processes.traffic import BATCH, Client, progress, streaming, usage
from tests.support.webhooks.endpoints import create_endpoint
from webhooks.deliveries import DeliveryStatus

KILLS = 2
# Another notifier claims the deliveries of a dead one when their lease, a little more than the timeout, ends.
SHORT_LEASES = {"WEBHOOK_TIMEOUT_SECONDS": "0.3"}
WAITING_FOR_TABLE = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{table}'::regclass"
WAITING_IN_COMMIT = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query = 'COMMIT'
"""
CONNECTED = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name ~ '^tidemark [^ ]+$'
"""
# Each COMMIT of a transaction with a notification waits for the session that holds the lock.
WAIT_IN_COMMIT = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION wait();
"""


@asynccontextmanager
async def holding(url: str, statement: str) -> AsyncIterator[None]:
    """Holds the lock that the statement takes, inside the block."""
    async with session(url, autocommit=False) as connection:
        await connection.execute(statement.encode())
        yield


@pytest.mark.parametrize("native", ["true", "false"])
async def test_a_server_killed_during_a_stream_loses_no_event_and_counts_none_twice(
    programs: Programs, database_url: str, native: str
) -> None:
    server = await programs.serve(NATIVE=native)
    await results.create(server.address, *ALERTS, SEATS)
    async with streaming(server.address, 3, datetime.now(UTC)) as clients:
        for _ in range(KILLS):
            await progress(clients)
            await server.killed()
            await server.start()
        await progress(clients)
    assert all(len(client.interruptions) >= KILLS for client in clients)
    sent = [event for client in clients for event in client.sent]
    assert await results.stored(database_url) == results.expected(sent, *ALERTS, SEATS)
    assert await server.stop() == 0
    assert server.complaints() == []


async def test_a_server_killed_before_its_commit_stores_no_event(programs: Programs, database_url: str) -> None:
    server = await programs.serve(INGEST_WRITERS="1")
    await results.create(server.address, *ALERTS)
    client = Client("client", server.address)
    async with asyncio.TaskGroup() as group:
        async with holding(database_url, "LOCK TABLE event IN EXCLUSIVE MODE"):
            group.create_task(client.send(itertools.islice(usage("client", datetime.now(UTC)), 1)))
            await until_counted(database_url, WAITING_FOR_TABLE.format(table="event"), 1)
            await server.killed()
        await until_counted(database_url, CONNECTED, 0)
        assert await results.stored(database_url) == results.expected([])
        await server.start()
    assert (client.accepted, client.duplicates) == (BATCH, 0)
    assert await results.stored(database_url) == results.expected(client.sent, *ALERTS)
    assert results.reached_in(client.transitions) == results.expected(client.sent, *ALERTS).reached


async def test_events_of_a_server_killed_before_its_acknowledgement_are_duplicates_when_sent_again(
    programs: Programs, database_url: str
) -> None:
    server = await programs.serve(INGEST_WRITERS="1")
    await results.create(server.address, *ALERTS)
    async with session(database_url) as connection:
        await connection.execute(WAIT_IN_COMMIT.encode())
    client = Client("client", server.address)
    async with asyncio.TaskGroup() as group:
        async with holding(database_url, "SELECT pg_advisory_xact_lock(1)"):
            group.create_task(client.send(itertools.islice(usage("client", datetime.now(UTC)), 1)))
            await until_counted(database_url, WAITING_IN_COMMIT, 1)
            await server.killed()
        # PostgreSQL completes the COMMIT although the server is gone.
        await until_counted(database_url, CONNECTED, 0)
        expected = results.expected(client.sent, *ALERTS)
        assert await results.stored(database_url) == expected
        await server.start()
    assert (client.accepted, client.duplicates) == (0, BATCH)
    assert client.transitions == []
    assert await results.stored(database_url) == expected
    # The client missed the transitions in the acknowledgement; the outbox holds their notifications.
    await until_counted(database_url, "SELECT count(*) FROM outbox", len(await results.notifications(database_url)))


async def killed_at_an_arrival(programs: Programs, receiver: Receiver) -> list[str]:
    """Kills a notifier that waits for an answer; returns the ids of those webhooks."""
    notifier = await programs.notify("notifier-1", **SHORT_LEASES)
    unheard: list[str] = []
    killed = asyncio.Event()

    async def kill(arrival: Arrival) -> web.StreamResponse:
        notifier.kill()
        unheard.append(arrival.webhook_id)
        killed.set()
        return await hang(asyncio.Event())(arrival)

    receiver.answer(*[status(204)] * 6, kill)
    async with asyncio.timeout(DEADLINE):
        await killed.wait()
    await notifier.killed()
    return unheard


async def killed_before_the_record(programs: Programs, receiver: Receiver, url: str) -> list[str]:
    """Kills a notifier before it records its answers; returns the ids of the answered webhooks."""
    before = len(receiver.arrivals)
    async with holding(url, "LOCK TABLE attempt IN EXCLUSIVE MODE"):
        notifier = await programs.notify("notifier-2", **SHORT_LEASES)
        await until_counted(url, WAITING_FOR_TABLE.format(table="attempt"), 1)
        await notifier.killed()
    return [arrival.webhook_id for arrival in receiver.arrivals[before:]]


async def test_killed_notifiers_deliver_each_notification_under_one_id(
    programs: Programs, database_url: str, receiver: Receiver
) -> None:
    server = await programs.serve()
    await results.create(server.address, *ALERTS, SEATS)
    async with server.address.channel() as channel:
        secret = await create_endpoint(channel, receiver.url)
    client = Client("client", server.address)
    await client.send(itertools.islice(usage("client", datetime.now(UTC)), 40))
    written = await results.notifications(database_url)

    unheard = await killed_at_an_arrival(programs, receiver)
    unheard += await killed_before_the_record(programs, receiver, database_url)
    last = await programs.notify("notifier-last")
    database = Database(database_url, pool_size=1)
    house = await House.build(database, SystemClock())
    await house.settled(DeliveryStatus.DELIVERED, len(written))
    await database.close()

    results.check_arrivals(receiver.arrivals, secret, written)
    arrived = Counter(receiver.ids())
    assert arrived.keys() == written.keys()
    assert all(arrived[notification_id] > 1 for notification_id in unheard)
    assert await last.stop() == 0
    assert last.complaints() == []

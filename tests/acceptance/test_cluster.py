"""Two servers and a notifier on a named cluster: exact, also with workers that are killed, frozen, added and removed,
and with shards that move.

A worker is killed for all databases on it: only one test run at a time can use the cluster.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import grpc
import pytest

from generated.tidemark.v1 import usage_pb2
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageBatchRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.notification_pb2 import Notification
from generated.tidemark.v1.usage_pb2 import UsageEvent
from tests.support.databases import Template
from tests.support.notifier.receiver import Receiver
from tests.support.postgres.nodes import workers
from tests.support.postgres.standby import synchronous_standby
from tests.support.postgres.worker_node import (
    WorkerNode,
    customers_by_node,
    give_shards,
    move_away,
    sessions_at,
    take_shards_away,
)
from tests.support.processes import results
from tests.support.processes.following import followed, following
from tests.support.processes.outage import NO_ANSWER, everything_arrived
from tests.support.processes.programs import DEADLINE, Program, Programs, until
from tests.support.processes.results import ALERTS, SEATS
from tests.support.processes.traffic import CUSTOMERS, Client, progress, streaming
from tests.support.server.running import reason_of
from tests.support.webhooks.endpoints import create_endpoint

pytestmark = [
    pytest.mark.skipif(
        not workers(), reason="no cluster is named: set TIDEMARK_TEST_DATABASE_URL and TIDEMARK_TEST_CITUS_WORKERS"
    ),
    pytest.mark.time_limit(240),
]

DEADLOCK = "failure=deadlock"
UNAVAILABLE = "UNAVAILABLE ERROR_REASON_DATABASE_UNAVAILABLE"  # how a probe fails
FAULTS = 2  # of each test
CLIENTS = 2  # of each server; those of different servers share all customers, and some of their events


@dataclass
class Deployment:
    """Two servers, a notifier and a follower of the feed.

    clients: those that stream. probes: events that were accepted beside theirs.
    """

    servers: list[Program]
    notifier: Program
    feed: list[Notification]
    secret: str
    clients: list[Client]
    probes: list[UsageEvent] = field(default_factory=list)


@asynccontextmanager
async def streaming_to_two(programs: Programs, url: str, receiver: Receiver) -> AsyncIterator[Deployment]:
    """Streams to both servers for as long as the block lasts; then totals, states, webhooks and the feed are exact.

    The first client of each server sends the same events as that of the other server.
    """
    servers = list(await asyncio.gather(programs.serve("server-1"), programs.serve("server-2")))
    notifier = await programs.notify()
    await results.create(servers[0].address, *ALERTS, SEATS)
    async with servers[0].address.channel() as channel:
        secret = await create_endpoint(channel, receiver.url)
    now = datetime.now(UTC)
    async with following(servers[1].address) as feed:
        clients: list[Client] = []
        async with AsyncExitStack() as exits:
            for server, prefix in zip(servers, ("first", "second"), strict=True):
                for number, name in ((1, "shared"), (CLIENTS - 1, prefix)):
                    clients += await exits.enter_async_context(streaming(server.address, number, now, name))
            running = Deployment(servers, notifier, feed, secret, clients)
            yield running
        sent = [event for client in clients for event in client.sent]
        assert sum(client.acknowledged for client in clients) == len(sent)
        sent += running.probes
        assert await results.stored(url) == results.expected(sent, *ALERTS, SEATS)
        assert await results.stored_states(url) == results.expected_states(sent, *ALERTS, SEATS)
        await everything_arrived(url, receiver, secret)
        await followed(feed, await results.notifications(url))
    for program in (*servers, notifier):
        assert await program.stop() == 0


def complaints(program: Program) -> list[str]:
    """What a program complained of, beside a worker that is not usable and transactions that are tried again.

    Two servers that share customers lock rows shard by shard, so on a cluster their transactions can deadlock.
    """
    return [line for line in program.complaints() if NO_ANSWER not in line and DEADLOCK not in line]


async def probe(running: Deployment, number: int, customer_id: str) -> str:
    """Sends an event of the customer to one of the servers; returns why it failed, empty if it did not."""
    event = UsageEvent(event_id=f"probe-{number}", customer_id=customer_id, metric_id="probes", quantity="1")
    event.event_time.FromDatetime(datetime.now(UTC))
    request = EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=[event]))
    async with running.servers[number % 2].address.channel() as channel:
        try:
            answer = await AlertServiceStub(channel).EvaluateUsageBatch(
                request, timeout=DEADLINE, wait_for_ready=True
            )
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} {reason_of(error)}"
    assert answer.outcome.accepted == 1
    running.probes.append(event)
    return ""


async def test_two_servers_that_share_customers_are_exact(
    programs: Programs, database_url: str, receiver: Receiver
) -> None:
    async with streaming_to_two(programs, database_url, receiver) as running:
        await progress(running.clients, 20)
    assert [client.interruptions for client in running.clients] == [[]] * len(running.clients)
    assert [complaints(one) for one in (*running.servers, running.notifier)] == [[], [], []]


async def test_shards_moved_during_streams_lose_nothing(
    programs: Programs, database_url: str, receiver: Receiver
) -> None:
    async with streaming_to_two(programs, database_url, receiver) as running:
        await progress(running.clients, 5)
        for _ in range(FAULTS):
            for customers in customers_by_node(database_url, list(CUSTOMERS)).values():
                await asyncio.to_thread(move_away, database_url, customers[0])
                await progress(running.clients, 5)


async def test_a_worker_killed_during_streams_stops_its_own_customers_only_and_loses_nothing(
    programs: Programs, database_url: str, receiver: Receiver, template: Template
) -> None:
    node, other = workers()
    placed = customers_by_node(database_url, list(CUSTOMERS))
    worker = WorkerNode(node, template.nodes.url_on(node))
    async with streaming_to_two(programs, database_url, receiver) as running:
        for number in range(0, 2 * FAULTS, 2):
            await progress(running.clients, 5)
            await worker.crash()
            try:
                gone = [await probe(running, 2 * number + one, placed[node][one]) for one in range(2)]
                there = [await probe(running, 2 * number + 2 + one, placed[other][one]) for one in range(2)]
            finally:
                await worker.start()
                template.nodes.connect_again()
            assert gone == [UNAVAILABLE] * 2
            assert there == ["", ""]
        await progress(running.clients, 5)
    assert all(client.interruptions for client in running.clients)
    assert [complaints(one) for one in (*running.servers, running.notifier)] == [[], [], []]


async def test_a_frozen_worker_stops_its_own_customers_only(
    programs: Programs, database_url: str, receiver: Receiver, template: Template
) -> None:
    """Its connections stay open, so nothing says that it is away, and its commits wait."""
    node, other = workers()
    placed = customers_by_node(database_url, list(CUSTOMERS))
    worker = WorkerNode(node, template.nodes.url_on(node))
    async with streaming_to_two(programs, database_url, receiver) as running:
        await progress(running.clients, 5)
        # Then both servers know the metric, whose registration would wait for all workers.
        assert [await probe(running, 200 + number, placed[other][0]) for number in range(4)] == [""] * 4
        with worker.frozen():
            # Each server has more commits for that worker than seats.
            waiting = [
                asyncio.create_task(probe(running, number, placed[node][number % len(placed[node])]))
                for number in range(4 * CLIENTS)
            ]
            there = [await probe(running, 100 + number, placed[other][0]) for number in range(4)]
        assert there == [""] * 4
        # A new connection to it is given up, an open one is not.
        assert set(await asyncio.gather(*waiting)) <= {"", UNAVAILABLE}
        await progress(running.clients, 5)


async def test_a_server_starts_while_a_worker_is_away_and_serves_the_others(
    programs: Programs, database_url: str, receiver: Receiver, template: Template
) -> None:
    node, other = workers()
    placed = customers_by_node(database_url, list(CUSTOMERS))
    worker = WorkerNode(node, template.nodes.url_on(node))
    async with streaming_to_two(programs, database_url, receiver) as running:
        await progress(running.clients, 5)
        await worker.crash()
        try:
            assert await running.servers[1].stop() == 0
            await running.servers[1].start()
            there = [await probe(running, number, placed[other][number // 2]) for number in range(4)]
            gone = await probe(running, 5, placed[node][0])
        finally:
            await worker.start()
            template.nodes.connect_again()
        assert there == [""] * 4
        assert gone == UNAVAILABLE
        await progress(running.clients, 5)


async def test_workers_are_added_and_removed_during_streams(
    programs: Programs, database_url: str, receiver: Receiver, template: Template
) -> None:
    """The servers start when one worker has all shards, and commit at the other one as soon as that has some."""
    first, added = workers()
    await asyncio.to_thread(take_shards_away, database_url, added)
    async with streaming_to_two(programs, database_url, receiver) as running:
        await progress(running.clients, 5)
        assert sessions_at(template.nodes.url_on(added), database_url) == 0
        await asyncio.to_thread(give_shards, database_url, added)
        await until(
            lambda: sessions_at(template.nodes.url_on(added), database_url) >= len(running.servers),
            "commits of both servers at the new worker",
        )
        await progress(running.clients, 5)
        await asyncio.to_thread(take_shards_away, database_url, first)
        await progress(running.clients, 5)
        assert set(customers_by_node(database_url, list(CUSTOMERS))) == {added}
    assert [client.interruptions for client in running.clients] == [[]] * len(running.clients)


async def test_a_standby_that_takes_over_for_a_worker_stops_its_own_customers_only_and_loses_nothing(
    programs: Programs, database_url: str, receiver: Receiver, template: Template
) -> None:
    """At another address, and no server or notifier is started again."""
    node, other = workers()
    placed = customers_by_node(database_url, list(CUSTOMERS))
    worker = WorkerNode(node, template.nodes.url_on(node))
    async with synchronous_standby(worker) as standby, streaming_to_two(programs, database_url, receiver) as running:
        await progress(running.clients, 5)
        await worker.crash()
        gone = [await probe(running, one, placed[node][one]) for one in range(2)]
        there = [await probe(running, 2 + one, placed[other][one]) for one in range(2)]
        await standby.promote()
        await asyncio.to_thread(standby.replace, database_url, node)
        await progress(running.clients, 5)
        await until(
            lambda: sessions_at(standby.url(database_url), database_url) >= len(running.servers),
            "commits of both servers at the standby",
        )
        await progress(running.clients, 5)
    template.nodes.connect_again()
    assert gone == [UNAVAILABLE] * 2
    assert there == ["", ""]
    assert [complaints(one) for one in (*running.servers, running.notifier)] == [[], [], []]

"""Two servers on one database, with the same customers: every total is exact, every transition is recorded once."""

import asyncio
import itertools
import random
from collections import Counter
from datetime import UTC, datetime

from generated.tidemark.v1.usage_pb2 import UsageEvent
from server.alerts.usage_requests import HAS_NATIVE_DECODER
from tests.support.processes import results
from tests.support.processes.programs import Programs, session
from tests.support.processes.results import ALERTS, BY_LABEL, SEATS
from tests.support.processes.traffic import Client, acknowledged, usage

BATCHES = 80  # of one client
SHARED = 2  # every second batch of a pair of clients is sent by both


def paired(number: int, now: datetime) -> tuple[list[list[UsageEvent]], list[list[UsageEvent]]]:
    """The batches of two clients: both send some batches, with the same events in another order."""
    rng = random.Random(number)
    first = list(itertools.islice(usage(f"first-{number}", now), BATCHES))
    second = list(itertools.islice(usage(f"second-{number}", now), BATCHES))
    for position in range(0, BATCHES, SHARED):
        second[position] = rng.sample(first[position], len(first[position]))
    return first, second


async def test_two_servers_with_the_same_customers_count_exactly_and_record_each_transition_once(
    programs: Programs, database_url: str
) -> None:
    # One decodes usage natively, where that is compiled, and the other one in Python.
    servers = await asyncio.gather(programs.serve("server-1"), programs.serve("server-2", NATIVE="false"))
    await results.create(servers[0].address, *ALERTS, SEATS)
    now = datetime.now(UTC)
    clients: list[Client] = []
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            for server, batches in zip(servers, paired(number, now), strict=True):
                client = Client(f"{server.pid}-{number}", server.address)
                clients.append(client)
                group.create_task(client.send(batches))
        for number, alert in enumerate(BY_LABEL):
            await acknowledged(clients, number * 10)
            # Usage through one server is evaluated with alerts created through the other.
            await results.create(servers[number % 2].address, alert)
    await results.evaluated(servers[1].address)

    assert [client.interruptions for client in clients] == [[]] * len(clients)
    sent = [event for client in clients for event in client.sent]
    expected, found = results.expected(sent, *ALERTS, SEATS, *BY_LABEL), await results.stored(database_url)
    assert found == expected
    assert sum(client.accepted for client in clients) == expected.events
    assert sum(client.duplicates for client in clients) == len(sent) - expected.events

    answered = sum((results.reached_in(client.transitions) for client in clients), Counter())
    # A backfill evaluates gauges too; its transitions are in no answer.
    assert answered <= expected.reached
    assert {one.alert for one in expected.reached - answered} <= {alert.name for alert in BY_LABEL}

    decoders = ["native" if HAS_NATIVE_DECODER else "python", "python"]
    assert all(f"usage_decoder={decoder}" in one.said() for one, decoder in zip(servers, decoders, strict=True))
    assert [await server.stop() for server in servers] == [0, 0]
    assert [server.complaints() for server in servers] == [[], []]
    async with session(database_url) as connection:
        cursor = await connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert await cursor.fetchall() == [(0,)]

"""The database is away during streams: calls get UNAVAILABLE, no acknowledged event is lost, and streams resume."""

from datetime import UTC, datetime
from pathlib import Path

from generated.tidemark.v1 import usage_pb2
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageBatchRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.usage_pb2 import UsageEvent
from tests.support.notifier.receiver import Receiver
from tests.support.processes import results
from tests.support.processes.outage import Health, at_work, everything_arrived, refused
from tests.support.processes.postgres import OwnServer
from tests.support.processes.programs import DEADLINE, Programs, running, session
from tests.support.processes.results import ALERTS, SEATS
from tests.support.processes.traffic import BATCH, progress, streaming, usage
from tests.support.server.running import NOT_SERVING, SERVING

STORMS = 5
CUTS = 10  # of one storm, without a pause between them: what is tried again is cut again
EVERY_CONNECTION = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


async def test_streams_resume_after_the_database_stops_and_after_it_crashes(
    postgres: OwnServer, receiver: Receiver, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    tries = usage("tries", now)
    async with (
        running(postgres.url, tmp_path) as programs,
        at_work(programs, receiver) as (server, secret),
        server.address.channel() as channel,
    ):
        health = Health(channel)
        await health.becomes(SERVING)
        sent: list[UsageEvent] = []
        async with streaming(server.address, 2, now) as clients:
            for goes_away in (postgres.stop, postgres.crash):
                await progress(clients)
                await goes_away()
                await health.becomes(NOT_SERVING)
                assert await health.lives()
                events = next(tries)
                await refused(channel, events)
                await postgres.start()
                await health.becomes(SERVING)
                request = EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=events))
                answer = await AlertServiceStub(channel).EvaluateUsageBatch(request, timeout=DEADLINE)
                assert answer.outcome.accepted == BATCH
                sent += events
                await progress(clients)
        assert all(len(client.interruptions) >= 2 for client in clients)
        sent += [event for client in clients for event in client.sent]
        assert await results.stored(postgres.url) == results.expected(sent, *ALERTS, SEATS)
        await everything_arrived(postgres.url, receiver, secret)


async def test_streams_resume_after_their_database_connections_are_cut(
    programs: Programs, database_url: str, receiver: Receiver
) -> None:
    async with at_work(programs, receiver) as (server, secret), session(database_url) as connection:
        async with streaming(server.address, 3, datetime.now(UTC)) as clients:
            for _ in range(STORMS):
                await progress(clients, 4)
                for _ in range(CUTS):
                    await connection.execute(EVERY_CONNECTION.encode())
            await progress(clients)
        sent = [event for client in clients for event in client.sent]
        assert await results.stored(database_url) == results.expected(sent, *ALERTS, SEATS)
        await everything_arrived(database_url, receiver, secret)

"""A failover leaves the old primary up as a standby: writes are refused until the database accepts them."""

from datetime import UTC, datetime
from pathlib import Path

from generated.tidemark.v1 import usage_pb2
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageBatchRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from tests.support.notifier.receiver import Receiver
from tests.support.processes import results
from tests.support.processes.outage import Health, at_work, everything_arrived, refused
from tests.support.processes.postgres import OwnServer
from tests.support.processes.programs import DEADLINE, running, session, until
from tests.support.processes.results import ALERTS
from tests.support.processes.traffic import BATCH, progress, streaming, usage
from tests.support.server.running import NOT_SERVING, SERVING


async def test_a_server_refuses_writes_on_a_standby_and_resumes_after_its_promotion(
    postgres: OwnServer, receiver: Receiver, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    events = next(usage("tries", now))
    async with (
        running(postgres.url, tmp_path) as programs,
        at_work(programs, receiver) as (server, secret),
        server.address.channel() as channel,
    ):
        health = Health(channel)
        await health.becomes(SERVING)
        async with streaming(server.address, 2, now) as clients:
            await progress(clients)
            await postgres.stop()
            await postgres.start(standby=True)
            await health.becomes(NOT_SERVING)
            # A standby answers reads, so a check that only reads would find no fault.
            await until(lambda: "takes no writes" in server.said())
            await refused(channel, events, failure="read_only", seconds=2)
            assert await health.lives()
            async with session(postgres.url) as connection:
                await connection.execute("SELECT pg_promote()")
            await health.becomes(SERVING)
            await progress(clients)
            request = EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=events))
            answer = await AlertServiceStub(channel).EvaluateUsageBatch(request, timeout=DEADLINE)
            assert answer.outcome.accepted == BATCH
        sent = [*events, *(event for client in clients for event in client.sent)]
        assert await results.stored(postgres.url) == results.expected(sent, *ALERTS, results.SEATS)
        await everything_arrived(postgres.url, receiver, secret)


async def test_a_server_refuses_writes_while_the_database_is_read_only_and_resumes_after_it(
    postgres: OwnServer, receiver: Receiver, tmp_path: Path
) -> None:
    """An old primary is fenced off so: open sessions stay open, and each write is refused."""
    now = datetime.now(UTC)
    async with (
        running(postgres.url, tmp_path) as programs,
        at_work(programs, receiver) as (server, secret),
        server.address.channel() as channel,
        session(postgres.url) as administrator,
    ):
        health = Health(channel)
        await health.becomes(SERVING)
        async with streaming(server.address, 2, now) as clients:
            await progress(clients)
            await administrator.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            await administrator.execute("SELECT pg_reload_conf()")
            await health.becomes(NOT_SERVING)
            await refused(channel, next(usage("tries", now)), failure="read_only", seconds=2)
            await administrator.execute("SET default_transaction_read_only = off")
            await administrator.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await administrator.execute("SELECT pg_reload_conf()")
            await health.becomes(SERVING)
            await progress(clients)
        sent = [event for client in clients for event in client.sent]
        assert await results.stored(postgres.url) == results.expected(sent, *ALERTS, results.SEATS)
        await everything_arrived(postgres.url, receiver, secret)

"""`tidemark watch --notifications`: each notification once, also when the server drains in between."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from cli.client.connection import Address
from cli.main import tidemark
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import condition_pb2, threshold_pb2, usage_pb2
from generated.tidemark.v1.alert_pb2 import Alert
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.scope_pb2 import AlertScope, AllCustomersScope
from generated.tidemark.v1.usage_pb2 import UsageEvent
from runtime.clock import ManualClock
from runtime.configuration import Configuration
from server.calls.validation import to_timestamp
from store.postgres.database import Database
from tests.support.processes.forked import started
from tests.support.server.running import Running, running
from tidemark_client.watch.stream import NotificationStream

TIMEOUT = 60.0  # seconds for anything to happen


class Usage:
    """Usage of one call after the other, each of which reaches a step of one alert."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._number = 0

    async def watched(self, server: Running) -> str:
        """Creates the alert; returns its id."""
        alert = Alert(
            display_name="calls",
            scope=AlertScope(all_customers=AllCustomersScope()),
            usage_threshold_reached=condition_pb2.UsageThresholdReachedCondition(metric_id="calls"),
            thresholds=[threshold_pb2.Threshold(recurring_step="1")],
        )
        created = await AlertServiceStub(server.channel).CreateAlert(messages.CreateAlertRequest(alert=alert))
        return created.alert.alert_id

    async def reaches_a_step(self, server: Running) -> str:
        """Sends an event; returns the id of the notification."""
        self._number += 1
        event = UsageEvent(
            event_id=f"e{self._number}",
            customer_id="acme",
            metric_id="calls",
            quantity="1",
            event_time=to_timestamp(self._clock.now()),
        )
        answer = await AlertServiceStub(server.channel).EvaluateUsageBatch(
            messages.EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=[event]))
        )
        [transition] = answer.outcome.transitions
        return transition.notification_id


@asynccontextmanager
async def watching(server: Running, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command as a process of its own."""
    process = await started(
        *("watch", "--notifications", "--server", f"127.0.0.1:{server.port}"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line(process: asyncio.subprocess.Process) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    async with asyncio.timeout(TIMEOUT):
        return (await process.stdout.readline()).decode()


async def interrupted(process: asyncio.subprocess.Process, number: signal.Signals = signal.SIGINT) -> str:
    """Ends it with Ctrl-C or another signal; returns the resume token that it prints."""
    process.send_signal(number)
    async with asyncio.timeout(TIMEOUT):
        _, printed = await process.communicate()
    assert process.returncode == (0 if number is signal.SIGINT else 128 + number), printed
    return printed.decode().rpartition("--resume ")[2].strip()


async def test_watch_prints_notifications_and_resumes_with_its_token(database: Database, clock: ManualClock) -> None:
    usage = Usage(clock)
    async with running(database, clock) as server:
        alert_id = await usage.watched(server)
        beginning = clock.now().isoformat()
        first = await usage.reaches_a_step(server)
        async with watching(server, "--since", beginning, "--json", "--alert", alert_id) as process:
            second = await usage.reaches_a_step(server)
            found = [json.loads(await line(process)) for _ in range(2)]
            assert [one["id"] for one in found] == [first, second]
            token = await interrupted(process, signal.SIGHUP)
        third = await usage.reaches_a_step(server)
        async with watching(server, "--resume", token, "--json", "--alert", alert_id) as process:
            assert json.loads(await line(process))["id"] == third
            again = await interrupted(process)
        async with watching(server, "--resume", token, "--alert", alert_id) as process:
            assert "acme  calls  calls  reached 3  2 → 3" in await line(process)
            assert await interrupted(process) == again
        async with watching(server, "--resume", token, "--alert", "alt_other") as process:
            async with asyncio.timeout(TIMEOUT):
                _, printed = await process.communicate()
            assert process.returncode == 2
            assert "the resume token does not belong to this stream" in printed.decode()


async def test_watch_prints_a_notification_that_was_stored_with_alert_name(
    database: Database, clock: ManualClock
) -> None:
    usage = Usage(clock)
    async with running(database, clock) as server:
        await usage.watched(server)
        beginning = clock.now().isoformat()
        await usage.reaches_a_step(server)
        async with database.transaction() as connection:
            renamed = "UPDATE notification SET body = replace(body, 'alert_display_name', 'alert_name')"
            assert (await connection.execute(text(renamed))).rowcount == 1
        async with watching(server, "--since", beginning) as process:
            assert "acme  calls  calls  reached 1  0 → 1" in await line(process)


async def test_notification_stream_continues_on_a_new_stream_when_the_server_drains(
    database: Database, clock: ManualClock
) -> None:
    usage = Usage(clock)
    interruptions: list[str] = []
    received: list[str] = []
    expected: list[str] = []
    async with running(database, clock) as server:
        await usage.watched(server)
        port = server.port
        async with Address(f"127.0.0.1:{port}").channel() as channel:
            request = messages.WatchNotificationsRequest()
            follower = NotificationStream(channel, (), request, interruptions.append, first_pause=0.01)
            notifications = follower.notifications()
            beginning = asyncio.ensure_future(anext(notifications))
            while not follower.resume_token:  # noqa: ASYNC110 (it is set when the stream has begun)
                await asyncio.sleep(0.01)
            expected.append(await usage.reaches_a_step(server))
            received.append((await beginning).notification_id)
            server.shutdown.request()
            waiting = asyncio.ensure_future(anext(notifications))
            await server.stopped
            configuration = Configuration(listen_port=port, propagation_delay=0.0)
            async with running(database, clock, configuration=configuration) as other:
                expected += [await usage.reaches_a_step(other) for _ in range(2)]
                async with asyncio.timeout(TIMEOUT):
                    received += [(await waiting).notification_id, (await anext(notifications)).notification_id]
                await notifications.aclose()
    assert received == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--event-type", "alert.reached"], "need --notifications"),
        (["--resume", "x"], "need --notifications"),
        (["--notifications", "--once"], "are options of the table"),
        (["--notifications", "--since", "yesterday"], "is not a time"),
        (["--notifications", "--since", "2026-03-15T12:00:00Z", "--resume", "x"], "leave out --since"),
        (["--notifications", "--event-type", "alert.rung"], "there is no event type 'alert.rung'"),
        (["--notifications", "--condition", "spend"], "there is no condition 'spend'"),
    ],
)
def test_options_that_cannot_be_combined_are_usage_errors(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(tidemark, ["watch", *arguments])
    assert result.exit_code == 2
    assert message in result.output.replace("\n", " ")


def test_watch_without_a_server_ends_with_a_message() -> None:
    result = CliRunner().invoke(tidemark, ["watch", "--notifications", "--server", "127.0.0.1:1"])
    assert result.exit_code == 5
    assert "no server answers at 127.0.0.1:1" in result.output

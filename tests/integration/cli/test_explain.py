"""`tidemark explain` against a real server."""

import asyncio
import json
from dataclasses import dataclass

from sqlalchemy import text

from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import condition_pb2, threshold_pb2, usage_pb2
from generated.tidemark.v1.alert_pb2 import Alert
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.scope_pb2 import AlertScope, AllCustomersScope
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.deliveries import outbox
from store.postgres.database import Database
from tests.support.notifier.house import House
from tests.support.processes.forked import started
from tests.support.server.running import Running, running
from tests.support.waiting import within


@dataclass(frozen=True)
class Ended:
    """The command when it has ended."""

    exit_code: int
    stdout: str
    stderr: str


async def run(server: Running | None, *arguments: str) -> Ended:
    """Runs the command as a process of its own. server: None for an address where none listens."""
    address = "127.0.0.1:1" if server is None else f"127.0.0.1:{server.port}"
    process = await started(
        *("explain", *arguments, "--server", address),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with within("the end of the command", 120):
        stdout, stderr = await process.communicate()
    return Ended(await process.wait(), stdout.decode(), stderr.decode())


async def create_and_use(server: Running, clock: ManualClock, quantity: str) -> str:
    """Creates an alert at 10 calls, and sends an event of acme; returns the id of the alert."""
    alerts = AlertServiceStub(server.channel)
    alert = Alert(
        display_name="calls",
        scope=AlertScope(all_customers=AllCustomersScope()),
        usage_threshold_reached=condition_pb2.UsageThresholdReachedCondition(metric_id="calls"),
        thresholds=[threshold_pb2.Threshold(value="10")],
    )
    created = await alerts.CreateAlert(messages.CreateAlertRequest(alert=alert))
    event = usage_pb2.UsageEvent(
        event_id="e1",
        customer_id="acme",
        metric_id="calls",
        quantity=quantity,
        event_time=to_timestamp(clock.now()),
    )
    await alerts.EvaluateUsageBatch(messages.EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=[event])))
    return created.alert.alert_id


async def test_explain_prints_the_answer_the_checks_and_where_the_notification_went(
    database: Database, clock: ManualClock
) -> None:
    house = await House.build(database, clock)
    wanting = (await house.endpoint("https://hooks.example.com/")).endpoint.endpoint_id
    other = (await house.endpoint("https://other.example.com/", ("alert.resolved",))).endpoint.endpoint_id
    async with running(database, clock) as server:
        alert_id = await create_and_use(server, clock, "12")
        result = await run(server, alert_id, "acme")
        assert result.exit_code == 0, result.stderr
        first, *rest = result.stdout.splitlines()
        assert first.startswith("notified  The alert has notified")
        assert any(line.startswith("  ok") and "scope" in line for line in rest)
        printed = "\n".join(rest)
        assert "ntf_" in printed
        assert "value 0 → 12 with the event e1" in printed
        assert "it waits for the notifier" in printed
        assert f"{other} takes only the event types alert.resolved." in printed
        assert f"{wanting} gets them." in printed

        as_json = await run(server, alert_id, "acme", "--json")
        assert json.loads(as_json.stdout)["reason"] == "EXPLANATION_REASON_NOTIFIED"
        await AlertServiceStub(server.channel).DisableAlert(messages.DisableAlertRequest(alert_id=alert_id))
        disabled = (await run(server, alert_id, "acme")).stdout.splitlines()
        assert disabled[0].startswith("notified  The alert has notified on ")
        assert disabled[0].endswith("The alert is disabled as a whole: EnableAlert makes it active again.")
        assert any(line.startswith("  no  The alert is disabled") for line in disabled)
        past = await run(server, alert_id, "acme", "--at", "2025-01-01")
        assert "not notified" in past.stdout.splitlines()[0]


async def test_explain_prints_deliveries_with_their_last_answer_and_the_next_attempt(
    database: Database, clock: ManualClock
) -> None:
    house = await House.build(database, clock)
    endpoint = (await house.endpoint("https://hooks.example.com/")).endpoint.endpoint_id
    async with running(database, clock) as server:
        alert_id = await create_and_use(server, clock, "12")
        async with database.transaction() as connection:
            assert (await outbox.fan_out(connection, 10)).created == 1
        [made] = await house.deliveries()
        async with database.transaction() as connection:
            await connection.execute(
                text(
                    "INSERT INTO attempt (organization_id, delivery_id, attempt_number, start_time, duration,"
                    " outcome, http_status)"
                    " VALUES (:organization, :delivery, 1, now(), interval '1 s', 'SERVER_ERROR', 503)"
                ),
                {"organization": house.organization_id, "delivery": made.delivery_id},
            )
            await connection.execute(text("UPDATE delivery SET attempt_count = 1"))
            await connection.execute(text("UPDATE endpoint SET failing_since = now()"))
        found = json.loads((await run(server, alert_id, "acme", "--json")).stdout)
        [notification] = found["notifications"]
        [delivery] = notification["deliveries"]
        assert delivery["delivery"]["endpointId"] == endpoint
        assert [one["httpStatus"] for one in delivery["attempts"]] == [503]
        printed = (await run(server, alert_id, "acme")).stdout
        assert "has not got it yet after 1 attempt; the last answer was 503; the next attempt is due" in printed
        assert "delivered to 0 of 1 endpoint." in printed
        assert f"  !   {endpoint} gets them, and its attempts fail since " in printed


async def test_explain_prints_helpful_errors(database: Database, clock: ManualClock) -> None:
    async with running(database, clock) as server:
        alert_id = await create_and_use(server, clock, "1")
        unknown = await run(server, alert_id, "bob")
        assert (unknown.exit_code, "tidemark customers list" in unknown.stderr) == (3, True)
        missing = await run(server, "alt_1", "acme")
        assert (missing.exit_code, "tidemark alerts list" in missing.stderr) == (3, True)
        group = await run(server, alert_id, "acme", "--group", "region")
        assert (group.exit_code, "KEY=VALUE" in group.stderr) == (2, True)
    nothing = await run(None, "a", "b")
    assert (nothing.exit_code, "no server answers" in nothing.stderr) == (5, True)

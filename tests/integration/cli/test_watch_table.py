"""`tidemark watch` without --notifications: one or two calls for a frame, for any number of customers."""

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from rich.console import Console

from cli.rich_console import THEME
from cli.watch.screen import screen
from cli.watch.state_reader import StateFilter, StateReader
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import condition_pb2, threshold_pb2, usage_pb2
from generated.tidemark.v1.alert_pb2 import Alert, EvaluationStatus
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.scope_pb2 import AlertScope, AllCustomersScope
from generated.tidemark.v1.usage_pb2 import UsageEvent
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.postgres.database import Database
from tests.support.processes.forked import started
from tests.support.server.running import Running, running
from tests.support.waiting import within

DEADLINE = 60.0  # seconds
CUSTOMERS = 60


@pytest.fixture
async def server(database: Database, clock: ManualClock) -> AsyncIterator[Running]:
    """A server on which every tenth customer is in alarm, and the first of them with severity critical."""
    async with running(database, clock) as server:
        stub = AlertServiceStub(server.channel)
        alert = Alert(
            display_name="calls [all]",
            scope=AlertScope(all_customers=AllCustomersScope()),
            usage_threshold_reached=condition_pb2.UsageThresholdReachedCondition(metric_id="calls"),
            thresholds=[
                threshold_pb2.Threshold(value="10", severity=threshold_pb2.SEVERITY_WARNING),
                threshold_pb2.Threshold(value="100", severity=threshold_pb2.SEVERITY_CRITICAL),
            ],
        )
        created = (await stub.CreateAlert(messages.CreateAlertRequest(alert=alert))).alert
        # Until then the status of each customer is EVALUATING, and no filter by IN_ALARM finds it.
        async with within("the first evaluation of the alert"):
            while created.evaluation_status != EvaluationStatus.EVALUATION_STATUS_DONE:
                created = (await stub.GetAlert(messages.GetAlertRequest(alert_id=created.alert_id))).alert
        events = [
            UsageEvent(
                event_id=f"e{number}",
                customer_id=f"c{number:02}",
                metric_id="calls",
                quantity="200" if number == 0 else "10" if number % 10 == 0 else str(number % 9),
                event_time=to_timestamp(clock.now()),
            )
            for number in range(CUSTOMERS)
        ]
        await stub.EvaluateUsageBatch(messages.EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=events)))
        yield server


class Counted(grpc.aio.UnaryUnaryClientInterceptor):
    """Counts calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        method = details.method if isinstance(details.method, str) else details.method.decode()
        self.calls.append(method.rpartition("/")[2])
        return await continuation(details, request)


async def test_screen_full_of_alarms_takes_one_call_and_the_totals(server: Running) -> None:
    counted = Counted()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", interceptors=[counted]) as channel:
        frame = await StateReader(channel, (), StateFilter()).read_screen(4)
    assert counted.calls == ["ListCustomerAlerts", "SummarizeCustomerAlerts"]
    assert [row.status for row in frame.rows] == ["in alarm"] * 4
    assert (frame.in_alarm, frame.totals.customer_count, frame.has_more) == (6, CUSTOMERS, True)


async def test_screen_with_few_alarms_adds_the_gauges_nearest_to_a_threshold(server: Running) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        frame = await StateReader(channel, (), StateFilter()).read_screen(20)
        assert [row.status for row in frame.rows] == ["in alarm"] * 6 + ["ok"] * 14
        assert (frame.rows[0].customer, frame.rows[0].severity_word) == ("c00", "critical")
        nearness = [row.nearness for row in frame.rows[6:]]
        assert nearness == sorted(nearness, reverse=True)
        only = await StateReader(channel, (), StateFilter(only_alarms=True)).read_screen(20)
        assert len(only.rows) == 6
        some = await StateReader(channel, (), StateFilter(["c00", "c11"])).read_screen(20)
        assert [(row.customer, row.status) for row in some.rows] == [("c00", "in alarm"), ("c11", "ok")]
        whole = await StateReader(channel, (), StateFilter(), page_size=7).read_all(1000)
        assert (len(whole.rows), whole.has_more) == (CUSTOMERS, False)
        assert [row.status for row in whole.rows[:7]] == ["in alarm"] * 6 + ["ok"]


@pytest.mark.parametrize("width", [80, 120, 200])
async def test_screen_fits_the_width_of_the_terminal(server: Running, width: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        frame = await StateReader(channel, (), StateFilter()).read_screen(10)
    console = Console(theme=THEME, width=width, height=24, file=io.StringIO(), highlight=False)
    console.print(screen(frame, width, 24, "here", ""))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert f"{CUSTOMERS} customers, 6 in alarm" in text
    for word in ("in alarm", "critical", "c00", "calls [all]", "10, 100"):
        assert word in text
    assert ("alt_" in text.partition("severity")[2]) is (width == 200)


async def run(server: Running, *arguments: str) -> tuple[int | None, str, str]:
    process = await started(
        *arguments,
        *("--server", f"127.0.0.1:{server.port}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_watch_with_json_prints_a_line_of_json_for_each_row(server: Running) -> None:
    code, out, err = await run(server, "watch", "--json", "--alarms", "--limit", "2")
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["status"] for row in found] == ["in_alarm", "in_alarm"]
    assert "there are more rows" in err
    code, out, _ = await run(server, "watch", "--json", "--customer", "c00")
    (row,) = map(json.loads, out.splitlines())
    assert (row["customer_id"], row["value"], row["severity"], row["silent"]) == ("c00", "200", "critical", False)
    assert [(one["level"], one["severity"]) for one in row["reached"]] == [("10", "warning"), ("100", "critical")]
    assert row["alert_id"].startswith("alt_")


@pytest.mark.parametrize("option", ["--once", "--json"])
async def test_watch_ends_with_141_and_no_message_when_its_reader_is_gone(server: Running, option: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = await started(
        *("watch", option, "--server", f"127.0.0.1:{server.port}"),
        stdout=writer,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writer)
    async with asyncio.timeout(DEADLINE):
        _, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")

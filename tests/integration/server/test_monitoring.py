"""The monitoring port of a server: its metrics follow what callers do, and are bounded whatever they do."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import alert_service_pb2, usage_pb2
from runtime.clock import ManualClock
from runtime.configuration import Configuration
from runtime.monitoring import busiest
from server.calls.monitoring import OTHER
from store.postgres.database import Database
from tests.support.monitoring.scraping import Scraped, get, monitoring_socket, scrape, status
from tests.support.server.running import UNARY_DEADLINE, running
from tests.support.usage.caller import Caller, spend_alert, until, usage_alert
from tests.support.usage.organizations import create_organization

CALLS = "rpc_server_call_duration_seconds_count"
BATCH = "tidemark.v1.AlertService/EvaluateUsageBatch"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
# Labels whose values come from callers, each with the number that a scrape may have of it.
BOUNDED = {"organization": busiest.SHOWN, "rpc_method": 90}


@dataclass
class Monitored:
    """A server, a caller of it, and its monitoring port."""

    caller: Caller
    port: int

    async def scrape(self, *, openmetrics: bool = False) -> Scraped:
        return await scrape(self.port, openmetrics=openmetrics)


@pytest.fixture
async def monitored(database: Database, clock: ManualClock) -> AsyncIterator[Monitored]:
    name, key = await create_organization(database, clock)
    with monitoring_socket() as (listening, port):
        async with running(database, clock, monitoring_socket=listening) as server:
            yield Monitored(Caller(server, clock, database.url, name, key), port)


async def ended(monitored: Monitored, name: str, **labels: str) -> Scraped:
    """A scrape after a call has ended: gRPC calls back when the client may have its answer already."""
    found = await monitored.scrape()

    async def has_ended() -> bool:
        nonlocal found
        found = await monitored.scrape()
        return found.has(name, **labels)

    await until(has_ended)
    return found


async def test_calls_are_counted_by_method_and_code(monitored: Monitored) -> None:
    caller = monitored.caller
    await caller.send(caller.event("1"), caller.event("2"))
    with pytest.raises(grpc.aio.AioRpcError):
        await caller.alerts.GetAlert(alert_service_pb2.GetAlertRequest(alert_id="none"), metadata=caller.metadata)
    method = "tidemark.v1.AlertService/GetAlert"
    found = await ended(monitored, CALLS, rpc_method=method)
    assert found.value(CALLS, rpc_method=BATCH, rpc_response_status_code="OK", rpc_system_name="grpc") == 1
    assert found.value(CALLS, rpc_method=method, rpc_response_status_code="NOT_FOUND", error_type="") == 1


async def test_open_streams_are_calls_in_flight(monitored: Monitored) -> None:
    caller, method = monitored.caller, "tidemark.v1.AlertService/EvaluateUsage"
    stream = caller.stream()
    batch = usage_pb2.UsageBatch(events=[caller.event("1")])
    await stream.write(alert_service_pb2.EvaluateUsageRequest(batch=batch))
    await stream.read()
    assert (await monitored.scrape()).value("tidemark_server_calls_in_flight", rpc_method=method) == 1
    await stream.done_writing()
    await stream.read()
    found = await ended(monitored, CALLS, rpc_method=method)
    assert found.value("tidemark_server_calls_in_flight", rpc_method=method) == 0


async def test_events_are_counted_by_what_became_of_them(monitored: Monitored) -> None:
    caller = monitored.caller
    await caller.create(usage_alert("3"))
    before = await monitored.scrape()
    await caller.send(caller.event("1", "2"), caller.event("2", "2"), caller.event("3", "no number"))
    await caller.send(caller.event("1", "2"), caller.event("2", "5"))
    found = await monitored.scrape()

    def added(name: str, **labels: str) -> float:
        return found.value(name, **labels) - before.value(name, **labels)

    assert added("tidemark_ingest_received_events_total") == 5
    assert added("tidemark_ingest_events_total", outcome="accepted") == 2
    assert added("tidemark_ingest_events_total", outcome="duplicate") == 1
    assert added("tidemark_ingest_rejected_events_total", reason="invalid") == 1
    assert added("tidemark_ingest_rejected_events_total", reason="conflicting") == 1
    assert added("tidemark_ingest_transitions_total") == 1
    assert added("tidemark_ingest_commit_events_count") == added("tidemark_ingest_commit_duration_seconds_count") >= 2
    assert added("tidemark_ingest_commit_phase_seconds_total") > 0
    assert found.value("tidemark_organization_events_total", organization=caller.organization) == 2
    assert found.value("tidemark_ingest_pending_events") == 0
    assert found.value("tidemark_rules_cached_customers") == 1
    assert found.value("tidemark_rules_cached_wide_alerts") == 1
    assert found.value("tidemark_rules_reload_duration_seconds_count") >= 1
    assert found.value("tidemark_changes_total") >= 1


async def test_a_call_with_a_recorded_trace_leaves_an_exemplar(monitored: Monitored) -> None:
    caller = monitored.caller
    plain = caller.metadata
    caller.metadata = (*plain, ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"))
    await caller.send(caller.event("1"))
    caller.metadata = plain
    await ended(monitored, CALLS, rpc_method=BATCH)
    found = await monitored.scrape(openmetrics=True)
    exemplars = [one.exemplar.labels for one in found.samples if one.exemplar is not None]
    assert exemplars == [{"trace_id": TRACE}]


async def test_a_call_whose_trace_is_not_sampled_leaves_no_exemplar(monitored: Monitored) -> None:
    caller = monitored.caller
    for header in (f"00-{TRACE}-00f067aa0ba902b7-00", "00-no-trace-01"):
        caller.metadata = (caller.metadata[0], ("traceparent", header))
        await caller.send(caller.event(header))
    await ended(monitored, CALLS, rpc_method=BATCH)
    found = await monitored.scrape(openmetrics=True)
    assert [one.exemplar for one in found.samples if one.exemplar is not None] == []


async def test_series_stay_few_whatever_callers_send(
    monitored: Monitored, database: Database, clock: ManualClock
) -> None:
    caller = monitored.caller
    await caller.create(spend_alert("1"))
    await calls_of_all_kinds(caller, 0)
    await ended(monitored, CALLS, rpc_method=OTHER)
    first = await monitored.scrape()
    for number in range(1, 60):
        name, key = await create_organization(database, clock)
        await calls_of_all_kinds(Caller(caller.server, clock, database.url, name, key), number)
    await ended(monitored, "tidemark_organization_calls_total", organization=name)
    found = await monitored.scrape()
    for name, label in {(one.name, label) for one in found.samples for label in one.labels}:
        values = found.labels_of(name, label)
        assert len(values) <= BOUNDED.get(label, 20), values
    new = series(found) - series(first)
    assert {one[0] for one in new} <= {"tidemark_organization_events_total", "tidemark_organization_calls_total"}
    assert len(new) <= 2 * busiest.SHOWN
    text = await get(monitored.port, "/metrics")
    assert "customer-" not in text
    assert "metric-" not in text
    assert "Invented" not in text


def series(found: Scraped) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """The series of a scrape, without those of Python's garbage collection."""
    return {(one.name, tuple(sorted(one.labels.items()))) for one in found.samples}


async def calls_of_all_kinds(caller: Caller, number: int) -> None:
    """Usage of many customers and metrics, and methods that do not exist."""
    events = [
        caller.event(f"{number}-{index}", customer=f"customer-{number}-{index}", metric=f"metric-{number}-{index}")
        for index in range(5)
    ]
    await caller.send(*events, caller.event("bad", "x"))
    for path in (f"/tidemark.v1.AlertService/Invented{number}", f"/Invented{number}/Method", f"/{number}"):
        call: Any = caller.server.channel.stream_stream(path)(metadata=caller.metadata)
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_port_shows_the_health_of_the_server(monitored: Monitored) -> None:
    assert await status(monitored.port, "/healthz") == 200
    assert await status(monitored.port, "/readyz") == 200
    assert (await monitored.scrape()).value("tidemark_ready") == 1
    assert await status(monitored.port, "/other") == 404


async def test_a_draining_server_is_alive_and_not_ready(database: Database, clock: ManualClock) -> None:
    configuration = Configuration(listen_port=0, propagation_delay=60.0, unary_deadline=UNARY_DEADLINE)
    with monitoring_socket() as (listening, port):
        async with running(database, clock, configuration=configuration, monitoring_socket=listening) as server:
            server.shutdown.request()

            async def is_draining() -> bool:
                return await status(port, "/readyz") == 503

            await until(is_draining)
            assert await status(port, "/healthz") == 200
            assert (await scrape(port)).value("tidemark_ready") == 0


async def backlog_read(port: int) -> Scraped:
    """A scrape after the backlog was read."""
    found = await scrape(port)
    async with asyncio.timeout(30):
        while not found.has("tidemark_outbox_notifications"):
            await asyncio.sleep(0.02)
            found = await scrape(port)
    return found


async def test_the_backlog_is_shown(monitored: Monitored) -> None:
    found = await backlog_read(monitored.port)
    assert found.value("tidemark_outbox_notifications") == 0
    assert found.value("tidemark_outbox_oldest_age_seconds") == 0
    assert found.value("tidemark_deliveries_oldest_due_age_seconds") == 0
    assert found.value("tidemark_timers_oldest_due_age_seconds") == 0
    assert found.value("tidemark_backfills") == 0
    assert found.value("tidemark_recharges_open") == 0
    assert found.value("tidemark_recharges_oldest_open_age_seconds") == 0
    assert found.value("tidemark_recharge_policies_disabled") == 0
    assert found.value("tidemark_feed_pending_notifications") == 0
    assert found.value("tidemark_enforcement_open_reservations") == 0
    assert found.value("tidemark_enforcement_oldest_overdue_age_seconds") == 0
    assert found.value("tidemark_database_schema_revision") >= 35


async def test_the_configured_address_is_used(
    database: Database, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    configuration = Configuration(
        listen_port=0, propagation_delay=0.0, unary_deadline=UNARY_DEADLINE, metrics_listen=("127.0.0.1", 0)
    )
    with caplog.at_level(logging.INFO, logger="server.process"):
        async with running(database, clock, configuration=configuration):
            [port] = [port for one in caplog.records if (port := getattr(one, "monitoring_port", None))]
            assert (await scrape(port)).value("tidemark_build_info") == 1

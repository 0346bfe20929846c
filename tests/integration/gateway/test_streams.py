"""Streams over HTTP against a real server: events, tokens, heartbeats, drains, clients that leave or do not read."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from sqlalchemy import text

from gateway.limits import HttpLimits
from runtime.clock import ManualClock
from runtime.configuration import Configuration
from store.postgres.database import Database
from tests.support.gateway.events import event_source
from tests.support.gateway.http import HttpClient, HttpServer, serving_http
from tests.support.server.running import UNARY_DEADLINE
from tests.support.waiting import within

WATCH = "/v1/notifications:watch"
ALERT = {
    "displayName": "calls",
    "scope": {"allCustomers": {}},
    "usageThresholdReached": {"metricId": "calls"},
    "thresholds": [{"recurringStep": "1"}],
}


def configuration(heartbeat: float = 30.0) -> Configuration:
    return Configuration(
        listen_port=0,
        http_listen=("127.0.0.1", 0),
        propagation_delay=0.0,
        heartbeat=heartbeat,
        unary_deadline=UNARY_DEADLINE,
    )


@pytest.fixture
async def server(database: Database, clock: ManualClock) -> AsyncIterator[HttpServer]:
    async with serving_http(database, clock, configuration()) as http:
        yield http


async def use(client: HttpClient, clock: ManualClock, event_id: str) -> None:
    """One more call of acme, which reaches the next threshold."""
    event = {"eventId": event_id, "customerId": "acme", "metricId": "calls", "quantity": "1"}
    batch = {"events": [{**event, "eventTime": clock.now().isoformat()}]}
    answer = await client.post("/v1/usage:evaluate", {"batch": batch})
    assert answer.json["outcome"]["accepted"] == 1, answer.body


def level(data: Any) -> str:
    return str(data["notification"]["evaluation"]["transitions"][0]["level"])


async def test_notifications_come_as_events_and_continue_after_a_restart(
    database: Database, clock: ManualClock
) -> None:
    async with serving_http(database, clock, configuration()) as first:
        await first.client.post("/v1/alerts", ALERT)
        async with event_source(first.client, WATCH) as source:
            beginning = await source.next()
            assert beginning is not None
            assert (beginning.comments, beginning.data) == (("heartbeat",), None)
            assert source.last_id
            await use(first.client, clock, "e-1")
            data = await source.data()
            assert level(data) == "1"
            assert data["resumeToken"] == source.last_id
            kept = source.last_id
        await use(first.client, clock, "e-2")
    async with serving_http(database, clock, configuration()) as second:
        await use(second.client, clock, "e-3")
        async with event_source(second.client, WATCH, kept) as source:
            assert [level(await source.data()) for _ in range(2)] == ["2", "3"]
        # A browser keeps the URL with which it began, and adds where it was.
        async with event_source(second.client, f"{WATCH}?startTime=2026-03-15T00:00:00Z", kept) as source:
            assert level(await source.data()) == "2"


async def test_lines_of_json_are_the_other_form(server: HttpServer, clock: ManualClock) -> None:
    await server.client.post("/v1/alerts", ALERT)
    async with server.client.opening("GET", WATCH) as response:
        assert response.headers["Content-Type"] == "application/x-ndjson"
        async with within("the lines"):
            first = json.loads(await response.content.readline())
            assert first == {"heartbeat": True, "resumeToken": first["resumeToken"]}
            await use(server.client, clock, "e-1")
            assert level(json.loads(await response.content.readline())) == "1"


async def test_heartbeats_are_comments_with_the_newest_token(database: Database, clock: ManualClock) -> None:
    async with (
        serving_http(database, clock, configuration(heartbeat=0.05)) as server,
        event_source(server.client, WATCH) as source,
    ):
        for _ in range(3):
            event = await source.next()
            assert event is not None
            assert (event.comments, event.data, event.retry) == (("heartbeat",), None, None)


async def test_a_drain_ends_a_stream_with_a_time_to_come_back_after(server: HttpServer) -> None:
    async with event_source(server.client, WATCH) as source:
        await source.next()
        kept = source.last_id
        server.server.shutdown.request()
        last = await source.next()
        assert last is not None
        assert (last.comments, last.retry, source.last_id) == (("going away",), 1_000, kept)
        assert await source.next() is None
    async with within("the end of the server"):
        await server.server.stopped
    with pytest.raises(aiohttp.ClientConnectorError):
        await server.client.get("/healthz")


async def test_a_request_in_flight_ends_before_the_server_does(
    server: HttpServer, database: Database, clock: ManualClock
) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("LOCK TABLE plan IN ACCESS EXCLUSIVE MODE"))
        putting = asyncio.create_task(server.client.send("PUT", "/v1/plans/gold", json={"displayName": "Gold"}))
        await asyncio.sleep(0.2)
        server.server.shutdown.request()
        await asyncio.sleep(0.2)
        assert not putting.done()
    answer = await putting
    assert answer.code == 200, answer.body
    assert answer.headers["Connection"] == "close"
    async with within("the end of the server"):
        await server.server.stopped


async def test_a_client_that_leaves_cancels_its_call(database: Database, clock: ManualClock) -> None:
    limited = replace(configuration(), organization_watchers=1)
    async with serving_http(database, clock, limited) as server:
        for _ in range(3):
            # The one stream that the organization may have is free again.
            async with within("the end of the stream before"):
                while (await begun(server.client)) != 200:  # noqa: ASYNC110 (no event says so)
                    await asyncio.sleep(0.01)


async def begun(client: HttpClient) -> int:
    """The code of a stream that is left after its first line."""
    async with client.opening("GET", WATCH) as response:
        await response.content.readline()
        return int(response.status)


async def test_a_token_of_another_stream_is_refused_before_the_first_event(server: HttpServer) -> None:
    refused = await server.client.get(WATCH, headers={"Accept": "text/event-stream", "Last-Event-ID": "nonsense"})
    assert (refused.code, refused.reason) == (400, "ERROR_REASON_RESUME_TOKEN_INVALID")
    assert refused.headers["Content-Type"] == "application/json"


async def test_a_stream_has_no_head_and_accepts_no_other_type(server: HttpServer) -> None:
    assert (await server.client.send("HEAD", WATCH)).code == 405
    assert (await server.client.get(WATCH, headers={"Accept": "text/html"})).code == 406


async def test_a_stream_with_a_body_is_a_post(server: HttpServer) -> None:
    body = {"customerIds": ["acme"], "usages": [{"metricId": "calls", "quantity": "1"}]}
    async with event_source(server.client, "/v1/decisions:watch", method="POST", json=body) as source:
        data = await source.data()
        assert data["decisions"][0]["customerId"] == "acme"


async def test_hundreds_of_streams_share_few_connections_to_the_server(
    database: Database, clock: ManualClock
) -> None:
    # gRPC lets calls above the limit of a connection wait without an end.
    limits = HttpLimits(streams_per_channel=10)
    async with serving_http(database, clock, configuration(), limits=limits, max_connections=100) as server:
        await server.client.post("/v1/alerts", ALERT)
        opened = [event_source(server.client, WATCH) for _ in range(35)]
        sources = [await one.__aenter__() for one in opened]
        await use(server.client, clock, "e-1")
        assert [level(await source.data()) for source in sources] == ["1"] * 35
        for one in opened:
            await one.__aexit__(None, None, None)

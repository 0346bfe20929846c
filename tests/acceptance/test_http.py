"""HTTP as processes serve it: the commands of docs/http.md, several workers, kills, and settings that are wrong."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.cloudevents.mapping import load_mapping
from tests.support.documented import blocks
from tests.support.gateway.events import event_source
from tests.support.gateway.http import HttpClient
from tests.support.processes.programs import Program, Programs, until
from tests.support.processes.up import Up
from tests.support.waiting import within

ADDRESS = "http://127.0.0.1:8080"
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
LIMIT = 60  # seconds of a command


def commands(heading: str) -> list[str]:
    """The commands below a heading of docs/http.md: each begins with a comment."""
    [block] = blocks("http.md", heading)
    return [f"# {one}" for one in block.removeprefix("# ").split("\n# ")]


def shell(command: str, base: str) -> str:
    """What a command of the page prints, at that address."""
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command.strip().replace(ADDRESS, base)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    return ended.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_of_the_page(tmp_path: Path) -> None:
    [begin] = blocks("http.md", "HTTP and JSON")
    assert begin.split()[1] == "up"
    up = Up(tmp_path, *begin.replace("127.0.0.1:8080", "127.0.0.1:0").split()[2:])
    try:
        base = up.wait_for(r"http +(http://\S+)").group(1)
        create, listing, send, states, change = (
            json.loads(shell(one, base)) for one in commands("The first requests")
        )
        assert create["alert"]["uniquenessKey"] == "api-calls"
        assert [one["alertId"] for one in listing["alerts"]] == [create["alert"]["alertId"]]
        assert send["outcome"]["transitions"][0]["level"] == "1000"
        assert states["customerAlerts"]
        assert change["alert"]["displayName"] == "Calls of the API"
        one, batch, binary = (json.loads(shell(each, base)) for each in commands("CloudEvents"))
        assert [found["accepted"] for found in (one, batch, binary)] == [1, 1, 1]
        [watch] = commands("Streams")
        shown = shell(watch.strip().replace("-N", "-N --max-time 3") + " || [ $? = 28 ]", base)
        assert "\ndata: {" in shown
        assert shown.count("id: ") >= 2
    finally:
        up.stop()


def test_the_mapping_of_the_page_can_be_loaded(tmp_path: Path) -> None:
    [block] = blocks("http.md", "A mapping of one's own", "json")
    path = tmp_path / "mapping.json"
    path.write_text(block)
    load_mapping(path)


def events(first: int, count: int) -> list[dict[str, Any]]:
    time = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).isoformat()
    stated = {"specversion": "1.0", "source": "/test", "type": "calls", "subject": "acme", "time": time}
    return [{**stated, "id": str(number)} for number in range(first, first + count)]


async def counted(client: HttpClient, sent: list[dict[str, Any]]) -> dict[str, Any]:
    """Sends a batch until it is answered, as a client does whose server may die."""
    async with within("an answer", LIMIT):
        while True:
            try:
                answer = await client.send("POST", "/v1/events", data=json.dumps(sent), headers=BATCH)
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
                continue
            if answer.code == 200:
                found: dict[str, Any] = answer.json
                return found
            assert answer.code == 503, answer.body
            await asyncio.sleep(0.05)


async def value(client: HttpClient) -> str:
    """What is counted of acme."""
    found = (await client.get("/v1/customerAlerts?customerId=acme")).json
    return str(found["customerAlerts"][0]["gauges"][0]["gauge"]["value"])


async def test_workers_share_the_port_and_a_kill_loses_no_event(programs: Programs) -> None:
    server = await programs.serve(workers=2, HTTP_LISTEN="127.0.0.1:0")
    # A connection for each request, so that both workers get some.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        client = HttpClient(session, server.http)
        alert = {
            "displayName": "calls",
            "scope": {"allCustomers": {}},
            "usageThresholdReached": {"metricId": "calls"},
            "thresholds": [{"value": "1"}, {"value": "2000"}],
        }
        assert (await client.post("/v1/alerts", alert)).code == 200
        sending = asyncio.gather(*(counted(client, events(first, 100)) for first in range(0, 2_000, 100)))
        await asyncio.sleep(0.2)
        killed = server.workers()[0]
        os.kill(killed, signal.SIGKILL)
        answers = await sending
        assert sum(answer["accepted"] + answer["duplicates"] for answer in answers) == 2_000
        assert await value(client) == "2000"
        again = await counted(client, events(0, 2_000))
        assert (again["accepted"], again["duplicates"]) == (0, 2_000)
        await until(lambda: len(server.workers()) == 2 and killed not in server.workers())
        await a_stream_goes_on_elsewhere(server, client)
    assert await server.stop() == 0


async def a_stream_goes_on_elsewhere(server: Program, client: HttpClient) -> None:
    """A watcher comes back after the death of its server, and has missed nothing."""
    start = datetime.now(UTC).strftime("%Y-%m-01T00:00:00Z")
    async with event_source(client, f"/v1/notifications:watch?startTime={start}") as source:
        first = await source.data()
        kept = source.last_id
    for worker in server.workers():
        os.kill(worker, signal.SIGKILL)
    async with within("a stream", LIMIT):
        while True:
            try:
                async with event_source(client, "/v1/notifications:watch", kept) as source:
                    second = await source.data()
                    break
            except (aiohttp.ClientError, AssertionError):
                await asyncio.sleep(0.1)
    assert first["notification"]["notificationId"] != second["notification"]["notificationId"]
    assert second["notification"]["evaluation"]["transitions"][0]["level"] == "2000"

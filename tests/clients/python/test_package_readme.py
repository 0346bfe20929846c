"""The README of the Python client: its snippets run as they stand there, one after another, against a real server."""

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from store.postgres.database import Database
from tests.support.clients.server import server_with_organization
from tests.support.clients.usage import LIMIT
from tests.support.databases import NOON
from tests.support.server.running import running
from tests.support.server.sharing import StandingClock
from tidemark_client import Client
from tidemark_client.usage import events
from tidemark_client.webhooks import verification
from webhooks.signature import signed_headers

README = Path(__file__).resolve().parents[3] / "clients" / "python" / "README.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
BODY = b'{"id": "ntf_1", "type": "alert.reached", "timestamp": "2026-03-15T12:00:00.000000Z", "data": {}}'


def run(snippet: str) -> dict[str, Any]:
    """Executes a snippet; returns its names."""
    names: dict[str, Any] = {}
    exec(compile(snippet, str(README), "exec"), names)
    return names


async def test_snippets_run_as_they_stand_there(
    shared_pool: Database,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert len(SNIPPETS) == 6
    start, connect, usage, notifications, limits, webhooks = SNIPPETS

    def standing() -> datetime:
        return NOON

    monkeypatch.setattr(events, "now", standing)
    monkeypatch.setattr(verification, "now", standing)
    async with running(shared_pool, StandingClock(NOON)) as running_server:
        server = await server_with_organization(running_server, shared_pool)
        monkeypatch.setenv("TIDEMARK_SERVER", server.address)
        monkeypatch.setenv("TIDEMARK_API_KEY", server.api_key)

        def in_thread(work: Callable[[], Any]) -> asyncio.Future[Any]:
            return asyncio.ensure_future(asyncio.wait_for(asyncio.to_thread(work), LIMIT))

        names = await in_thread(lambda: run(start))
        names["client"].close()
        assert capsys.readouterr().out == "API calls reached 1000\n"

        # The address of the snippet is that of `make run`.
        await in_thread(lambda: run(connect.replace("127.0.0.1:50051", server.address)))
        assert "ALERT_NOT_FOUND" in capsys.readouterr().out

        watching = asyncio.create_task(run(notifications)["watch"](str(tmp_path / "token")))
        await asyncio.wait_for(run(usage)["count"](str(tmp_path / "spill")), LIMIT)
        assert "acknowledged=1002" in capsys.readouterr().out
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

        def work() -> str:
            with Client() as client:
                return str(run(limits)["complete"](client, "hello"))

        assert await in_thread(work) == "used 5 of 1000"

    receive = run(webhooks)["receive"]
    (secret,) = re.findall(r'"(whsec_[^"]+)"', webhooks)
    headers = signed_headers([secret], "ntf_1", datetime(2026, 3, 15, 12, 0, tzinfo=UTC), BODY)
    assert (receive(headers, BODY), receive(headers, BODY + b" ")) == (204, 401)

"""The README of the Node client and its examples: they run as they stand there, against a real server."""

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runtime.clock import SystemClock
from store.postgres.database import Database
from tests.support.clients.node import CLIENT, program, run_node
from tests.support.clients.server import server_with_organization
from tests.support.clients.usage import until
from tests.support.server.running import running
from webhooks.signature import signed_headers

pytestmark = pytest.mark.usefixtures("node")

SNIPPETS = re.findall(r"^```js\n(.*?)^```", (CLIENT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
BODY = b'{"id": "ntf_1", "type": "alert.reached", "timestamp": "2026-03-15T12:00:00.000000Z", "data": {}}'


def script(snippet: str) -> tuple[str, ...]:
    """The arguments with which node runs a snippet."""
    return "--input-type=module", "--eval", snippet


async def test_snippets_and_examples_run_as_they_stand_there(shared_pool: Database, tmp_path: Path) -> None:
    start, connect, usage, notifications, limits, webhooks = SNIPPETS
    async with running(shared_pool, SystemClock()) as running_server:
        server = await server_with_organization(running_server, shared_pool)
        variables = {"TIDEMARK_SERVER": server.address, "TIDEMARK_API_KEY": server.api_key}
        token = tmp_path / "watch.token"
        watch = notifications.replace("watch.token", str(token))
        async with program(*script(watch), **variables) as watching:
            await until(token.exists)  # it has begun, so it misses nothing
            assert await run_node(*script(start), **variables) == "API calls reached 1000\n"
            line = await watching.process.stdout.readline()  # type: ignore[union-attr]  # it is a pipe
            assert line.startswith(b"API calls {")
        # The address of the snippet is that of `make run`.
        output = await run_node(*script(connect.replace("127.0.0.1:50051", server.address)), **variables)
        assert output.startswith("ALERT_NOT_FOUND {")
        assert re.search(r"acknowledged: 1002,", await run_node(*script(usage), **variables))
        assert await run_node(*script(limits), **variables) == "used 5 of 1000\n"
        output = await run_node("examples/crossings.js", "globex", **variables)
        lines = sorted(re.sub(r" with \d+", "", line) for line in output.splitlines())
        assert lines[:3] == ["300 events are counted", "globex reached 100", "globex reached 250"]
    (secret,) = re.findall(r'"(whsec_[^"]+)"', webhooks)
    headers = json.dumps(signed_headers([secret], "ntf_1", datetime.now(UTC), BODY))
    body = f'Buffer.from("{base64.b64encode(BODY).decode()}", "base64")'
    received = f'{webhooks}\nconsole.log(receive({headers}, {body}), receive({headers}, "other"));'
    assert (await run_node(*script(received))).splitlines() == ["ntf_1 alert.reached  []", "204 401"]

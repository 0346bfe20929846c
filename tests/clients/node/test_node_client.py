"""The tests of clients/node/test, against a real server: each file has an organization of its own."""

from pathlib import Path

import pytest

from tests.support.clients.node import CLIENT, run_node
from tests.support.clients.server import Server
from tests.support.databases import NOON

FILES = sorted((CLIENT / "test").glob("*.test.js"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.partition(".")[0])
async def test_file(server: Server, file: Path) -> None:
    output = await run_node(
        "--test",
        "--test-reporter=spec",
        file,
        TIDEMARK_SERVER=server.address,
        TIDEMARK_API_KEY=server.api_key,
        TIDEMARK_TEST_NOW=NOON.isoformat().replace("+00:00", "Z"),
    )
    assert "skipped 0" in output, output

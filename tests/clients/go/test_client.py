"""The Go client: its own tests, by themselves and against real servers."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from runtime.configuration import Configuration
from store.postgres.database import Database
from tests.support.clients.golang import FOLDER, Go, output_of
from tests.support.clients.server import Server, server_with_organization
from tests.support.clients.usage import LIMIT
from tests.support.databases import NOON
from tests.support.server.running import Running, running
from tests.support.server.sharing import StandingClock

RESTART = "TestServerRestarts"
AGAINST_A_SERVER = (
    "TestServerCountsEveryEventAndCrossingsArrive",
    "TestServerCountsOnceThroughCutConnections",
    "TestServerEnforcesALimit",
    "TestServerNotifiesOnceThroughARestartOfTheProgramAndCuts",
    "TestServerRefusesAWrongKeyWithATypedError",
    "TestServerRejectsABadEventAndNoGoodOne",
)


def environment(server: Server) -> dict[str, str]:
    return {
        "TIDEMARK_TEST_SERVER": server.address,
        "TIDEMARK_TEST_KEY": server.api_key,
        "TIDEMARK_TEST_TIME": NOON.isoformat(),
    }


def test_code_is_formatted(go: Go) -> None:
    formatted = subprocess.run(
        ["gofmt", "-l", "."], cwd=FOLDER, env=go.environment, capture_output=True, text=True, check=True
    )
    assert formatted.stdout == ""


def test_vet_finds_nothing(go: Go) -> None:
    go.run("vet", "./tidemark", "./examples/...")


async def test_tests_without_a_server_pass(go: Go, go_tests: Path, tmp_path: Path) -> None:
    printed = await output_of(
        go_tests, "-test.v", environment={"GRPC_GO_RETRY": go.environment["GRPC_GO_RETRY"]}, folder=tmp_path
    )
    assert printed.count("--- PASS: ") >= 40


async def test_every_test_against_a_server_is_run(go_tests: Path) -> None:
    listed = await output_of(go_tests, "-test.list", "^TestServer", environment={})
    assert sorted(listed.split()) == sorted((*AGAINST_A_SERVER, RESTART))


@pytest.mark.parametrize("name", AGAINST_A_SERVER)
async def test_against_a_server(
    name: str, go_tests: Path, shared_server: tuple[Running, Database], tmp_path: Path
) -> None:
    server = await server_with_organization(*shared_server)
    printed = await output_of(
        go_tests, "-test.v", "-test.run", f"^{name}$", environment=environment(server), folder=tmp_path
    )
    assert f"--- PASS: {name} " in printed


async def test_server_that_drains_and_one_that_follows_it_count_each_event_once(
    go_tests: Path, shared_pool: Database, tmp_path: Path
) -> None:
    clock = StandingClock(NOON)
    restarted = tmp_path / "restarted"
    async with running(shared_pool, clock) as first:
        server = await server_with_organization(first, shared_pool)
        process = await asyncio.create_subprocess_exec(
            go_tests,
            *("-test.v", "-test.run", f"^{RESTART}$"),
            env={**os.environ, **environment(server), "TIDEMARK_TEST_RESTARTED": str(restarted)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(LIMIT):
                await process.stdout.readuntil(b"restart the server\n")
                first.shutdown.request()
                await first.stopped
                configuration = Configuration(listen_port=first.port, propagation_delay=0.0)
                async with running(shared_pool, clock, configuration=configuration):
                    restarted.touch()
                    printed, _ = await process.communicate()
            assert process.returncode == 0, printed.decode()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

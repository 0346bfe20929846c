"""The gateway of clients/node/examples against a real server, also while the server is killed."""

import asyncio
import http.client
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from generated.tidemark.v1 import reservation_pb2
from tests.support.clients.node import CLIENT, environment, needs_node
from tests.support.enforcement.stage import Stage, stage_of
from tests.support.processes.programs import DEADLINE, Program, Programs
from tests.support.waiting import within


@dataclass(frozen=True)
class Gateway:
    """The gateway on a port of this machine."""

    port: int
    process: asyncio.subprocess.Process
    log: Path

    async def work(self, **query: object) -> tuple[int, str]:
        """Status and body of a request of acme."""
        return await asyncio.to_thread(self._get, "&".join(f"{name}={value}" for name, value in query.items()))

    def _get(self, query: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET", f"/work?{query}", headers={"x-customer-id": "acme"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


@asynccontextmanager
async def gateway(
    stage: Stage, folder: Path, name: str, *, fail_open: bool = False, decision: float = DEADLINE, ttl: int = 60
) -> AsyncIterator[Gateway]:
    """The gateway; all of its reports are acknowledged at the end of the block."""
    milliseconds = str(int(decision * 1000))
    log = folder / f"{name}.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *("node", CLIENT / "examples" / "gateway.js"),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment(
                {
                    "TIDEMARK_SERVER": stage.server.address.server,
                    "TIDEMARK_API_KEY": stage.key,
                    "PORT": "0",
                    "FAIL_OPEN": str(fail_open).lower(),
                    "DECISION_MS": milliseconds,
                    "TRY_MS": milliseconds,
                    "TTL_MS": str(1_000 * ttl),
                }
            ),
        )
    assert process.stdout is not None
    try:
        async with within("the gateway", DEADLINE):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("listening on "), log.read_text()
        yield Gateway(int(line.split()[-1]), process, log)
        process.send_signal(signal.SIGTERM)
        async with within("the reports of the gateway", DEADLINE):
            assert await process.wait() == 0, log.read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture(scope="module")
async def server(module_programs: Programs) -> Program:
    """The server of all tests. A test may kill it, and starts it again."""
    needs_node()
    return await module_programs.serve()


@pytest.fixture
async def stage(server: Program, module_programs: Programs, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """An organization of the test's own on the server, and a limit of 500 tokens."""
    async with stage_of(request.node.name, server, module_programs.url) as stage:
        yield stage


async def test_work_is_reserved_settled_and_released(stage: Stage, tmp_path: Path) -> None:
    async with gateway(stage, tmp_path, "gateway") as clients:
        answers = await asyncio.gather(*(clients.work(tokens=75, used=50) for _ in range(6)))
        assert [code for code, _ in answers] == [200] * 6
        assert len({reservation for _, reservation in answers}) == 6
        assert await clients.work(tokens=501) == (429, "tokens")
        assert (await clients.work(tokens=100, fails=1))[0] == 500
        assert (await clients.work(tokens=""))[0] == 500
    assert await stage.state() == ("300", "0", "200")


async def test_a_reservation_is_extended_while_the_work_takes_longer(stage: Stage, tmp_path: Path) -> None:
    """With a ttl of a second, the work takes two."""
    async with gateway(stage, tmp_path, "slow", ttl=1) as clients:
        code, reservation_id = await clients.work(tokens=100, used=70, takes=2_000)
        assert code == 200
    found = await stage.reservation(reservation_id)
    assert found.state == reservation_pb2.RESERVATION_STATE_SETTLED
    extended = found.expire_time.ToDatetime() - found.create_time.ToDatetime()
    assert extended > timedelta(seconds=1.3)
    assert clients.log.read_text() == ""
    assert await stage.state() == ("70", "0", "430")


async def test_reports_wait_for_a_server_that_was_killed(stage: Stage, tmp_path: Path) -> None:
    async with (
        gateway(stage, tmp_path, "open", fail_open=True, decision=0.5) as opened,
        gateway(stage, tmp_path, "closed", decision=0.5) as closed,
    ):
        await stage.server.killed()
        assert (await opened.work(tokens=600, used=550))[0] == 200
        assert (await closed.work(tokens=1))[0] == 503
        await stage.server.start()
    assert await stage.state() == ("550", "0", "-50")
    assert "acme is over its limit tokens" in opened.log.read_text()

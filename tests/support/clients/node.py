"""Node, and the client of clients/node: where they are, and how tests run its files."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest

from tests.support.clients.server import Server
from tests.support.databases import NOON

CLIENT = Path(__file__).resolve().parents[3] / "clients" / "node"
OLDEST = 20  # the first version of Node for which the client is made
DEADLINE = 300.0  # seconds of one program


@cache
def _obstacle() -> str:
    """Why the client cannot run here; empty: it can. It is compiled, so that tests never run an older version."""
    node = shutil.which("node")
    if node is None:
        return f"node is not installed; version {OLDEST} or newer runs the client"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST:
        return f"node is {version}; version {OLDEST} or newer runs the client"
    packages = CLIENT / "node_modules"
    if not (packages / ".package-lock.json").exists():  # npm writes it when all is installed
        return "clients/node has no packages: make node"
    subprocess.run([packages / ".bin" / "tsc", "--project", CLIENT / "tsconfig.build.json"], check=True)
    return ""


def needs_node() -> None:
    """Skips the test where the client cannot run."""
    if obstacle := _obstacle():
        pytest.skip(obstacle)


async def run_node(*arguments: str | Path, **variables: str) -> str:
    """Runs node in the folder of the client; returns what it printed, and fails with that after an error."""
    async with program(*arguments, **variables) as started, asyncio.timeout(DEADLINE):
        output, _ = await started.process.communicate()
    text = output.decode()
    assert started.process.returncode == 0, text
    return text


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """What a program gets: nothing of this machine's settings of Tidemark."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    return {**kept, "NO_COLOR": "1", **variables}


def variables_of(server: Server) -> dict[str, str]:
    """What a program of the tests needs: address and key of the server, and the time of its clock."""
    return {
        "TIDEMARK_SERVER": server.address,
        "TIDEMARK_API_KEY": server.api_key,
        "TIDEMARK_TEST_NOW": NOON.isoformat().replace("+00:00", "Z"),
    }


class Program:
    """A program of the client that runs; it reads lines, and writes lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def tell(self, line: str) -> None:
        """Writes a line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    async def says(self, line: str) -> None:
        """Waits until it writes that line."""
        assert self.process.stdout is not None
        seen: list[str] = []
        async with asyncio.timeout(DEADLINE):
            while content := await self.process.stdout.readline():
                seen.append(content.decode().strip())
                if seen[-1] == line:
                    return
        raise AssertionError(f"{line!r} is not among {seen}")

    async def ended(self) -> int:
        """Waits for its end; returns its code."""
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()


@asynccontextmanager
async def program(*arguments: str | Path, **variables: str) -> AsyncIterator[Program]:
    """A program of the client; it is killed if it still runs at the end of the block."""
    needs_node()
    process = await asyncio.create_subprocess_exec(
        *("node", *arguments),
        cwd=CLIENT,
        env=environment(variables),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

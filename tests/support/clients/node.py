"""Node, and the client of clients/node: where they are, and how tests run its files."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

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
    compiler = CLIENT / "node_modules" / ".bin" / "tsc"
    if not compiler.exists():
        return "clients/node has no packages: make node"
    subprocess.run([compiler, "--project", CLIENT / "tsconfig.build.json"], check=True)
    return ""


def needs_node() -> None:
    """Skips the test where the client cannot run."""
    if obstacle := _obstacle():
        pytest.skip(obstacle)


async def run_node(*arguments: str | Path, **variables: str) -> str:
    """Runs node in the folder of the client; returns what it printed, and fails with that if it ended with an error."""
    needs_node()
    process = await asyncio.create_subprocess_exec(
        *("node", *arguments),
        cwd=CLIENT,
        env=environment(variables),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(DEADLINE):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode()
    assert process.returncode == 0, text
    return text


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """What a program gets: nothing of this machine's settings of Tidemark."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    return {**kept, "NO_COLOR": "1", **variables}

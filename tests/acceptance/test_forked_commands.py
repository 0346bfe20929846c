"""Commands that tests fork behave as those that are executed (`tests/support/processes/forked.py`)."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from tests.support.processes.forked import fork_server, started
from tests.support.waiting import within

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="commands are executed on this system")


async def ended(process: Process) -> tuple[int | None, bytes, bytes]:
    """Its exit code and what it printed, when it has ended."""
    async with within("the end of a command", 60):
        stdout, stderr = await process.communicate()
    return process.returncode, stdout, stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("watch", "--bad"),
        ("explain", "alt_1", "acme", "--server", "127.0.0.1:1"),
        ("context", "list"),
    ],
    ids=lambda arguments: arguments[0],
)
async def test_a_forked_command_ends_as_an_executed_one(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("TIDEMARK_SERVER", "127.0.0.1:2")
    command = (sys.executable, "-P", "-m", "cli.main", *arguments)
    executed = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=PIPE
    )
    assert await ended(await started(*arguments, stdout=PIPE, stderr=PIPE)) == await ended(executed)


async def test_a_forked_command_is_killed_alone_and_nothing_else_keeps_its_output_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        waiting = ("watch", "--once", "--server", f"127.0.0.1:{silent.getsockname()[1]}")
        first, second = [await started(*waiting, stdout=PIPE, stderr=PIPE) for _ in range(2)]
        assert os.getsid(first.pid) == first.pid
        first.kill()
        assert await ended(first) == (-signal.SIGKILL, b"", b"")
        assert second.returncode is None
        second.kill()
        assert await ended(second) == (-signal.SIGKILL, b"", b"")
        with pytest.raises(ProcessLookupError):
            second.kill()


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONHASHSEED", "MALLOC_ARENA_MAX"])
def test_a_command_with_an_environment_that_is_read_before_it_is_executed(name: str) -> None:
    assert fork_server().can_be({**os.environ, "TIDEMARK_LISTEN": "127.0.0.1:0"})
    assert not fork_server().can_be({**os.environ, name: "1"})

"""Supervised processes end when they are asked to, and soon after that even if they do not react."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cli.processes import Child, NotStarted
from cli.supervision import Supervisor

LIMIT = 30.0  # seconds that a test may take
READY = "print('ready', flush=True)"
DEAF = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}; time.sleep(60)"
SLOW = "import time; time.sleep(60)"

Made = list[Callable[[], None]]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """What to call when a process has been made, before its child knows of it."""
    create = asyncio.create_subprocess_exec
    called: Made = []

    async def creating(*arguments: str, **options: Any) -> asyncio.subprocess.Process:
        process = await create(sys.executable, "-c", arguments[4], **options)
        for one in called:
            one()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", creating)
    return called


def child(program: str) -> Child:
    """A child that runs a program in place of a command."""
    return Child("child", [program], os.environ, "ready")


class SignalAtAnEnd:
    """Sends this process a signal when a child has ended."""

    def ended(self, name: str, ending: str, pause: float) -> None:
        """See `Reporter`."""
        os.kill(os.getpid(), signal.SIGTERM)

    def runs_again(self, name: str) -> None:
        """See `Reporter`."""

    def draining(self) -> None:
        """See `Reporter`."""


async def nothing() -> None:
    """What to do when the children are ready."""


@pytest.mark.usefixtures("made")
async def test_child_that_does_not_react_to_a_signal_is_killed() -> None:
    deaf, short = child(DEAF), child(READY)
    async with asyncio.timeout(LIMIT):
        await Supervisor([deaf, short], SignalAtAnEnd(), 0.1).run(nothing)
    assert await deaf.wait() == -signal.SIGKILL


async def test_child_that_is_asked_to_stop_while_its_process_is_made_stops(made: Made) -> None:
    slow = child(SLOW)
    made.append(slow.request_stop)
    async with asyncio.timeout(LIMIT):
        with pytest.raises(NotStarted, match="SIGTERM"):
            await slow.start()

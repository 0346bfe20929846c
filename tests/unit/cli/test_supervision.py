"""Supervised processes end when they are asked to, and soon after that even if they do not react."""

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cli.serving.processes import Child, NotStarted
from cli.serving.supervision import Supervisor

LIMIT = 30.0  # seconds that a test may take
READY = "print('ready', flush=True)"
DEAF = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}; time.sleep(60)"
LONG = f"import time; {READY}; time.sleep(60)"
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
    """Sends this process a signal when children have ended so many times."""

    def __init__(self, times: int = 1) -> None:
        self.endings: list[str] = []
        self._times = times

    def ended(self, name: str, ending: str, pause: float) -> None:
        """See `Reporter`."""
        self.endings.append(ending)
        if len(self.endings) == self._times:
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


@pytest.mark.usefixtures("made")
async def test_child_that_cannot_be_made_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    long, short, reporter = child(LONG), child(READY), SignalAtAnEnd(2)

    async def refusing(*_: str, **__: Any) -> None:
        raise OSError(errno.EAGAIN, "no process is left")

    async def no_more() -> None:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", refusing)

    async with asyncio.timeout(LIMIT):
        await Supervisor([long, short], reporter, LIMIT, first_pause=0.01).run(no_more)
    assert reporter.endings == ["ended with exit code 0", "could not be started: no process is left"]
    assert await long.wait() == -signal.SIGTERM

"""Starts and stops `tidemark` commands as child processes, for `tidemark up`, `serve --workers` and the demo."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import IO

from runtime.configuration import PREFIX

# The last line that a process prints on standard output when it is ready. Here, not in the modules of the commands,
# with which a parent would import all of the server and the notifier.
LISTENING = "listening on "  # of a server; HOST:PORT follows
HTTP = "http on "  # the line before, of a server that speaks HTTP, too; HOST:PORT follows
RUNNING = "the notifier runs"

STOP_TIMEOUT = 40.0  # seconds that a child may take to drain before it is killed


class NotStarted(Exception):
    """A child process ended before it was ready; its log has the reason. name: of the child."""

    def __init__(self, name: str, ending: str) -> None:
        super().__init__(f"the {name} {ending} before it was ready")
        self.name = name


class Child:
    """One `tidemark` command as a child process.

    ready: the start of the line that the child prints on standard output when it is ready. ready_value: the rest of
    that line; of a server, its address; http_address: that of its HTTP port, if it has one. log: the file for its
    standard error; None: the standard error of this process. monitoring: a socket that listens, on which the child
    shows health and metrics; set it before the start.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        ready: str,
        log: IO[bytes] | None = None,
    ) -> None:
        self.name = name
        self.environment = dict(environment)
        self.ready_value = ""
        self.http_address = ""
        self._has_started = False
        self._ready_event = asyncio.Event()
        self.monitoring: socket.socket | None = None
        self._arguments = tuple(arguments)
        self._ready = ready
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._stop_requested = False

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process that was started last."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    def has_started(self) -> bool:
        """Whether it was ready at any time since it was started last."""
        return self._has_started

    async def ready(self) -> None:
        """Waits until it has been ready for the first time."""
        await self._ready_event.wait()

    async def start(self) -> None:
        """Starts it and waits until it is ready. Raises NotStarted when it ends before that."""
        self._stop_requested = False
        self._has_started = False
        inherited = [] if self.monitoring is None else [self.monitoring.fileno()]
        self._process = await self._started(inherited)
        if self._stop_requested:  # while the process was being made, and could get no signal
            self.request_stop()
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            text = line.decode().strip()
            if text.startswith(HTTP):
                self.http_address = text.removeprefix(HTTP)
            if text.startswith(self._ready):
                self.ready_value = text.removeprefix(self._ready)
                self._has_started = True
                self._ready_event.set()
                return
        raise NotStarted(self.name, describe_exit(await self._process.wait()))

    async def _started(self, sockets: Sequence[int]) -> asyncio.subprocess.Process:
        """Starts the process, which inherits these sockets for its monitoring."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # the current folder may contain a package of the same name
            "-m",
            "cli.main",
            *self._arguments,
            "--with-parent",
            str(os.getpid()),
            *(f"--monitoring-socket={number}" for number in sockets),
            pass_fds=sockets,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            env=self.environment,
            # In a session of its own, the child gets the parent's SIGTERM alone. The terminal's Ctrl-C would be a
            # second signal, which ends the child before it has drained.
            start_new_session=True,
        )

    async def wait(self) -> int:
        """Waits until it has ended; returns its exit code, or the negative number of a signal."""
        return await self.process.wait()

    def request_stop(self) -> None:
        """Asks it to drain. At the second request it ends at once."""
        self._stop_requested = True
        if self.running:
            self.process.send_signal(signal.SIGTERM)

    async def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Drains it, unless that was requested already, and waits; kills it after `timeout` seconds."""
        if not self._stop_requested:
            self.request_stop()
        if not self.running:
            return
        try:
            async with asyncio.timeout(timeout):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


def describe_exit(code: int) -> str:
    """How a process with this exit code ended: `ended with exit code 1`, `was ended by SIGKILL`."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def child_environment(settings: Mapping[str, str], *, inherit: bool) -> dict[str, str]:
    """The environment of this process with `settings` added. inherit: keep Tidemark's settings of this process."""
    inherited = {name: value for name, value in os.environ.items() if inherit or not name.startswith(PREFIX)}
    return {**inherited, **settings}

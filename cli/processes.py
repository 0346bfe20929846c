"""Child processes of `tidemark up` and the demo: started, watched, started again, drained."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import IO

from runtime.configuration import PREFIX

STOP_TIMEOUT = 40.0  # seconds that a child may take to drain before it is killed


class NotStarted(Exception):
    """A child ended before it was ready; its own words are in its log. name: the child's."""

    def __init__(self, name: str, how: str) -> None:
        super().__init__(f"the {name} {how} before it was ready")
        self.name = name


class Child:
    """One `tidemark` command as a process of its own.

    ready: how the line on its standard output begins that says it is ready; what follows is `told`.
    log: where its standard error goes; None: to ours.
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
        self.told = ""
        self._arguments = tuple(arguments)
        self._ready = ready
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._asked = False

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process that runs, or ran last."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Starts it and waits until it says that it is ready; raises NotStarted when it ends first."""
        self._asked = False
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # the folder we are in may hold a package of the same name
            "-m",
            "cli.main",
            *self._arguments,
            "--with-parent",
            str(os.getpid()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            env=self.environment,
            # In a session of its own, a Ctrl-C at the terminal reaches us alone, and each child is asked once.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            text = line.decode().strip()
            if text.startswith(self._ready):
                self.told = text.removeprefix(self._ready)
                return
        raise NotStarted(self.name, self.ended(await self._process.wait()))

    async def wait(self) -> int:
        """Waits until it has ended; returns its exit code, negative for a signal."""
        return await self.process.wait()

    def ask_to_stop(self) -> None:
        """Asks it to drain; asked again, it ends at once."""
        self._asked = True
        if self.running:
            self.process.send_signal(signal.SIGTERM)

    async def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Waits until it has drained, and asks it to if nobody did; kills it after `timeout` seconds."""
        if not self._asked:
            self.ask_to_stop()
        if not self.running:
            return
        try:
            async with asyncio.timeout(timeout):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    @staticmethod
    def ended(code: int) -> str:
        """How it ended, in words."""
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def environment(settings: Mapping[str, str], *, inherit: bool) -> dict[str, str]:
    """Our environment with `settings` on top; without Tidemark's own settings unless they are inherited."""
    inherited = {name: value for name, value in os.environ.items() if inherit or not name.startswith(PREFIX)}
    return {**inherited, **settings}

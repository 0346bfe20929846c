"""`tidemark serve` and `tidemark notify` as real processes on one database, for tests, benchmarks and the demo."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

from cli.client.connection import Address
from cli.serving.processes import LISTENING, RUNNING, Child, NotStarted, child_environment
from tests.support.processes.forked import ForkedChild
from tests.support.processes.up import started_by
from tests.support.waiting import within

DEADLINE = 60.0  # seconds that anything may take that a test waits for
POLLING_INTERVAL = 0.02  # seconds

LOG_LINES = 15  # of a log, shown when a process cannot start

LOCAL_SETTINGS = {
    "TIDEMARK_LISTEN": "127.0.0.1:0",
    "TIDEMARK_LOG_FORMAT": "text",
    # No load balancer has to notice that the server drains.
    "TIDEMARK_PROPAGATION_DELAY_SECONDS": "0",
    # The receivers of webhooks are on this machine.
    "TIDEMARK_WEBHOOK_ALLOW_HTTP": "true",
    "TIDEMARK_WEBHOOK_ALLOW_CIDRS": "127.0.0.0/8",
}
# On a database at a URL the processes make no key of their own.
SETTINGS = {**LOCAL_SETTINGS, "TIDEMARK_SECRET_KEYS": "test:dGlkZW1hcmsgdGVzdHMgYW5kIG5vdGhpbmcgZWxzZSE="}

# An error of a log, a traceback, or a deadlock that PostgreSQL found.
_COMPLAINT = re.compile(r"^[\d:.]+ (error|critical) |^Traceback|deadlock", re.IGNORECASE)


class CannotStart(Exception):
    """A process ended before it was ready; the message ends with the last lines of its log."""

    def __init__(self, reason: str, lines: Sequence[str]) -> None:
        super().__init__("\n".join([reason, *lines]))
        self.reason = reason
        self.last_lines = list(lines)


class Program:
    """One `tidemark` command and its log, which goes on when the command is started again."""

    def __init__(self, child: Child, log: Path) -> None:
        self._child = child
        self._log = log

    @property
    def pid(self) -> int:
        """The process that runs, or ran last."""
        return self._child.process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child.running

    @property
    def address(self) -> Address:
        """Where a server listens; the same after it was started again."""
        return Address(self._child.ready_value)

    @property
    def http(self) -> str:
        """The URL of its HTTP port."""
        return f"http://{self._child.http_address}"

    def workers(self) -> list[int]:
        """The processes that it has started: the workers of a server that has several."""
        return sorted(started_by(self.pid))

    async def start(self) -> None:
        """Starts it, for the first time or again, and waits until it is ready. Raises CannotStart."""
        try:
            async with asyncio.timeout(DEADLINE):
                await self._child.start()
        except NotStarted as error:
            raise CannotStart(str(error), last_lines(self._log)) from None
        if self._child.ready_value:
            self._child.environment["TIDEMARK_LISTEN"] = self._child.ready_value
        if self._child.http_address:
            self._child.environment["TIDEMARK_HTTP_LISTEN"] = self._child.http_address

    def kill(self) -> None:
        """Sends SIGKILL; the process does not get to run another instruction."""
        self._child.process.kill()

    async def killed(self) -> None:
        """Kills it, unless it was before, and waits until it is gone."""
        if self._child.running:
            self.kill()
        async with within("the end of a killed process", DEADLINE):
            await self._child.process.communicate()

    async def wait(self) -> int:
        """Waits until it has ended; returns its exit code."""
        async with within("the end of a process", DEADLINE):
            await self._child.process.communicate()
            return await self._child.wait()

    async def stop(self) -> int:
        """Asks it to drain with SIGTERM; returns its exit code."""
        self._child.request_stop()
        async with within("the end of a process that was asked to stop", DEADLINE):
            await self._child.process.communicate()
            return await self._child.wait()

    async def drained(self) -> None:
        """Stops it if it runs; it is killed when it does not drain in time."""
        await self._child.stop()

    def said(self) -> str:
        """Its log so far, of all its lives."""
        return self._log.read_text(errors="replace")

    def complaints(self) -> list[str]:
        """The lines of its log with errors: of a healthy program, none."""
        lines = self.said().splitlines()
        return [line for line in lines if _COMPLAINT.search(line)]


class Programs:
    """Starts programs with the same settings, such as those of the database.

    variables: more of the environment in which programs are started.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        folder: Path,
        exits: contextlib.AsyncExitStack,
        *,
        drain: bool = False,
        child: type[Child] = Child,
    ) -> None:
        """folder: where the logs go. drain: whether `exits` drains the programs that still run; otherwise it kills
        them. child: how they are started."""
        self.variables: dict[str, str] = {}
        self._settings = settings
        self._folder = folder
        self._exits = exits
        self._drain = drain
        self._child = child

    @property
    def url(self) -> str:
        """The URL of the database."""
        return self._settings["TIDEMARK_DATABASE_URL"]

    async def serve(self, name: str = "server", *, workers: int = 1, **settings: str) -> Program:
        """Starts a server on a free port. `settings` are those of the environment, without their prefix."""
        arguments = ["serve", "--workers", str(workers)] if workers > 1 else ["serve"]
        return await self._start(name, arguments, LISTENING, settings)

    async def notify(self, name: str = "notifier", **settings: str) -> Program:
        """Starts a notifier, with settings as `serve`."""
        return await self._start(name, ["notify"], RUNNING, settings)

    async def _start(self, name: str, arguments: Sequence[str], ready: str, settings: dict[str, str]) -> Program:
        named = {f"TIDEMARK_{setting}": value for setting, value in settings.items()}
        log = self._folder / f"{name}.log"
        file = self._exits.enter_context(log.open("xb"))
        variables = child_environment({**self._settings, **named, **self.variables}, inherit=False)
        program = Program(self._child(name, arguments, variables, ready, file), log)
        # Before the start: one that is given up may leave a process.
        self._exits.push_async_callback(program.drained if self._drain else program.killed)
        await program.start()
        return program


@asynccontextmanager
async def running(url: str, folder: Path) -> AsyncIterator[Programs]:
    """Programs on the database at `url`, forked; those that still run at the end of the block are killed."""
    async with contextlib.AsyncExitStack() as exits:
        yield Programs({**SETTINGS, "TIDEMARK_DATABASE_URL": url}, folder, exits, child=ForkedChild)


def last_lines(log: Path) -> list[str]:
    """The last lines of a log."""
    return log.read_text(errors="replace").splitlines()[-LOG_LINES:]


async def until(happened: Callable[[], bool], missing: str = "what the test waits for") -> None:
    """Waits until `happened`; fails with what is `missing` after DEADLINE."""
    async with within(missing, DEADLINE):
        while not happened():  # noqa: ASYNC110 (what is waited for happens in another process)
            await asyncio.sleep(POLLING_INTERVAL)


@asynccontextmanager
async def session(url: str, *, autocommit: bool = True) -> AsyncIterator[psycopg.AsyncConnection[tuple[object, ...]]]:
    """A connection to the database, beside the programs'."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=autocommit) as connection:
        yield connection


async def until_counted(url: str, query: str, number: int) -> None:
    """Waits until the query, which counts something in the database, finds that number."""
    async with within(f"{number} as the result of {query!r}", DEADLINE), session(url) as connection:
        while True:
            [(found,)] = await (await connection.execute(query.encode())).fetchall()
            if found == number:
                return
            await asyncio.sleep(POLLING_INTERVAL)

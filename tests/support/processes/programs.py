"""`tidemark serve` and `tidemark notify` as real processes on one database: started, killed, stopped, and read."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

from cli.client.connection import Address
from cli.notify import RUNNING
from cli.processes import Child, NotStarted, child_environment
from cli.serve import LISTENING
from tests.support.waiting import within

DEADLINE = 60.0  # seconds that anything may take that a test waits for
POLLING_INTERVAL = 0.02  # seconds

SETTINGS = {
    "TIDEMARK_LISTEN": "127.0.0.1:0",
    "TIDEMARK_LOG_FORMAT": "text",
    # Nobody balances load here; there is no one to wait for.
    "TIDEMARK_PROPAGATION_DELAY_SECONDS": "0",
    # The receivers of the tests are on this machine.
    "TIDEMARK_WEBHOOK_ALLOW_HTTP": "true",
    "TIDEMARK_WEBHOOK_ALLOW_CIDRS": "127.0.0.0/8",
    # The database is not the embedded one, as far as the processes know; so there is no key beside it.
    "TIDEMARK_SECRET_KEYS": "test:dGlkZW1hcmsgdGVzdHMgYW5kIG5vdGhpbmcgZWxzZSE=",
}

# A line that says that something went wrong, a traceback, or PostgreSQL's word for two transactions in a circle.
_COMPLAINT = re.compile(r"^[\d:.]+ (error|critical) |^Traceback|deadlock", re.IGNORECASE)


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

    async def start(self) -> None:
        """Starts it, for the first time or again, and waits until it is ready."""
        try:
            async with asyncio.timeout(DEADLINE):
                await self._child.start()
        except NotStarted as error:
            raise AssertionError(f"{error}:\n{self.said()}") from None
        if self._child.ready_value:
            self._child.environment["TIDEMARK_LISTEN"] = self._child.ready_value

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

    def said(self) -> str:
        """Its log so far, of all its lives."""
        return self._log.read_text(errors="replace")

    def complaints(self) -> list[str]:
        """The lines of its log that tell of errors, and what surrounds the first: of a healthy program, none."""
        lines = self.said().splitlines()
        return [line for line in lines if _COMPLAINT.search(line)]


class Programs:
    """Starts programs on one database."""

    def __init__(self, url: str, folder: Path, exits: contextlib.AsyncExitStack) -> None:
        """`folder`: where the logs go. variables: more of the environment that programs are started with."""
        self.url = url
        self.variables: dict[str, str] = {}
        self._folder = folder
        self._exits = exits

    async def serve(self, name: str = "server", **settings: str) -> Program:
        """Starts a server on a free port. `settings` are those of the environment, without their prefix."""
        return await self._start(name, "serve", LISTENING, settings)

    async def notify(self, name: str = "notifier", **settings: str) -> Program:
        """Starts a notifier, with settings as `serve`."""
        return await self._start(name, "notify", RUNNING, settings)

    async def _start(self, name: str, command: str, ready: str, settings: dict[str, str]) -> Program:
        named = {f"TIDEMARK_{setting}": value for setting, value in settings.items()}
        log = self._folder / f"{name}.log"
        file = self._exits.enter_context(log.open("xb"))
        told = child_environment(
            {**SETTINGS, "TIDEMARK_DATABASE_URL": self.url, **named, **self.variables}, inherit=False
        )
        program = Program(Child(name, [command], told, ready, file), log)
        await program.start()
        self._exits.push_async_callback(program.killed)
        return program


@asynccontextmanager
async def running(url: str, folder: Path) -> AsyncIterator[Programs]:
    """Programs on the database at `url`; those that still run at the end of the block are killed."""
    async with contextlib.AsyncExitStack() as exits:
        yield Programs(url, folder, exits)


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

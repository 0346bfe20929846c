"""What the benchmarks measure: an embedded PostgreSQL, databases in it, and Tidemark's processes on them."""

import atexit
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from cli.notify import RUNNING
from cli.processes import Child, NotStarted, child_environment
from cli.serve import LISTENING
from store import embedded

# On the checkout's own file system: a temporary folder may be in memory, where nothing is durable.
FOLDER = Path(__file__).resolve().parents[1] / ".build"
LOG_LINES = 15  # of a log, shown when something fails

_SETTINGS = {
    "TIDEMARK_LISTEN": "127.0.0.1:0",
    "TIDEMARK_PROPAGATION_DELAY_SECONDS": "0",
    # The receiver of webhooks is on this machine.
    "TIDEMARK_WEBHOOK_ALLOW_HTTP": "true",
    "TIDEMARK_WEBHOOK_ALLOW_CIDRS": "127.0.0.0/8",
    "TIDEMARK_SECRET_KEYS": "bench:dGlkZW1hcmsgdGVzdHMgYW5kIG5vdGhpbmcgZWxzZSE=",
}
_DURABLE = ("fsync", "synchronous_commit", "full_page_writes")
_SHOWN = (*_DURABLE, "shared_buffers", "max_wal_size", "wal_level", "checkpoint_timeout")


class CannotStart(Exception):
    """One of the processes ended before it was ready; the message ends with the last lines of its log."""


class NotDurable(Exception):
    """A setting of PostgreSQL would make an acknowledgement worthless, and the figures with it."""


@dataclass(frozen=True)
class Stack:
    """A server process, perhaps a notifier, and the database that they share."""

    server: str  # host:port
    url: str
    server_pid: int
    postmaster_pid: int


class PostgreSQL:
    """A server of our own, in a folder that goes with this process."""

    def __init__(self) -> None:
        FOLDER.mkdir(exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="bench-", dir=FOLDER))
        # Registered before the server's own handler, so that it runs after it: last in, first out.
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.url = embedded.start(self.folder)

    def create_database(self, name: str) -> str:
        """A new, empty database; returns its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def settings(self) -> dict[str, str]:
        """The version and the settings that matter. Raises NotDurable."""
        with psycopg.connect(self.url) as connection:
            found = {"version": str(connection.info.parameter_status("server_version"))}
            for name in _SHOWN:
                row = connection.execute(f"SHOW {name}".encode()).fetchone()
                assert row is not None
                found[name] = row[0]
        for name in _DURABLE:
            if found[name] != "on":
                raise NotDurable(f"PostgreSQL's {name} is {found[name]}; it has to be on")
        return found

    @asynccontextmanager
    async def stack(self, name: str, *, notifier: bool = False) -> AsyncIterator[Stack]:
        """A server on a new database of that name, and a notifier when it is wanted; stopped at the end."""
        url = self.create_database(name)
        settings = child_environment({**_SETTINGS, "TIDEMARK_DATABASE_URL": url}, inherit=False)
        async with contextlib.AsyncExitStack() as exits:
            server = await self._child(exits, "serve", LISTENING, settings)
            if notifier:
                await self._child(exits, "notify", RUNNING, settings)
            yield Stack(server.ready_value, url, server.process.pid, self.postmaster_pid())

    async def notifier(self, exits: contextlib.AsyncExitStack, url: str, settings: dict[str, str]) -> Child:
        """A notifier alone on the database at `url`; stopped with `exits`."""
        merged = child_environment({**_SETTINGS, "TIDEMARK_DATABASE_URL": url, **settings}, inherit=False)
        return await self._child(exits, "notify", RUNNING, merged)

    def postmaster_pid(self) -> int:
        """The process whose children are the database's."""
        return int((self.folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])

    async def _child(
        self, exits: contextlib.AsyncExitStack, command: str, ready: str, settings: dict[str, str]
    ) -> Child:
        log = self.folder / f"{command}.log"
        child = Child(command, [command], settings, ready, exits.enter_context(log.open("wb")))
        exits.push_async_callback(child.stop)
        try:
            await child.start()
        except NotStarted as error:
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            raise CannotStart("\n".join([str(error), *lines])) from None
        return child

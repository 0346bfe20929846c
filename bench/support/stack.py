"""What the benchmarks measure: an embedded PostgreSQL, databases in it, and Tidemark's processes on them."""

import asyncio
import atexit
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psycopg
from sqlalchemy import make_url

from store import embedded
from tests.support.processes.programs import SETTINGS, Program, Programs

# On the checkout's own file system: a temporary folder may be in memory, where nothing is durable.
FOLDER = Path(__file__).resolve().parents[2] / ".build"

_DURABLE = ("fsync", "synchronous_commit", "full_page_writes")
_SHOWN = (*_DURABLE, "shared_buffers", "max_wal_size", "wal_level", "checkpoint_timeout")


class NotDurable(Exception):
    """A setting of PostgreSQL would make an acknowledgement worthless, and the figures with it."""


def settings_of(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """The version of a PostgreSQL, and its settings that matter. Raises NotDurable."""
    found = {"version": str(connection.info.parameter_status("server_version"))}
    for name in _SHOWN:
        row = connection.execute(f"SHOW {name}".encode()).fetchone()
        assert row is not None
        found[name] = row[0]
    for name in _DURABLE:
        if found[name] != "on":
            raise NotDurable(f"PostgreSQL's {name} is {found[name]}; it has to be on")
    return found


@dataclass(frozen=True)
class Stack:
    """A server process, perhaps a notifier, and the database that they share."""

    server: str  # host:port
    url: str
    server_pid: int
    postmaster_pid: int
    worker_pids: tuple[int, ...] = ()  # of a server with several workers

    @property
    def server_pids(self) -> tuple[int, ...]:
        """All processes of the server."""
        return self.server_pid, *self.worker_pids


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

    def checkpoint(self) -> None:
        """Runs a checkpoint, so that none starts during a measurement, and a recovery begins here."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    async def kill(self) -> None:
        """Kills the server with SIGKILL, and waits until all of its processes have ended."""
        os.kill(self.postmaster_pid(), signal.SIGKILL)
        holder = embedded.hold(self.folder)
        while not holder.ended():  # noqa: ASYNC110 (another process ends)
            await asyncio.sleep(0.02)

    async def start_again(self) -> None:
        """Starts the server after it was killed; it recovers from its log."""
        await asyncio.to_thread(embedded.hold(self.folder).restart)

    def settings(self) -> dict[str, str]:
        """The version and the settings that matter. Raises NotDurable."""
        with psycopg.connect(self.url) as connection:
            return settings_of(connection)

    @asynccontextmanager
    async def stack(
        self,
        name: str,
        *,
        notifier: bool = False,
        workers: int = 1,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> AsyncIterator[Stack]:
        """A server on a new database of that name, and a notifier when it is wanted; stopped at the end."""
        url = self.create_database(name)
        async with contextlib.AsyncExitStack() as exits:
            programs = self._programs(url, settings, exits)
            server = await programs.serve(f"{name}-server", workers=workers)
            if notifier:
                await programs.notify(f"{name}-notifier")
            worker_pids = tuple(server.workers()) if workers > 1 else ()
            yield Stack(server.address.server, url, server.pid, self.postmaster_pid(), worker_pids)

    async def server(
        self,
        exits: contextlib.AsyncExitStack,
        url: str,
        settings: Mapping[str, str] = MappingProxyType({}),
        *,
        log: str = "server",
    ) -> Program:
        """A server alone on the database at `url`, which can be started again; stopped with `exits`.

        log: the name of its log, which only one program of a database can have.
        """
        return await self._programs(url, settings, exits).serve(f"{make_url(url).database}-{log}")

    async def notifier(
        self, exits: contextlib.AsyncExitStack, url: str, settings: Mapping[str, str], *, log: str = "notifier"
    ) -> Program:
        """A notifier alone on the database at `url`; stopped with `exits`. log: as of `server`."""
        return await self._programs(url, settings, exits).notify(f"{make_url(url).database}-{log}")

    def _programs(self, url: str, settings: Mapping[str, str], exits: contextlib.AsyncExitStack) -> Programs:
        merged = {**SETTINGS, "TIDEMARK_DATABASE_URL": url, **settings}
        return Programs(merged, self.folder, exits, drain=True)

    def postmaster_pid(self) -> int:
        """The process whose children are the database's."""
        return int((self.folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])

"""A database that answers but accepts no writes: processes are alive, and not ready until it accepts writes again."""

import asyncio
import contextlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psycopg
import pytest

from notifier.process import run_until
from runtime.clock import SystemClock
from server.health import LIVENESS
from server.limits import ServerLimits
from store.embedded import Holder
from store.migrate import migrate
from store.postgres.database import Database
from store.postgres.failures import DISK_FULL, READ_ONLY
from store.postgres.probe import ProbeIntervals
from tests.support.notifier.house import configuration
from tests.support.processes.programs import DEADLINE
from tests.support.server.running import NOT_SERVING, SERVING, Running, running

SIZE = "192m"  # of the small disk
QUICK_PROBES = ProbeIntervals(reads=0.05, writes=0.05, first_retry=0.05)


class OwnDatabase:
    """A PostgreSQL server of this module's own. disk: the small one that its data is on; None where none could be."""

    def __init__(self, folder: Path) -> None:
        self.disk: Path | None = folder / "disk"
        self.disk.mkdir()
        mount: list[str | Path] = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0755", "tmpfs", self.disk]
        if os.geteuid() != 0 or shutil.which("mount") is None or _fails(mount):
            self.disk = None
        try:
            self._holder = Holder((self.disk or folder) / "data")
        except BaseException:
            self.unmount()
            raise
        self.url = self._holder.url
        migrate(self.url)

    def set_read_only(self, value: bool) -> None:
        """As an operator does it, or a provider whose disk is nearly full."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            if value:
                connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            else:
                connection.execute("SET default_transaction_read_only = off")
                connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Within the block there is not a byte left on the disk."""
        assert self.disk is not None
        with psycopg.connect(self.url, autocommit=True) as connection:
            # Room in the log: a server that cannot write that ends itself.
            connection.execute("SELECT pg_switch_wal()")
            connection.execute("CHECKPOINT")
        filler = self.disk / "filler"
        try:
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(b"\0" * 65_536):
                    pass
            yield
        finally:
            filler.unlink()

    def close(self) -> None:
        """Stops the server and gives the disk back."""
        self._holder.close()
        self.unmount()

    def unmount(self) -> None:
        """Gives the disk back."""
        if self.disk is not None:
            subprocess.run(["umount", "--lazy", self.disk], check=True)


def _fails(command: list[str | Path]) -> bool:
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode != 0


@pytest.fixture(scope="module")
def own() -> Iterator[OwnDatabase]:
    """Started once; what a test does to it, it undoes."""
    # A short path: the socket's own is in the url.
    with tempfile.TemporaryDirectory(prefix="tidemark-test-") as name:
        Path(name).chmod(0o755)
        own = OwnDatabase(Path(name))
        yield own
        own.close()


class Observed:
    """What a balancer and a supervisor see of a server and a notifier."""

    def __init__(self, server: Running, session: aiohttp.ClientSession, notifier: str) -> None:
        self._server = server
        self._session = session
        self._notifier = notifier

    async def get(self, path: str) -> int:
        """The notifier's answer."""
        async with self._session.get(self._notifier + path) as response:
            return response.status

    async def until_ready(self, ready: bool) -> None:
        """Waits until server and notifier are, or are not; both have to be alive all the time."""
        wanted = (SERVING, 200) if ready else (NOT_SERVING, 503)
        async with asyncio.timeout(DEADLINE):
            while (await self._server.health_of(), await self.get("/readyz")) != wanted:
                assert await self._server.health_of(LIVENESS) == SERVING
                assert await self.get("/healthz") == 200
                await asyncio.sleep(0.02)
        assert await self._server.health_of(LIVENESS) == SERVING
        assert await self.get("/healthz") == 200


@asynccontextmanager
async def observed(url: str, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Observed]:
    """A server and a notifier on the database, in this process."""
    clock = SystemClock()
    databases = [Database(url, pool_size=4), Database(url, pool_size=4)]
    stop = asyncio.Event()
    with caplog.at_level(logging.INFO, logger="notifier.process"):
        notifier = asyncio.create_task(
            run_until(
                stop,
                configuration(NOTIFIER_LISTEN="127.0.0.1:0"),
                databases[0],
                clock,
                probe_intervals=QUICK_PROBES,
            )
        )
        async with (
            running(databases[1], clock, server_limits=ServerLimits(probe=QUICK_PROBES)) as server,
            aiohttp.ClientSession() as session,
        ):
            ports: list[int] = []
            async with asyncio.timeout(DEADLINE):
                while not ports:
                    assert not notifier.done()
                    await asyncio.sleep(0.02)
                    ports = [port for record in caplog.records if (port := getattr(record, "monitoring_port", None))]
            seen = Observed(server, session, f"http://127.0.0.1:{ports[-1]}")
            await seen.until_ready(True)
            yield seen
        stop.set()
        async with asyncio.timeout(DEADLINE):
            await notifier
    for database in databases:
        await database.close()


async def test_processes_are_not_ready_while_the_database_is_read_only(
    own: OwnDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    async with observed(own.url, caplog) as seen:
        await asyncio.to_thread(own.set_read_only, True)
        try:
            await seen.until_ready(False)
        finally:
            await asyncio.to_thread(own.set_read_only, False)
        await seen.until_ready(True)
    assert READ_ONLY.message in caplog.text


async def test_processes_are_not_ready_while_the_disk_is_full(
    own: OwnDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    if own.disk is None:
        pytest.skip("a small disk can only be mounted by root, and not in every container")
    async with observed(own.url, caplog) as seen:
        with own.full():
            await seen.until_ready(False)
        await seen.until_ready(True)
    assert DISK_FULL.message in caplog.text

"""A PostgreSQL server with a streaming standby, each behind a proxy and on a disk of its own.

A commit waits for the standby (synchronous replication), so that a failover loses nothing that was acknowledged.
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

from store.embedded.binaries import installation
from store.embedded.layout import Layout
from store.embedded.server_user import server_user
from store.migrate import migrate
from tests.support.faults.disk import Disk
from tests.support.faults.proxy import Proxy, proxied
from tests.support.processes.programs import DEADLINE, POLLING_INTERVAL, session
from tests.support.processes.up import alive, started_by
from tests.support.waiting import within

DATABASE = "tidemark"
SETTINGS = (
    "fsync=off",  # the run ends processes, and not the machine
    "shared_buffers=64MB",
    "max_wal_size=64MB",
    "min_wal_size=4MB",  # few segments wait for reuse, so that a full disk is noticed soon
    "wal_keep_size=64MB",
    "wal_receiver_status_interval=1s",
    "wal_retrieve_retry_interval=100ms",
    "max_connections=100",
    "autovacuum_naptime=5s",
)
IN_STEP = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"


class Node:
    """One PostgreSQL server. It listens on `port` of 127.0.0.1, also after it was started again."""

    def __init__(self, programs: Path, disk: Disk) -> None:
        self.disk = disk
        self.port = _free_port()
        self._programs = programs
        self._data = disk.folder / "data"
        self._log = disk.folder.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None
        # The program changes its user itself: to do that, Popen forks instead of vforking, and a fork of a process
        # with channels of gRPC may crash. PostgreSQL ends with this process, however this process ends.
        user = server_user(Layout(disk.folder))
        self._as_user = ["setpriv", "--pdeathsig", "QUIT"]
        if user.switch:
            os.chown(disk.folder, user.uid, user.gid)
            self._as_user = [
                "setpriv",
                f"--reuid={user.uid}",
                f"--regid={user.gid}",
                "--clear-groups",
                "--pdeathsig",
                "QUIT",
            ]

    @property
    def url(self) -> str:
        """Its own, beside the proxy."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{DATABASE}?connect_timeout=5"

    @property
    def maintenance_url(self) -> str:
        """That of the database which every server has."""
        return self.url.replace(f"/{DATABASE}?", "/postgres?")

    @property
    def running(self) -> bool:
        """Whether its first process runs."""
        return self._process is not None and self._process.poll() is None

    async def create(self) -> None:
        """Makes an empty cluster."""
        await self._run("initdb", "--auth=trust", "--username=postgres", "--no-sync", "--wal-segsize=1")

    async def copy(self, primary: "Node") -> None:
        """Makes it a standby of the primary."""
        shutil.rmtree(self._data, ignore_errors=True)
        source = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres")
        await self._run("pg_basebackup", *source, "--write-recovery-conf", "--no-sync", "--checkpoint=fast")

    async def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, str(self._programs / "bin" / program), f"--pgdata={self._data}", *arguments]

        def run() -> "subprocess.CompletedProcess[bytes]":
            out = subprocess.PIPE
            return subprocess.run(command, cwd=self.disk.folder, stdout=out, stderr=subprocess.STDOUT, check=False)

        done = await asyncio.to_thread(run)
        assert done.returncode == 0, f"{program} ended with {done.returncode}: {done.stdout.decode()}"

    async def start(self) -> None:
        """Starts it, until it accepts connections. It is tried again while what was before it still ends."""
        async with within(f"the start of PostgreSQL, see {self._log}", DEADLINE):
            while True:
                if not self.running:
                    self._launch()
                with contextlib.suppress(psycopg.OperationalError):
                    async with session(self.maintenance_url):
                        return
                await asyncio.sleep(POLLING_INTERVAL)

    def _launch(self) -> None:
        options = [f"-c{setting}" for setting in (*SETTINGS, f"port={self.port}", "unix_socket_directories=")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, self._programs / "bin" / "postgres", "-D", self._data, *options],
                cwd=self.disk.folder,
                stdout=log,
                stderr=log,
            )

    def processes(self) -> list[int]:
        """Its first process, and those that this has started."""
        assert self._process is not None
        return [self._process.pid, *started_by(self._process.pid)]

    def backends(self) -> list[int]:
        """The processes that serve clients."""
        assert self._process is not None
        return [pid for pid, title in started_by(self._process.pid).items() if f" {DATABASE} 127.0.0.1(" in title]

    async def end(self, how: signal.Signals) -> None:
        """Ends it by a signal, and waits until all of its processes are gone."""
        assert self._process is not None
        processes = self.processes()
        self._process.send_signal(how)
        await asyncio.to_thread(self._process.wait)
        async with within("the end of PostgreSQL's processes", DEADLINE):
            while any(map(alive, processes)):  # noqa: ASYNC110 (other processes end)
                await asyncio.sleep(POLLING_INTERVAL)

    async def execute(self, *statements: str) -> None:
        """Executes statements, each by itself."""
        async with session(self.maintenance_url) as connection:
            for statement in statements:
                await connection.execute(statement.encode())

    async def remove(self) -> None:
        """Ends it, and removes its log; its data are the disk's."""
        if self.running:
            await self.end(signal.SIGQUIT)
        self._log.unlink(missing_ok=True)


class Replicated:
    """The two servers, of which one is the primary. url: of the database, through the proxies, whichever it is."""

    recovery_limit = 90.0  # seconds
    settings: Mapping[str, str] = {}

    def __init__(self, nodes: tuple[Node, Node], proxies: dict[Node, Proxy]) -> None:
        self.primary, self.standby = nodes
        self.proxies = proxies
        hosts = ",".join(f"127.0.0.1:{proxies[node].port}" for node in nodes)
        self.url = f"postgresql://postgres@{hosts}/{DATABASE}"

    @property
    def own_url(self) -> str:
        """That of the primary, beside the proxy."""
        return self.primary.url

    async def begin_replication(self) -> None:
        """Makes the standby a copy of the primary, and lets commits wait for it."""
        await self.standby.copy(self.primary)
        await self.standby.start()
        await self.primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        async with within("a standby in step", DEADLINE), session(self.primary.maintenance_url) as connection:
            while True:
                [(number,)] = await (await connection.execute(IN_STEP.encode())).fetchall()
                if number:
                    return
                await asyncio.sleep(POLLING_INTERVAL)

    async def fail_over(self) -> None:
        """Ends the primary, and promotes the standby. `begin_replication` then makes the old primary its standby."""
        await self.primary.end(signal.SIGQUIT)
        self.primary, self.standby = self.standby, self.primary
        # The copy has the setting of the server that it was made of, and has no standby yet.
        await self.primary.execute(
            "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()", "SELECT pg_promote()"
        )

    def random_backend(self, randomness: random.Random) -> int | None:
        """A process that serves a client; None if there is none."""
        backends = self.primary.backends()
        return randomness.choice(backends) if backends else None


@asynccontextmanager
async def replicated() -> AsyncIterator[Replicated]:
    """Both servers with a migrated database, in step."""
    async with contextlib.AsyncExitStack() as exits:
        nodes: list[Node] = []
        for _ in range(2):
            disk = Disk()
            exits.callback(disk.remove)
            layout = Layout(disk.folder)
            node = Node(installation(layout, server_user(layout)), disk)
            exits.push_async_callback(node.remove)
            nodes.append(node)
        primary, standby = nodes
        await primary.create()
        await primary.start()
        await primary.execute(f"CREATE DATABASE {DATABASE}")
        proxies = {node: await exits.enter_async_context(proxied(node.port)) for node in nodes}
        servers = Replicated((primary, standby), proxies)
        await servers.begin_replication()
        migrate(primary.url)
        yield servers


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])

"""The databases that are compared: one on a plain PostgreSQL, and one on a cluster for each number of workers."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from sqlalchemy import URL, make_url

from bench.support import cpu
from bench.support.stack import PostgreSQL, settings_of
from cli.serving.processes import child_environment

PLAIN = "plain"
COORDINATOR = "coordinator"
MAX_MESSAGE = 500  # characters of what a command printed


class CannotMeasure(Exception):
    """A database that was named cannot be used; the message says which, and why."""


@dataclass(frozen=True)
class Place:
    """A database of the benchmark.

    workers: nodes that hold its customers; 0: one plain PostgreSQL. nodes: the URL of it at each node, by the node's
    name, the one that servers connect to first. settings: those of PostgreSQL that matter, of each node.
    """

    name: str
    workers: int
    nodes: Mapping[str, str]
    postmasters: Mapping[str, int]
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where servers and notifiers connect."""
        return next(iter(self.nodes.values()))

    def cpu(self) -> dict[str, float]:
        """The seconds of CPU so far, by node: of all its processes, those that have ended too."""
        return {name: cpu.tree_seconds(pid) for name, pid in self.postmasters.items()}

    def checkpoint(self) -> None:
        """Runs a checkpoint on each node, so that none starts during the measurement."""
        for url in self.nodes.values():
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("CHECKPOINT")

    def value(self, query: str) -> Any:
        """The first value that a query finds."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


@dataclass(frozen=True)
class Named:
    """What the command line names. plain, cluster: URLs; empty: the embedded server, and no cluster.

    workers: host and port of the workers of the cluster, each as the other nodes reach it.
    """

    plain: str = ""
    cluster: str = ""
    workers: Sequence[tuple[str, int]] = ()

    def counts(self) -> list[int]:
        """The numbers of workers that are measured: one, and all of them."""
        return sorted({1, len(self.workers)}) if self.workers else []


def parse_workers(text: str) -> list[tuple[str, int]]:
    """The workers of a list such as `10.0.0.2:5432,10.0.0.3:5432`. Raises ValueError."""
    found = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        host, colon, port = part.rpartition(":")
        if not (host and colon and port.isdecimal()):
            raise ValueError(f"{part!r} is not host:port")
        found.append((host, int(port)))
    return found


@asynccontextmanager
async def places(postgresql: PostgreSQL, named: Named) -> AsyncIterator[list[Place]]:
    """A new database in each place, empty; those on servers that were named are dropped at the end."""
    async with contextlib.AsyncExitStack() as exits:
        found = [await exits.enter_async_context(_plain(postgresql, named.plain))]
        for workers in named.counts():
            found.append(await exits.enter_async_context(_cluster(named, workers)))
        yield found


@asynccontextmanager
async def _plain(postgresql: PostgreSQL, url: str) -> AsyncIterator[Place]:
    name = f"bench_nodes_{os.getpid()}"
    if not url:
        yield _place(PLAIN, 0, {PLAIN: postgresql.create_database(name)})
        return
    with _database(make_url(url), name) as new:
        yield _place(PLAIN, 0, {PLAIN: new})


@asynccontextmanager
async def _cluster(named: Named, workers: int) -> AsyncIterator[Place]:
    """A database of the same name on the coordinator and on so many workers, with Tidemark's tables distributed."""
    coordinator, name = make_url(named.cluster), f"bench_nodes_{os.getpid()}_{workers}"
    used = named.workers[:workers]
    with contextlib.ExitStack() as exits:
        nodes = {COORDINATOR: exits.enter_context(_database(coordinator, name, citus=True))}
        for number, (host, port) in enumerate(used, start=1):
            worker = coordinator.set(host=host, port=port)
            nodes[f"worker {number}"] = exits.enter_context(_database(worker, name, citus=True))
        await _migrate(nodes[COORDINATOR], used)
        yield _place(f"{workers} worker{'s' if workers > 1 else ''}", workers, nodes)


@contextlib.contextmanager
def _database(server: URL, name: str, *, citus: bool = False) -> Any:
    """A new database on a server that was named; returns its URL. Dropped at the end."""
    url = server.set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'".encode())
        try:
            if citus:
                with psycopg.connect(url, autocommit=True) as new:
                    new.execute("CREATE EXTENSION citus")
            yield url
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def _migrate(url: str, workers: Sequence[tuple[str, int]]) -> None:
    """Migrates and distributes with the command that an operator uses. Raises CannotMeasure."""
    listed = ",".join(f"{host}:{port}" for host, port in workers)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "cli.main", "migrate", "--citus", "--nodes", listed),
        env=child_environment({"TIDEMARK_DATABASE_URL": url}, inherit=False),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    if process.returncode:
        raise CannotMeasure(f"tidemark migrate --citus --nodes {listed}: {printed.decode().strip()[-MAX_MESSAGE:]}")


def _place(name: str, workers: int, nodes: Mapping[str, str]) -> Place:
    settings = {}
    postmasters = {}
    for node, url in nodes.items():
        with psycopg.connect(url) as connection:
            settings[node] = settings_of(connection) | _extension(connection)
            postmasters[node] = postmaster(connection, node)
    return Place(name, workers, nodes, postmasters, settings)


def _extension(connection: psycopg.Connection[Any]) -> dict[str, str]:
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'citus'").fetchone()
    if row is None:
        return {}
    shards = connection.execute("SHOW citus.shard_count").fetchone()
    assert shards is not None
    return {"citus": str(row[0]), "citus.shard_count": str(shards[0])}


def postmaster(connection: psycopg.Connection[Any], node: str) -> int:
    """The process of which all processes of the node are children. Raises CannotMeasure for another machine's."""
    backend = cpu.parent(connection.info.backend_pid)
    found = backend and cpu.parent(backend[1])
    if backend is None or found is None or (backend[0], found[0]) != ("postgres", "postgres"):
        raise CannotMeasure(
            f"no process {connection.info.backend_pid} of PostgreSQL is on this machine: {node} runs elsewhere, or"
            " this system has no /proc. The CPU of a node is measured where the node runs"
        )
    return backend[1]

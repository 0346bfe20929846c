"""The PostgreSQL servers that tests use: one, or the nodes of a Citus cluster.

TIDEMARK_TEST_DATABASE_URL names a server, and TIDEMARK_TEST_CITUS_WORKERS the workers of which it is the coordinator,
as host:port,…. The integration ring then runs on the cluster. Each node has to accept the same user and password, and
have Citus in shared_preload_libraries; the URL is a superuser's.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

from store.citus.nodes import Node, parse_nodes
from store.migrate import migrate

_SHARDS = 4  # of each table: two on each of two workers. A copy of the database takes as long as it has files.
_ADDING = 1_717  # an advisory lock of the server's own database
_PATIENCE = 20  # tries to copy a database to which Citus' daemon connects again and again


def workers() -> list[Node]:
    """The workers that the environment names; none if the tests run on one server."""
    named = os.environ.get("TIDEMARK_TEST_CITUS_WORKERS")
    return parse_nodes(named) if named else []


class Nodes:
    """A connection to each node, outside of the databases that tests use, for statements on all nodes at once."""

    def __init__(self, url: str, others: list[Node]) -> None:
        self.url = url
        self._workers = others
        base = make_url(url)
        self._urls = [url, *(_shown(base.set(host=node.host, port=node.port)) for node in others)]
        self._connections = [psycopg.connect(one, autocommit=True) for one in self._urls]
        self._threads = ThreadPoolExecutor(len(self._connections))

    def execute(self, statement: str) -> None:
        """Executes the statement on each node."""
        list(self._threads.map(lambda connection: connection.execute(statement.encode()), self._connections))

    def urls_of(self, database: str) -> list[str]:
        """The URLs of a database on each node, the coordinator first."""
        return [_shown(make_url(url).set(database=database)) for url in self._urls]

    def url_on(self, worker: Node) -> str:
        """The URL of the server's own database on a worker."""
        return self._urls[1 + self._workers.index(worker)]

    def connect_again(self) -> None:
        """Replaces the connections to nodes that were ended."""
        for connection in self._connections:
            connection.close()
        self._connections = [psycopg.connect(one, autocommit=True) for one in self._urls]

    def migrate(self, database: str) -> None:
        """Migrates a new database, and distributes its tables if there are workers."""
        url, *_ = urls = self.urls_of(database)
        if self._workers:
            for one in urls:
                with psycopg.connect(one, autocommit=True) as connection:
                    connection.execute("CREATE EXTENSION citus")
            self.execute(f"ALTER DATABASE {database} SET citus.shard_count = {_SHARDS}")
        coordinator = self._connections[0]
        # To add a node changes roles, which all databases share: two test processes would fail with "tuple
        # concurrently updated".
        coordinator.execute("SELECT pg_advisory_lock(%s)", [_ADDING])
        try:
            migrate(url, cluster=self._workers or None)
        finally:
            coordinator.execute("SELECT pg_advisory_unlock(%s)", [_ADDING])

    def copy(self, name: str, template: str) -> None:
        """Copies a database on each node. FILE_COPY clones a small one faster than the default, which logs blocks."""
        list(self._threads.map(lambda one: _copy(one, name, template), self._connections))

    def drop(self, name: str) -> None:
        """Drops a database on each node."""
        list(self._threads.map(lambda one: _drop(one, name), self._connections))

    def close(self) -> None:
        """Closes the connections."""
        self._threads.shutdown()
        for connection in self._connections:
            connection.close()

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _copy(connection: psycopg.Connection[tuple[object, ...]], name: str, template: str) -> None:
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
        sql.Identifier(name), sql.Identifier(template)
    )
    for _ in range(_PATIENCE):
        # Citus' daemon and the sessions of other nodes stay in the template.
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [template])
        with suppress(psycopg.errors.ObjectInUse):
            connection.execute(statement)
            return
    connection.execute(statement)


def _drop(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    for _ in range(_PATIENCE):
        # Another node can connect just then.
        with suppress(psycopg.errors.ObjectInUse):
            connection.execute(statement)
            return
    connection.execute(statement)


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=False)

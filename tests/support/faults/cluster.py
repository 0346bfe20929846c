"""A database on the named cluster, of which each node is behind a proxy, and may be ended and started again.

What ends a node ends it for all databases: only one test run at a time can use the cluster.
"""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from sqlalchemy import make_url

from store.citus.nodes import Node
from tests.support.databases import Template
from tests.support.faults.proxy import Proxy, proxied
from tests.support.postgres.nodes import workers
from tests.support.postgres.worker_node import WorkerNode

_OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
_BACKENDS = f"SELECT pid {_OTHERS} AND backend_type = 'client backend'"
_END = f"SELECT pg_terminate_backend(pid) {_OTHERS}"


class FaultyNode:
    """A node of the cluster. url: of the database on it, beside the proxy."""

    def __init__(self, node: Node, url: str, proxy: Proxy) -> None:
        self.node = node
        self.url = url
        self.proxy = proxy
        self.server = WorkerNode(node, url)

    def backends(self) -> list[int]:
        """The processes that serve clients and other nodes."""
        with psycopg.connect(self.url) as connection:
            return [row[0] for row in connection.execute(_BACKENDS.encode()).fetchall()]

    def end_sessions(self) -> None:
        """Ends all sessions of the database."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(_END.encode())


class Cluster:
    """The database on all nodes. nodes: the coordinator, and the workers. url: through the coordinator's proxy."""

    recovery_limit = 180.0  # seconds; Citus ends what a crash left prepared each minute

    def __init__(self, url: str, nodes: list[FaultyNode]) -> None:
        self.nodes = nodes
        self.own_url = url
        coordinator, *others = nodes
        through = make_url(url).set(host="127.0.0.1", port=coordinator.proxy.port)
        self.url = through.render_as_string(hide_password=False)
        pairs = ",".join(f"{one.node}=127.0.0.1:{one.proxy.port}" for one in others)
        self.settings = {"TIDEMARK_DATABASE_NODES": pairs}


@asynccontextmanager
async def cluster(template: Template) -> AsyncIterator[Cluster]:
    """A migrated database of the block's own on the named cluster."""
    with template.lent_database(months=False) as url:
        urls = template.nodes.urls_of(str(make_url(url).database))
        coordinator = make_url(url)
        assert coordinator.host is not None
        places = [Node(coordinator.host, coordinator.port or 5432), *workers()]
        async with contextlib.AsyncExitStack() as exits:
            nodes = []
            for node, one in zip(places, urls, strict=True):
                proxy = await exits.enter_async_context(proxied(node.port))
                nodes.append(FaultyNode(node, one, proxy))
            try:
                yield Cluster(url, nodes)
            finally:
                template.nodes.connect_again()  # a node that was ended has ended these connections, too

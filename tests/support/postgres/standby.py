"""A standby of a worker of the named cluster: it follows synchronously, and takes over at a port of its own.

It lies on this machine, beside the worker, and belongs to the same user.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

from store.citus.nodes import Node
from store.postgres.addresses import at_node
from tests.support.postgres.worker_node import WorkerNode
from tests.support.processes.envoy import free_ports
from tests.support.processes.programs import until

_NODE = "SELECT nodeid FROM pg_dist_node WHERE nodename = %s AND nodeport = %s"
_UPDATE = "SELECT citus_update_node(%s, %s, %s)"
_IS_SYNCHRONOUS = "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'"


class Standby:
    """A standby that runs. node: where it accepts connections when it has taken over."""

    def __init__(self, worker: WorkerNode, node: Node, folder: Path) -> None:
        self.node = node
        self._worker = worker
        self._folder = folder

    async def promote(self) -> None:
        """Ends its recovery; from then on it accepts writes."""
        await self._worker.pg_ctl("promote", self._folder)

    def url(self, url: str) -> str:
        """The URL of a database on it. url: of the same one on the coordinator."""
        return at_node(url, str(self.node))

    async def stop(self) -> None:
        """Ends it."""
        await self._worker.pg_ctl("stop", self._folder, "--mode", "immediate")

    def replace(self, url: str, failed: Node) -> None:
        """Lets the cluster use it in place of a node. url: of a database on the coordinator."""
        with psycopg.connect(url, autocommit=True) as connection:
            [(nodeid,)] = connection.execute(_NODE, [failed.host, failed.port]).fetchall()
            connection.execute(_UPDATE, [nodeid, self.node.host, self.node.port])


@asynccontextmanager
async def synchronous_standby(worker: WorkerNode) -> AsyncIterator[Standby]:
    """A standby of a worker, for whose copy each commit of the worker waits.

    At the end, the worker runs, as it was before; the block may have ended it.
    """
    base = Path(tempfile.mkdtemp(prefix="tidemark-standby-"))
    worker.give(base)
    folder, [port] = base / "data", free_ports(1)
    try:
        await worker.copy_to(folder, follows=True)
        options = f"-c port={port} -c unix_socket_directories='{base}' -c synchronous_standby_names=''"
        await worker.pg_ctl("start", folder, "--options", options, "--log", base / "log")
        standby = Standby(worker, Node(worker.node.host, port), folder)
        try:
            worker.set("synchronous_standby_names", "*")
            await until(lambda: worker.value(_IS_SYNCHRONOUS) is True, "a standby that follows")
            yield standby
        finally:
            if not worker.runs():
                await worker.start()
            worker.set("synchronous_standby_names", "")  # at each commit, it would wait for a standby
            await standby.stop()
    finally:
        shutil.rmtree(base)

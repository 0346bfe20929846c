"""A backup of the named cluster while it is used, and the cluster that is restored from it, as docs/scaling.md says.

The restored nodes lie on this machine, beside the nodes of which they are copies, and belong to the same user.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from store.citus.nodes import Node
from store.postgres.addresses import at_node
from tests.support.postgres.worker_node import WorkerNode
from tests.support.processes.envoy import free_ports
from tests.support.processes.programs import until

_POINT = "SELECT citus_create_restore_point(%s)"
_SWITCH = "SELECT pg_walfile_name(pg_switch_wal())"
_ADDRESSES = """
SELECT citus_update_node(nodeid, %(host)s, %(new)s) FROM pg_dist_node WHERE nodename = %(host)s AND nodeport = %(old)s
"""
_RECOVER = "SELECT recover_prepared_transactions()"


@dataclass
class _NodeBackup:
    """The copy of a node. archive: of its log."""

    node: WorkerNode
    folder: Path

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    def keep_log(self) -> None:
        """Copies the log, as `archive_command` does segment by segment; the last one is complete."""
        self.node.value(_SWITCH)
        self.archive.mkdir()
        for one in self.node.log_files():
            shutil.copy(one, self.archive)
        for path in (self.archive, *self.archive.iterdir()):
            self.node.give(path)


class ClusterBackup:
    """The backup of a cluster. url: of a database on its coordinator."""

    def __init__(self, url: str, workers: list[Node], folder: Path) -> None:
        self._url = url
        where = conninfo_to_dict(url)
        coordinator = Node(str(where["host"]), int(str(where["port"])))
        # The coordinator last: so are they restored.
        nodes = [WorkerNode(one, at_node(url, str(one))) for one in (*workers, coordinator)]
        self._nodes = [_NodeBackup(one, folder / str(one.node.port)) for one in nodes]
        folder.chmod(0o755)  # each node has a folder of its own in it
        for one in self._nodes:
            one.folder.mkdir()
            one.node.give(one.folder)

    async def take(self) -> None:
        """Copies the data of each node."""
        for one in self._nodes:
            await one.node.copy_to(one.folder / "data", follows=False)

    def point(self, name: str) -> None:
        """Gives the present a name in the log of each node, and keeps the logs."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(_POINT, [name])
        for one in self._nodes:
            one.keep_log()

    @asynccontextmanager
    async def restored(self, name: str) -> AsyncIterator[str]:
        """The URL of the database in a cluster that is restored to a point."""
        ports = dict(zip((one.node.node.port for one in self._nodes), free_ports(len(self._nodes)), strict=True))
        async with AsyncExitStack() as exits:
            for one in self._nodes:
                await _start(one, ports[one.node.node.port], name)
                exits.push_async_callback(one.node.pg_ctl, "stop", one.folder / "data", "--mode", "immediate")
            coordinator = self._nodes[-1].node.node
            url = at_node(self._url, f"{coordinator.host}:{ports[coordinator.port]}")
            with psycopg.connect(url, autocommit=True) as connection:
                for one in self._nodes:
                    node = one.node.node
                    moved = {"host": node.host, "old": node.port, "new": ports[node.port]}
                    connection.execute(_ADDRESSES, moved)
                connection.execute(_RECOVER)
            yield url


async def _start(backup: _NodeBackup, port: int, name: str) -> None:
    """Starts the copy of a node, which recovers to a point and then accepts writes."""
    signal = backup.folder / "data" / "recovery.signal"
    signal.touch()
    backup.node.give(signal)
    settings = {
        "port": str(port),
        "unix_socket_directories": str(backup.folder),
        "restore_command": f'cp "{backup.archive}/%f" "%p"',
        "recovery_target_name": name,
        "recovery_target_action": "promote",
        # It knows the addresses of the nodes of which it is a copy. They are in use, also by other tests.
        "citus.recover_2pc_interval": "-1",
    }
    options = " ".join(f"-c {key}='{value}'" for key, value in settings.items())
    await backup.node.pg_ctl("start", backup.folder / "data", "--options", options, "--log", backup.folder / "log")
    where = Node(backup.node.node.host, port)
    await until(lambda: backup.node.value("SELECT pg_is_in_recovery()", at=where) is False, f"{name} on a node")


@asynccontextmanager
async def backup_of(url: str, workers: list[Node]) -> AsyncIterator[ClusterBackup]:
    """A backup that is removed at the end. url: of a database on the coordinator."""
    folder = Path(tempfile.mkdtemp(prefix="tidemark-backup-"))
    try:
        yield ClusterBackup(url, workers, folder)
    finally:
        shutil.rmtree(folder)

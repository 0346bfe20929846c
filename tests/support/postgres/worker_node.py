"""A node of the named cluster that a test ends and starts again, and the customers whose rows lie on it.

It ends or stops the server for all databases: no other test can use the cluster meanwhile.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from store.citus.nodes import Node
from store.postgres.addresses import at_node
from tests.support.postgres.nodes import workers
from tests.support.processes.programs import until
from tests.support.processes.up import started_by

_WHERE = "SELECT current_setting('data_directory'), setting FROM pg_config WHERE name = 'BINDIR'"
_PID_FILE = "postmaster.pid"
_PLACED = """
SELECT c.id, p.shardid, n.nodename, n.nodeport
FROM unnest(%(customers)s::text[]) AS c (id)
JOIN pg_dist_placement p ON p.shardid = get_shard_id_for_distribution_column('wallet', c.id)
JOIN pg_dist_node n ON n.groupid = p.groupid
"""
_MOST_TRIES = 10  # to move shards, before a deadlock fails the test
_ORPHANED = "leftover from the previous move"
_MOVE = "SELECT citus_move_shard_placement(%s, %s, %s, %s, %s, shard_transfer_mode := 'block_writes')"


class WorkerNode:
    """A worker, or the coordinator, on this machine. url: of a database on it."""

    def __init__(self, node: Node, url: str) -> None:
        self.node = node
        self._url = url
        with psycopg.connect(url) as connection:
            [(folder, programs)] = connection.execute(_WHERE).fetchall()
        self._folder, self._programs = Path(folder), Path(programs)
        if not (self._folder / _PID_FILE).exists():
            pytest.skip(f"the node {node.host}:{node.port} is not on this machine, so the test cannot end it")

    async def crash(self) -> None:
        """Ends it with nothing written out but what had to be; it recovers when it starts."""
        os.kill(self._pid(), signal.SIGQUIT)
        await until(lambda: not self.runs(), "the end of the node")

    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return (self._folder / _PID_FILE).exists()

    def processes(self) -> list[int]:
        """Its first process, and those that this has started."""
        pid = self._pid()
        return [pid, *started_by(pid)]

    def _pid(self) -> int:
        return int((self._folder / _PID_FILE).read_text().split()[0])

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stops all of its processes for the time of the block: connections stay open, and nothing answers."""
        postmaster = int((self._folder / _PID_FILE).read_text().split()[0])
        stopped = [postmaster]
        os.kill(postmaster, signal.SIGSTOP)  # it starts no more
        stopped += [int(one) for one in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()]
        for pid in stopped[1:]:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    async def start(self) -> None:
        """Starts it, as the user that owns its folder, and waits until it accepts connections."""
        await self.pg_ctl("start", self._folder, "--log", self._folder / "test.log")

    async def pg_ctl(self, command: str, folder: Path, *options: str | Path) -> None:
        """Runs pg_ctl for a folder of the same user, and waits for what it does."""
        await self._run("pg_ctl", command, "--pgdata", folder, "--wait", *options)

    async def copy_to(self, folder: Path, *, follows: bool) -> None:
        """Copies its data. follows: as a standby that follows it needs them."""
        where = conninfo_to_dict(self._url)
        await self._run(
            "pg_basebackup",
            "--dbname",
            make_conninfo("", host=where["host"], port=where["port"], user=where["user"]),
            *("--pgdata", folder, "--checkpoint", "fast", "--no-sync"),
            *(["--write-recovery-conf"] if follows else []),
        )

    def log_files(self) -> list[Path]:
        """The segments of its log that it has."""
        return [one for one in (self._folder / "pg_wal").iterdir() if one.is_file()]

    def give(self, path: Path) -> None:
        """Lets its user own a folder."""
        owner = self._folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid)

    def set(self, name: str, value: str) -> None:
        """Gives a setting of the server another value; an empty one: that of its files."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            change = f"SET {name} = '{value}'" if value else f"RESET {name}"
            connection.execute(f"ALTER SYSTEM {change}".encode())
            connection.execute("SELECT pg_reload_conf()")

    def value(self, query: str, *, at: Node | None = None) -> Any:
        """The value that a query has there, or at a copy of it."""
        url = self._url if at is None else at_node(self._url, str(at))
        with psycopg.connect(url, autocommit=True) as connection:
            [(found,)] = connection.execute(query.encode()).fetchall()
            return found

    async def _run(self, program: str, *arguments: str | Path) -> None:
        owner = self._folder.stat()
        own = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
        await asyncio.to_thread(_run, [self._programs / program, *arguments], own)


def _run(command: list[str | Path], own: dict[str, Any]) -> None:
    # The server inherits the output, and would hold a pipe open; and the environment, in which it would look for the
    # certificates of another user.
    variables = {name: value for name, value in os.environ.items() if name != "HOME"}
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", env=variables, **own
    )


def customers_by_node(url: str, customers: list[str]) -> dict[Node, list[str]]:
    """The customers whose rows lie on each worker. url: of a database on the coordinator."""
    found: dict[Node, list[str]] = {}
    for customer_id, _, host, port in _placed(url, customers):
        found.setdefault(Node(host, port), []).append(customer_id)
    return found


def shards_of(url: str, customers: list[str]) -> dict[str, int]:
    """The number of each customer's shard. url: of a database on the coordinator."""
    return {customer_id: shard for customer_id, shard, _, _ in _placed(url, customers)}


def move_shard(url: str, customer_id: str, target: Node) -> None:
    """Moves the rows of a customer, and those of the others in its shard, to another worker.

    A move that Citus ends, with nothing changed, is repeated: it was in a deadlock with commits, or Citus is still
    deleting the shard that an earlier move has left there.
    """
    [(_, shard, host, port)] = _placed(url, [customer_id])
    with psycopg.connect(url, autocommit=True) as connection:
        for left in reversed(range(_MOST_TRIES)):
            try:
                connection.execute(_MOVE, [shard, host, port, target.host, target.port])
            except (psycopg.errors.DeadlockDetected, psycopg.errors.InternalError_) as error:
                is_known = isinstance(error, psycopg.errors.DeadlockDetected) or _ORPHANED in str(error)
                if not left or not is_known:
                    raise
            else:
                return


def move_away(url: str, customer_id: str) -> None:
    """Moves the shard of a customer to another worker, as `move_shard`."""
    [here] = customers_by_node(url, [customer_id])
    move_shard(url, customer_id, next(one for one in workers() if one != here))


def take_shards_away(url: str, worker: Node) -> None:
    """Moves all shards of a worker to the others, as an operator does who removes it; rows are written meanwhile.

    Citus ends a move that is in a deadlock with commits; those before it stay.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        for left in reversed(range(_MOST_TRIES)):
            try:
                connection.execute("SELECT citus_drain_node(%s, %s)", [worker.host, worker.port])
            except psycopg.errors.DeadlockDetected:
                if not left:
                    raise
            else:
                return


def give_shards(url: str, worker: Node) -> None:
    """Moves shards to a worker that has none, as an operator does who has added it; rows are written meanwhile."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT citus_set_node_property(%s, %s, 'shouldhaveshards', true)", [worker.host, worker.port]
        )
        connection.execute("SELECT citus_rebalance_start(rebalance_strategy => 'by_shard_count')")
        connection.execute("SELECT citus_rebalance_wait()")


def sessions_at(worker_url: str, url: str) -> int:
    """How many processes have sessions of their own at a worker for the database at `url`."""
    with psycopg.connect(worker_url) as connection:
        row = connection.execute(
            "SELECT count(DISTINCT application_name) FROM pg_stat_activity"
            " WHERE datname = %s AND application_name LIKE 'tidemark node %%'",
            [conninfo_to_dict(url)["dbname"]],
        ).fetchone()
        assert row is not None
        return int(row[0])


def _placed(url: str, customers: list[str]) -> list[TupleRow]:
    with psycopg.connect(url) as connection:
        return connection.execute(_PLACED, {"customers": customers}).fetchall()

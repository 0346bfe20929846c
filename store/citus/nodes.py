"""The nodes of a cluster: what they have to offer, and how workers are added."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from runtime.redaction import error_text
from store.citus.errors import NotACluster
from store.postgres.addresses import parameters
from store.postgres.distributed import has_citus

OLDEST_CITUS = (13, 0)
DEFAULT_PORT = 5432
LEAST_SEATS = 2  # transactions of usage that one process runs at a worker at the same time, at least


@dataclass(frozen=True)
class Node:
    """The address of a PostgreSQL server, as the other nodes reach it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def seats_at_node(seats: int, workers: int) -> int:
    """The connections of a process to each worker; seats: transactions of usage that it runs at one PostgreSQL."""
    return max(LEAST_SEATS, seats // max(workers, 1))


def parse_nodes(text: str) -> list[Node]:
    """The nodes of a list such as `worker-1:5432,worker-2`. Raises ValueError."""
    return [_parse(part.strip()) for part in text.split(",")]


def _parse(part: str) -> Node:
    host, colon, port = part.rpartition(":") if part.rpartition(":")[2].isdecimal() else (part, "", "")
    if not host or (colon and not 0 < int(port) < 65536) or any(sign in host for sign in "/@ ") or host[-1] == ":":
        raise ValueError(f"{part!r} is not host or host:port")
    return Node(host.strip("[]"), int(port) if colon else DEFAULT_PORT)


def check_extension(connection: Connection) -> None:
    """Raises NotACluster unless the database is that of a coordinator, with a usable version of Citus."""
    if not has_citus(connection):
        raise NotACluster(
            "the database has no extension Citus",
            "install Citus on each node, put citus first into shared_preload_libraries, and restart",
            "run CREATE EXTENSION citus in this database on each node",
        )
    version = str(connection.scalar(text("SELECT extversion FROM pg_extension WHERE extname = 'citus'")))
    if _version(version) < OLDEST_CITUS:
        oldest = ".".join(map(str, OLDEST_CITUS))
        raise NotACluster(
            f"Citus {oldest} or newer is needed; this database has {version}",
            "upgrade Citus on each node, then run ALTER EXTENSION citus UPDATE in this database on each",
        )
    if connection.scalar(text("SELECT groupid FROM pg_dist_local_group")) != 0:
        raise NotACluster(
            "this server is a worker of its cluster, and not the coordinator",
            "put the address of the coordinator into TIDEMARK_DATABASE_URL",
        )


def _version(extversion: str) -> tuple[int, ...]:
    # For example 13.2-1.
    return tuple(int(number) for number in extversion.partition("-")[0].split(".") if number.isdecimal())


def add_nodes(connection: Connection, url: str, nodes: Sequence[Node]) -> list[Node]:
    """Adds those of `nodes` that the cluster lacks, and this server as its coordinator; returns the new ones.

    url: where this process reaches the coordinator. Workers have to reach it there, too. Commits.
    """
    known = set(connection.scalars(text("SELECT nodename || ':' || nodeport FROM pg_dist_node")))
    if not _has_coordinator(connection):
        _add_coordinator(connection, url)
    added = [node for node in nodes if str(node) not in known]
    for node in added:
        try:
            connection.execute(text("SELECT citus_add_node(:host, :port)"), {"host": node.host, "port": node.port})
        except DBAPIError as error:
            raise NotACluster(
                f"the node {node} cannot be added: {error_text(error)}",
                "check that it runs and that this server reaches it, with a password in ~/.pgpass if it asks for one",
                "its database of the same name needs the extension citus, and no tables",
            ) from error
    connection.commit()
    return added


def _has_coordinator(connection: Connection) -> bool:
    return bool(connection.scalar(text("SELECT EXISTS (SELECT FROM pg_dist_node WHERE groupid = 0)")))


def _add_coordinator(connection: Connection, url: str) -> None:
    address = parameters(url)
    host, port = address.get("host", ""), address.get("port", str(DEFAULT_PORT))
    if not host or host[0] in "/@" or "," in host:
        raise NotACluster(
            "the cluster does not know the address of its coordinator, and the URL of the database names no host",
            "run SELECT citus_set_coordinator_host('HOST', PORT) with the address that workers reach, or name it in"
            " TIDEMARK_DATABASE_URL",
        )
    connection.execute(
        text("SELECT citus_set_coordinator_host(:host, :port)"),
        {"host": host, "port": int(port)},
    )


# The settings of each node that answers; a node that does not answer has an error instead.
_SETTINGS = text("""
SELECT n.nodename || ':' || n.nodeport, r.success, r.result
FROM run_command_on_all_nodes('SELECT current_setting(''max_prepared_transactions'')') AS r
JOIN pg_dist_node n USING (nodeid)
ORDER BY 1
""")
_HOLDERS = text("SELECT count(*) FROM pg_dist_node WHERE isactive AND noderole = 'primary' AND shouldhaveshards")


def check_nodes(connection: Connection) -> None:
    """Raises NotACluster unless each node answers and can prepare transactions, and one of them takes shards."""
    if not _has_coordinator(connection):
        raise NotACluster(
            "the cluster does not know the address of its coordinator",
            "run SELECT citus_set_coordinator_host('HOST', PORT) with the address that workers reach",
        )
    for node, answers, value in connection.execute(_SETTINGS):
        if not answers:
            raise NotACluster(f"the node {node} does not answer: {value}", "start it, or remove it from the cluster")
        if int(value) == 0:
            raise NotACluster(
                f"max_prepared_transactions is 0 on the node {node}: no transaction could change two nodes",
                "set it on each node to the connections of all servers and notifiers together, and restart",
            )
    holders = int(connection.scalar(_HOLDERS) or 0)
    if holders == 0:
        raise NotACluster("the cluster has no worker", "name the workers with --nodes host:port,host:port")
    shards = int(connection.scalar(text("SELECT current_setting('citus.shard_count')")) or 0)
    if shards < holders:
        raise NotACluster(
            f"citus.shard_count is {shards}, and {holders} nodes take shards: some would get none",
            "set it to 8 to 16 for each worker that is planned; it cannot grow later without a copy of all tables",
        )

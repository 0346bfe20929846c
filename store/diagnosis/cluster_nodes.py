"""What each node of a Citus cluster is set to, and whether this machine reaches it as a server would."""

import asyncio
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import psycopg

from runtime.redaction import error_text
from store.postgres import sessions
from store.postgres.database import DriverConnection

CONNECT_SECONDS = 1  # in which a node has to accept a connection


@dataclass(frozen=True)
class NodeState:
    """A node that answers.

    group: 0 of the coordinator. version: of PostgreSQL, 150020. citus: of the extension. usable: the most sessions
    that are not reserved for superusers. used: sessions of any program.
    """

    name: str
    group: int
    version: int
    citus: str
    usable: int
    used: int
    settings: Mapping[str, str]


# Each node executes it for itself.
_STATE = """
SELECT json_build_object(
    'version', current_setting('server_version_num')::integer,
    'citus', (SELECT extversion FROM pg_extension WHERE extname = 'citus'),
    'usable', current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
    'used', (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    'settings', (SELECT json_object_agg(name, current_setting(name)) FROM pg_settings WHERE name IN ({names}))
)
"""
_STATES = """
SELECT n.nodename || ':' || n.nodeport, n.groupid, r.result
FROM run_command_on_all_nodes(%s) AS r JOIN pg_dist_node n USING (nodeid)
WHERE r.success ORDER BY n.groupid, 1
"""


async def states(connection: DriverConnection, names: Collection[str]) -> list[NodeState]:
    """The nodes that answer, the coordinator first, with these settings as far as they have them."""
    command = _STATE.format(names=", ".join(f"'{name}'" for name in sorted(names)))
    rows = await (await connection.execute(_STATES, (command,))).fetchall()
    return [NodeState(name, group, **json.loads(result)) for name, group, result in rows]


# The main pool of a process has no word between the program's name and that of the process.
_PROCESSES = r"""
SELECT count(DISTINCT application_name) FROM pg_stat_activity
WHERE datname = current_database() AND application_name ~ '^tidemark [^ ]+:\d+$'
"""
_OUT_OF_SYNC = """
SELECT nodename || ':' || nodeport FROM pg_dist_node
WHERE groupid <> 0 AND noderole = 'primary' AND NOT (isactive AND hasmetadata AND metadatasynced) ORDER BY 1
"""
_WORKERS = """
SELECT nodename || ':' || nodeport, groupid FROM pg_dist_node
WHERE groupid <> 0 AND noderole = 'primary' AND shouldhaveshards ORDER BY 1
"""


async def processes(connection: DriverConnection) -> int:
    """Servers and notifiers that are connected to the coordinator."""
    row = await (await connection.execute(_PROCESSES.encode())).fetchone()
    return 0 if row is None else int(row[0])


async def out_of_sync(connection: DriverConnection) -> list[str]:
    """The nodes that are switched off, or that do not know the tables and places of the cluster."""
    return [name for (name,) in await (await connection.execute(_OUT_OF_SYNC.encode())).fetchall()]


async def workers(connection: DriverConnection) -> Mapping[str, int]:
    """The workers that take shards: their names, and their groups."""
    return dict(await (await connection.execute(_WORKERS.encode())).fetchall())


async def group_at(url: str) -> int | str:
    """The group of the node at a URL, or why it cannot be reached."""
    try:
        async with asyncio.timeout(2 * CONNECT_SECONDS):
            connection = await psycopg.AsyncConnection.connect(
                sessions.connection_string(url, "doctor"), connect_timeout=CONNECT_SECONDS, autocommit=True
            )
            async with connection:
                row = await (await connection.execute("SELECT groupid FROM pg_dist_local_group")).fetchone()
                return "it is no node of a cluster" if row is None else int(row[0])
    except TimeoutError:
        return "it does not answer"
    except psycopg.Error as error:
        return error_text(error).partition("\n")[0]

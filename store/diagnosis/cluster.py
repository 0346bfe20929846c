"""The Citus cluster: its nodes, where the tables lie, shards, and transactions that are prepared."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import store.tables  # noqa: F401 - all tables, so that all placements are known
from store.postgres.database import DriverConnection
from store.postgres.distributed import HAS_CITUS
from store.tables.placement import ANCHOR, Placement, placements

# Citus itself ends those of a coordinator that died, every citus.recover_2pc_interval: a minute, if it is not set.
LONG_PREPARED = timedelta(minutes=2)
OF_CITUS = "citus_"  # how the names begin that Citus gives to prepared transactions


@dataclass(frozen=True)
class Prepared:
    """A transaction that is prepared at a node. gid: its name there."""

    gid: str
    age: timedelta


@dataclass(frozen=True)
class Node:
    """A node. error: why it does not answer; then the rest is unknown. long_prepared: the oldest one first."""

    name: str
    error: str | None
    long_prepared: Sequence[Prepared]
    shards: int
    takes_shards: bool


async def version(connection: DriverConnection) -> str | None:
    """The version of the extension Citus; None if the database has none."""
    row = await (await connection.execute(f"SELECT {HAS_CITUS}".encode())).fetchone()
    if row is None or not row[0]:
        return None
    row = await (await connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'citus'")).fetchone()
    return None if row is None else str(row[0])


_NODES = b"""
SELECT n.nodename || ':' || n.nodeport, r.success, r.result, n.shouldhaveshards, (
    SELECT count(*) FROM pg_dist_placement p JOIN pg_dist_shard s USING (shardid)
    WHERE p.groupid = n.groupid AND s.logicalrelid = to_regclass(%(anchor)s)
)
FROM run_command_on_all_nodes(format(
    'SELECT coalesce(json_agg(json_build_array(gid, extract(epoch FROM now() - prepared)) ORDER BY prepared), ''[]'')'
    ' FROM pg_prepared_xacts WHERE database = current_database() AND prepared < now() - %%L::interval',
    %(long)s::text
)) AS r JOIN pg_dist_node n USING (nodeid)
ORDER BY 1
"""


async def nodes(connection: DriverConnection) -> list[Node]:
    """The nodes of the cluster, this one among them."""
    parameters = {"anchor": ANCHOR, "long": f"{LONG_PREPARED.total_seconds():.0f} seconds"}
    found = []
    for name, answers, result, takes_shards, shards in await (
        await connection.execute(_NODES, parameters)
    ).fetchall():
        waiting = [Prepared(gid, timedelta(seconds=age)) for gid, age in json.loads(result)] if answers else []
        found.append(Node(name, None if answers else result, waiting, shards, takes_shards))
    return found


_PLACED = b"""
SELECT c.relname, p.partmethod::text, p.repmodel::text
FROM pg_dist_partition p JOIN pg_class c ON c.oid = p.logicalrelid WHERE NOT c.relispartition
"""
_KINDS: Mapping[Placement, tuple[str, str] | None] = {
    Placement.BY_CUSTOMER: ("h", "s"),
    Placement.EVERY_NODE: ("n", "t"),
    Placement.COORDINATOR: ("n", "s"),
    Placement.COORDINATOR_ALONE: None,
}


async def misplaced(connection: DriverConnection) -> Mapping[str, Placement] | None:
    """The tables that lie elsewhere than decided, with where they should; None if no table is distributed."""
    rows = await (await connection.execute(_PLACED)).fetchall()
    found = {name: (method, model) for name, method, model in rows}
    if ANCHOR not in found:
        return None
    return {name: place for name, place in placements().items() if found.get(name) != _KINDS[place]}


def without_answer(found: Sequence[Node]) -> list[Node]:
    """The nodes that do not answer."""
    return [node for node in found if node.error is not None]


@dataclass(frozen=True)
class MoveSlot:
    """A replication slot that a move or a split of a shard made, and that nothing reads. size: bytes of its log."""

    node: str
    name: str
    size: int


_MOVE_SLOTS = r"""
SELECT n.nodename || ':' || n.nodeport, r.result
FROM run_command_on_all_nodes($$
    SELECT coalesce(json_agg(json_build_array(
        slot_name, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)
    ) ORDER BY slot_name), '[]')
    FROM pg_replication_slots
    WHERE slot_name LIKE 'citus\_shard\_%' AND database = current_database() AND NOT active
$$) AS r JOIN pg_dist_node n USING (nodeid)
WHERE r.success ORDER BY 1
"""


async def move_slots(connection: DriverConnection) -> list[MoveSlot]:
    """The slots of moves and splits on the nodes that answer, without those that are being read."""
    rows = await (await connection.execute(_MOVE_SLOTS.encode())).fetchall()
    return [MoveSlot(node, name, int(size)) for node, result in rows for name, size in json.loads(result)]

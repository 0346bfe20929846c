"""The tables: partitions, dead rows, vacuums, transaction ids."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from store.postgres.database import DriverConnection


@dataclass(frozen=True)
class Partitions:
    """The partitions of the event table by month, and those of deliveries and attempts by day (UTC)."""

    months: frozenset[datetime]
    delivery_days: frozenset[date]
    attempt_days: frozenset[date]


_PARTITIONS = """
SELECT inhparent::regclass::text, c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
WHERE inhparent = ANY(ARRAY[to_regclass('event'), to_regclass('delivery'), to_regclass('attempt')])
"""


async def partitions(connection: DriverConnection) -> Partitions:
    """The partitions that exist."""
    months, days = set[datetime](), dict[str, set[date]]()
    for parent, name in await (await connection.execute(_PARTITIONS)).fetchall():
        suffix = name.removeprefix(f"{parent}_")
        if parent == "event":
            months.add(datetime.strptime(suffix, "%Y_%m").replace(tzinfo=UTC))
        elif suffix.isdecimal():
            days.setdefault(parent, set()).add(datetime.strptime(suffix, "%Y%m%d").replace(tzinfo=UTC).date())
    return Partitions(frozenset(months), frozenset(days.get("delivery", ())), frozenset(days.get("attempt", ())))


@dataclass(frozen=True)
class TableHealth:
    """The statistics of a table, or of all its shards on one node of a cluster.

    vacuum_time: of its last vacuum, by hand or automatic; None: there was none. node: None of a table that lies here.
    """

    name: str
    live: int
    dead: int
    size: int
    vacuum_time: datetime | None
    analyze_time: datetime | None
    is_vacuumed: bool
    node: str | None = None


_TABLES = """
SELECT s.relname, s.n_live_tup, s.n_dead_tup, pg_total_relation_size(s.relid),
    greatest(s.last_vacuum, s.last_autovacuum), greatest(s.last_analyze, s.last_autoanalyze),
    NOT coalesce(c.reloptions && ARRAY['autovacuum_enabled=false', 'autovacuum_enabled=off'], false)
FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
WHERE s.relname = ANY(%(names)s) AND s.schemaname = ANY(current_schemas(false))
"""


async def tables(connection: DriverConnection, names: Sequence[str]) -> list[TableHealth]:
    """The statistics of those of the tables that exist."""
    cursor = await connection.execute(_TABLES, {"names": list(names)})
    return [TableHealth(*row) for row in await cursor.fetchall()]


# Each node executes it for the shards that lie on it.
_SHARDS_HERE = """
SELECT json_agg(json_build_array(name, live, dead, size, vacuumed, analyzed, is_vacuumed)) FROM (
    SELECT s.logicalrelid::text AS name, sum(pg_stat_get_live_tuples(c.oid)) AS live,
        sum(pg_stat_get_dead_tuples(c.oid)) AS dead, sum(pg_total_relation_size(c.oid)) AS size,
        max(greatest(pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid))) AS vacuumed,
        max(greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid))) AS analyzed,
        NOT bool_or(coalesce(
            c.reloptions && ARRAY['autovacuum_enabled=false', 'autovacuum_enabled=off'], false
        )) AS is_vacuumed
    FROM pg_dist_placement p JOIN pg_dist_shard s USING (shardid)
    JOIN pg_class c ON c.oid = to_regclass(shard_name(s.logicalrelid, s.shardid))
    WHERE p.groupid = (SELECT groupid FROM pg_dist_local_group)
        AND s.logicalrelid = ANY(ARRAY(SELECT to_regclass(name) FROM unnest(ARRAY[{names}]) AS t (name)))
    GROUP BY s.logicalrelid
) AS found
"""
_SHARDS = """
SELECT n.nodename || ':' || n.nodeport, r.result
FROM run_command_on_all_nodes(%s) AS r JOIN pg_dist_node n USING (nodeid)
WHERE r.success AND r.result <> '' ORDER BY 1
"""


async def shard_tables(connection: DriverConnection, names: Sequence[str]) -> list[TableHealth]:
    """The statistics of the shards of these tables on each node of a cluster that answers."""
    command = _SHARDS_HERE.format(names=", ".join(f"'{name}'" for name in names))
    found = []
    for node, result in await (await connection.execute(_SHARDS, (command,))).fetchall():
        for name, live, dead, size, vacuumed, analyzed, is_vacuumed in json.loads(result):
            found.append(TableHealth(name, live, dead, size, _time(vacuumed), _time(analyzed), is_vacuumed, node))
    return found


def _time(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


async def transaction_age(connection: DriverConnection) -> int:
    """How many transactions ago the oldest row was written that is not frozen; PostgreSQL stops at two billion."""
    cursor = await connection.execute("SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])

"""The tables: partitions, dead rows, vacuums, transaction ids."""

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
    """The statistics of a table. vacuum_time: of its last vacuum, by hand or automatic; None: there was none."""

    name: str
    live: int
    dead: int
    size: int
    vacuum_time: datetime | None
    analyze_time: datetime | None
    is_vacuumed: bool


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


async def transaction_age(connection: DriverConnection) -> int:
    """How many transactions ago the oldest row was written that is not frozen; PostgreSQL stops at two billion."""
    cursor = await connection.execute("SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])

"""Moves each table to its place on the cluster, as `store.tables.placement` says.

All tables move in one transaction. Until it commits nothing has changed, so a process that is killed in the middle
leaves the database as it was, and the next run starts again. Afterwards each statement finds the rows on the workers;
the coordinator's own copy of them, which no statement reads any more, is removed in further transactions, which the
next run repeats.
"""

import logging
from collections.abc import Mapping

from sqlalchemy import Connection, text

import store.tables  # noqa: F401 - all tables
from runtime.actions import LogAction
from store.citus import event_keys, moving
from store.citus.errors import Misplaced, StillInUse
from store.postgres.distributed import is_distributed_now
from store.postgres.partition_locks import PARTITION_LOCKS
from store.tables.base import metadata
from store.tables.placement import ANCHOR, DISTRIBUTION_COLUMN, Placement, placements

logger = logging.getLogger(__name__)

_PLACED = text("""
SELECT c.relname, p.partmethod, p.repmodel, p.colocationid = anchor.colocationid AS colocated
FROM pg_dist_partition p
JOIN pg_class c ON c.oid = p.logicalrelid
LEFT JOIN pg_dist_partition anchor ON anchor.logicalrelid = to_regclass(:anchor)
WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass(:anchor)) AND NOT c.relispartition
""")

# Sessions of Tidemark besides this one, by the name that `store.postgres.sessions` gives them.
_SESSIONS = text("""
SELECT DISTINCT application_name FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'tidemark %:%'
ORDER BY 1
""")

# The oldest revision whose code can run beside this one on a cluster, whatever migrations say of one PostgreSQL.
# Older code takes the lock of an organization, and raises its epoch, at the coordinator alone: commits at nodes would
# go on by the rules of before. It also expects all notifications that wait on the coordinator.
OLDEST_ON_CLUSTER = "0051"
_NODE_EPOCHS = "organization_epoch"
_REFUSE_OLDER = text("UPDATE schema_compatibility SET oldest_revision = :oldest WHERE oldest_revision < :oldest")
_ALLOWS_OLDER = text("SELECT EXISTS (SELECT FROM schema_compatibility WHERE oldest_revision < :oldest)")

_BY_METHOD = {
    ("h", "s"): Placement.BY_CUSTOMER,
    ("n", "t"): Placement.EVERY_NODE,
    ("n", "s"): Placement.COORDINATOR,
}
_MOVE = {
    Placement.EVERY_NODE: "SELECT create_reference_table(:table)",
    # Foreign keys: the tables at both ends are added together.
    Placement.COORDINATOR: "SELECT citus_add_local_table_to_metadata(:table, cascade_via_foreign_keys => true)",
}
# Tables on the workers come before those that are read with them.
_ORDER = (Placement.COORDINATOR, Placement.EVERY_NODE, Placement.BY_CUSTOMER)


def placed(connection: Connection) -> Mapping[str, Placement | None]:
    """Where Citus says that tables lie; None: in no place of these. It does not know the others."""
    return {
        row.relname: None
        if row.partmethod == "h" and not row.colocated
        else _BY_METHOD.get((row.partmethod, row.repmodel))
        for row in connection.execute(_PLACED, {"anchor": ANCHOR})
    }


def is_complete(connection: Connection) -> bool:
    """Whether nothing is to be done: the tables are not distributed at all, or each lies in its place."""
    if not is_distributed_now(connection):
        return True
    found = placed(connection)
    return not (
        _displaced(found)
        or _missing(found)
        or _left_over(connection)
        or event_keys.immovable(connection)
        or connection.scalar(_ALLOWS_OLDER, {"oldest": OLDEST_ON_CLUSTER})
    )


def distribute(connection: Connection) -> list[str]:
    """Moves the tables that are not in their places yet; returns their names. Commits.

    The first time no other process of Tidemark may run: all tables are locked while rows are copied through the
    coordinator. The same holds when tables move that an earlier version had on the coordinator. Otherwise only new
    tables move, which no running process knows. Raises StillInUse, and Misplaced where a table lies elsewhere than
    decided, which nothing here repairs.
    """
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    found = placed(connection) if is_distributed_now(connection) else {}
    displaced = _displaced(found)
    if (_NODE_EPOCHS not in found or displaced) and (names := connection.scalars(_SESSIONS).all()):
        raise StillInUse(f"servers or notifiers are connected: {', '.join(names)}")
    for lock in PARTITION_LOCKS:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
    found = {table: place for table, place in placed(connection).items() if table not in displaced}
    _check(found)
    missing = _missing(found)
    if missing:
        # All at once: a process that starts meanwhile waits, and cannot deadlock with this one.
        connection.execute(text(f"LOCK TABLE {', '.join(missing)} IN ACCESS EXCLUSIVE MODE"))
        for table, placement in missing.items():
            if table in displaced:
                moving.take_back(connection, metadata.tables[table])
            _move(connection, table, placement)
    event_keys.make_movable(connection, event_keys.immovable(connection))
    connection.execute(_REFUSE_OLDER, {"oldest": OLDEST_ON_CLUSTER})
    connection.commit()
    for table in _left_over(connection):
        connection.execute(text("SELECT truncate_local_data_after_distributing_table(:table)"), {"table": table})
        connection.commit()
    connection.rollback()
    return list(missing)


def _missing(found: Mapping[str, Placement | None]) -> dict[str, Placement]:
    """The tables that are to be moved, in this order."""
    wanted = placements()
    return {
        table: placement
        for turn in _ORDER
        for table, placement in wanted.items()
        if placement is turn and table not in found
    }


def _displaced(found: Mapping[str, Placement | None]) -> set[str]:
    """The tables that an earlier version had on the coordinator, and this one has at the nodes of customers."""
    wanted = placements()
    return {
        table
        for table, place in found.items()
        if place is Placement.COORDINATOR and wanted.get(table) is Placement.BY_CUSTOMER
    }


def _check(found: Mapping[str, Placement | None]) -> None:
    wanted = placements()
    if wrong := sorted(table for table, place in found.items() if table in wanted and wanted[table] is not place):
        raise Misplaced(
            "these tables lie elsewhere than this version of Tidemark decides: "
            + ", ".join(f"{table} ({wanted[table].value})" for table in wrong)
        )


def _move(connection: Connection, table: str, placement: Placement) -> None:
    logger.info("moving a table", extra={"action": LogAction.TABLE_MOVED, "table": table, "to": placement.value})
    if placement is not Placement.BY_CUSTOMER:
        # One call can have added further tables along foreign keys, for which the next calls do nothing.
        if table not in placed(connection):
            connection.execute(text(_MOVE[placement]), {"table": table})
        moving.continue_numbers(connection, metadata.tables[table])
        return
    if table == "event":
        event_keys.make_distributable(connection)
    moving.replace_key(connection, metadata.tables[table])
    connection.execute(
        text("SELECT create_distributed_table(:table, :column, colocate_with => :anchor)"),
        {"table": table, "column": DISTRIBUTION_COLUMN, "anchor": "none" if table == ANCHOR else ANCHOR},
    )


_LEFT_OVER = text("""
SELECT c.relname FROM pg_dist_partition p JOIN pg_class c ON c.oid = p.logicalrelid
WHERE p.partmethod = 'h' AND c.relkind = 'r' AND pg_relation_size(c.oid) > 0
""")


def _left_over(connection: Connection) -> list[str]:
    """The distributed tables and partitions of which the coordinator still has the rows of before."""
    return list(connection.scalars(_LEFT_OVER))

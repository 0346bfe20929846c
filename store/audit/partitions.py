"""The monthly partitions of the audit log: created ahead of time, dropped when their entries are too old."""

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.postgres.partition_locks import MONTHS_OF_AUDIT
from store.postgres.partitions import LOCK_TIMEOUT, month_start, next_month

# Notes for each organization which of its numbers are deleted with a partition.
_NOTE_DELETED = """
UPDATE audit_log l SET deleted_number = greatest(l.deleted_number, p.entry_number)
FROM (SELECT organization_id, max(entry_number) AS entry_number FROM {partition} GROUP BY organization_id) AS p
WHERE l.organization_id = p.organization_id
"""


async def create(connection: AsyncConnection, months: Iterable[datetime]) -> set[datetime]:
    """Creates the partitions of these months, given by their starts, that do not exist; returns those that did."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MONTHS_OF_AUDIT})
    names = await connection.scalars(
        text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_entry'::regclass")
    )
    existing = {datetime.strptime(name, "audit_entry_%Y_%m").replace(tzinfo=UTC) for name in names}
    for start in sorted(set(months) - existing):
        for statement in _create(start):
            await connection.execute(text(statement))
    return existing


async def maintain(connection: AsyncConnection, oldest: datetime, newest: datetime, keep_since: datetime) -> None:
    """Creates the partitions from the month of `oldest` to that of `newest`; drops those before `keep_since`."""
    months, start = list[datetime](), month_start(oldest)
    while start <= newest:
        months.append(start)
        start = next_month(start)
    existing = await create(connection, months)
    for month in sorted(existing):
        if next_month(month) <= keep_since:
            # DROP locks the whole table. If it has to wait, readers wait behind it, so it gives up soon; the next run
            # tries again.
            await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
            await connection.execute(text(_NOTE_DELETED.format(partition=_name(month))))
            await connection.execute(text(f"DROP TABLE {_name(month)}"))


def _name(start: datetime) -> str:
    return f"audit_entry_{start:%Y_%m}"


def _create(start: datetime) -> tuple[str, str]:
    # Created separately and then attached: CREATE TABLE … PARTITION OF would lock the table against readers.
    name = _name(start)
    return (
        f"CREATE TABLE {name} (LIKE audit_entry INCLUDING DEFAULTS INCLUDING INDEXES)",
        f"ALTER TABLE audit_entry ATTACH PARTITION {name}"
        f" FOR VALUES FROM ('{start.isoformat()}') TO ('{next_month(start).isoformat()}')",
    )

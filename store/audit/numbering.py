"""The numbers of entries: assigned after the commit, one transaction of an organization at a time.

The transaction of a change leaves its entries in `audit_pending`. The first that reads the log then gives numbers to
all that is committed. So a reader that has seen a number has seen all lower ones, and a transaction that stays open
delays only its own entries. The feed of notifications has the same mechanism; `docs/watch.md` gives the reasons.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.audit import partitions
from store.audit.writing import COLUMNS
from store.postgres.database import Database

ROWS_AT_ONCE = 100  # of audit_pending, to whose entries one transaction gives numbers

_HAS_PENDING = text("SELECT EXISTS (SELECT FROM audit_pending WHERE organization_id = :organization_id)")

_CREATE_LOG = text("""
INSERT INTO audit_log (organization_id, last_number, high_time) VALUES (:organization_id, 0, 'epoch')
ON CONFLICT DO NOTHING
""")

# Locks the row of a log. A server that freezes while it holds this lock would stop the log for all servers, so
# PostgreSQL ends its session after 10 s.
_LOCK_LOG = text("""
SELECT high_time, set_config('idle_in_transaction_session_timeout', '10s', true)
FROM audit_log WHERE organization_id = :organization_id FOR UPDATE
""")

# The months of the entries that are next, if they have no partition. Upkeep has created those of now; a server whose
# clock is wrong may need others.
_MISSING_MONTHS = text("""
SELECT DISTINCT month
FROM (
    SELECT date_trunc('month', greatest(
        CAST(:high_time AS timestamptz), max(create_time) OVER (ORDER BY arrival)
    ) AT TIME ZONE 'UTC') AS month
    FROM audit_pending WHERE organization_id = :organization_id ORDER BY arrival LIMIT :limit
) AS next
WHERE to_regclass('audit_entry_' || to_char(month, 'YYYY_MM')) IS NULL
""")

_PLAIN = [name for name in COLUMNS if not name.endswith("_state")]

# Moves rows of audit_pending into audit_entry, with the numbers that follow the last one, and returns how many rows.
_ASSIGN_NUMBERS = text(f"""
WITH taken AS (
    DELETE FROM audit_pending
    WHERE organization_id = :organization_id AND arrival IN (
        SELECT arrival FROM audit_pending WHERE organization_id = :organization_id ORDER BY arrival LIMIT :limit
    )
    RETURNING arrival, create_time, entries
), placed AS (
    INSERT INTO audit_entry (
        organization_id, entry_number, high_time, create_time, before_state, after_state, {", ".join(_PLAIN)}
    )
    SELECT l.organization_id, l.last_number + row_number() OVER in_order,
           greatest(l.high_time, max(t.create_time) OVER in_order), t.create_time,
           decode(e.before_state, 'base64'), decode(e.after_state, 'base64'),
           {", ".join(f"e.{one}" for one in _PLAIN)}
    FROM taken t
    CROSS JOIN LATERAL ROWS FROM (
        json_to_recordset(CAST(t.entries AS json)) AS ({", ".join(" ".join(one) for one in COLUMNS.items())})
    ) WITH ORDINALITY AS e ({", ".join(COLUMNS)}, place)
    JOIN audit_log l ON l.organization_id = :organization_id
    WINDOW in_order AS (ORDER BY t.arrival, e.place)
    RETURNING entry_number, high_time
), last AS (
    SELECT max(entry_number) AS entry_number, max(high_time) AS high_time FROM placed
), noted AS (
    UPDATE audit_log SET last_number = last.entry_number, high_time = last.high_time
    FROM last WHERE organization_id = :organization_id AND last.entry_number IS NOT NULL
)
SELECT count(*) FROM taken
""")


# Organizations without a log get one: readers of it may have tokens, too.
_SKIP_NUMBERS = text("""
INSERT INTO audit_log (organization_id, last_number, high_time)
SELECT organization_id, :number, 'epoch' FROM organization
ON CONFLICT (organization_id) DO UPDATE SET last_number = audit_log.last_number + :number
""")


async def skip_numbers(connection: AsyncConnection, number: int) -> None:
    """Leaves out that many numbers in the log of every organization."""
    await connection.execute(_SKIP_NUMBERS, {"number": number})


async def assign_numbers(connection: AsyncConnection, organization_id: int, limit: int = ROWS_AT_ONCE) -> bool:
    """Gives numbers to the entries of up to `limit` committed transactions; returns whether more may wait.

    Waits while another transaction does the same for the organization.
    """
    parameters = {"organization_id": organization_id}
    if not await connection.scalar(_HAS_PENDING, parameters):
        return False
    if (locked := (await connection.execute(_LOCK_LOG, parameters)).one_or_none()) is None:
        await connection.execute(_CREATE_LOG, parameters)
        locked = (await connection.execute(_LOCK_LOG, parameters)).one()
    # Separate statements: their snapshots must be newer than the lock, or they miss what was committed meanwhile.
    missing = await connection.scalars(_MISSING_MONTHS, parameters | {"limit": limit, "high_time": locked.high_time})
    if months := [month.replace(tzinfo=UTC) for month in missing]:
        await partitions.create(connection, months)
    return int(await connection.scalar(_ASSIGN_NUMBERS, parameters | {"limit": limit}) or 0) == limit


@contextlib.asynccontextmanager
async def reading(database: Database, organization_id: int) -> AsyncIterator[AsyncConnection]:
    """A transaction in which all entries that were committed before have numbers.

    Each transaction gives numbers to some of them. One for all would lock the log for seconds when many wait.
    """
    while True:
        async with database.transaction() as connection:
            if not await assign_numbers(connection, organization_id):
                yield connection
                return


# Of some organizations, the last number of each log, and whether it has entries without a number.
_PROGRESS = text("""
SELECT asked.organization_id, coalesce(l.last_number, 0),
       EXISTS (SELECT FROM audit_pending p WHERE p.organization_id = asked.organization_id)
FROM unnest(CAST(:organizations AS bigint[])) AS asked (organization_id) LEFT JOIN audit_log l USING (organization_id)
""")

_WITH_PENDING = text("SELECT DISTINCT organization_id FROM audit_pending ORDER BY 1")


async def progress(connection: AsyncConnection, organization_ids: list[int]) -> Mapping[int, tuple[int, bool]]:
    """The last number of each organization's log, and whether entries wait for a number."""
    rows = await connection.execute(_PROGRESS, {"organizations": organization_ids})
    return {organization_id: (number, pending) for organization_id, number, pending in rows}


async def with_pending(connection: AsyncConnection) -> list[int]:
    """The organizations that have entries without a number."""
    return list(await connection.scalars(_WITH_PENDING))

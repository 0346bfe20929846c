"""The monthly partitions of the event table: made ahead of time, dropped when their events are too old."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Two replicas may come here at once; CREATE TABLE IF NOT EXISTS alone still races in the catalog.
_LOCK = 1_052_911_830_412

LOCK_TIMEOUT = "2s"


def month_start(time: datetime) -> datetime:
    """The first moment of the month, in UTC, that `time` lies in."""
    time = time.astimezone(UTC)
    return time.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def next_month(start: datetime) -> datetime:
    """The first moment of the month after the one that begins at `start`."""
    return month_start(start + timedelta(days=32))


async def maintain(connection: AsyncConnection, oldest: datetime, newest: datetime, keep_since: datetime) -> None:
    """Makes a partition for every month from `oldest` to `newest`; drops those that end before `keep_since`."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    existing = await existing_months(connection)
    start = month_start(oldest)
    while start <= newest:
        if start not in existing:
            for statement in _create(start):
                await connection.execute(text(statement))
        start = next_month(start)
    for month in existing:
        if next_month(month) <= keep_since:
            # This one does lock the whole table for a moment. It gives up rather than let ingest queue behind
            # it; the next round tries again.
            await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
            await connection.execute(text(f"DROP TABLE {_name(month)}"))


async def existing_months(connection: AsyncConnection) -> set[datetime]:
    """The months that have a partition."""
    names = await connection.scalars(
        text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'event'::regclass")
    )
    return {datetime.strptime(name, "event_%Y_%m").replace(tzinfo=UTC) for name in names}


def _name(start: datetime) -> str:
    return f"event_{start:%Y_%m}"


def _create(start: datetime) -> tuple[str, str]:
    # Made apart and attached, which leaves the rest of the table open to writers; CREATE … PARTITION OF would not.
    # The key is the partition's own: a key of the whole table would have to contain event_time.
    name = _name(start)
    return (
        f"CREATE TABLE {name} (LIKE event, PRIMARY KEY (organization_id, customer_id, event_id))",
        f"ALTER TABLE event ATTACH PARTITION {name}"
        f" FOR VALUES FROM ('{start.isoformat()}') TO ('{next_month(start).isoformat()}')",
    )

"""The monthly partitions of the event table: created ahead of time, dropped when their events are too old.

Each has the unique index of `event_key`. A partition that had events when migration 0033 was applied keeps its
primary key (organization_id, customer_id, event_id) instead. Where the table is distributed, ATTACH distributes the
partition, too; `store.citus.event_keys` says what else is different there.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.postgres.distributed import is_distributed
from store.postgres.partition_locks import MONTHS_OF_EVENTS
from store.tables import event_key

LOCK_TIMEOUT = "2s"


def month_start(time: datetime) -> datetime:
    """The start of the month (UTC) that contains `time`."""
    time = time.astimezone(UTC)
    return time.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def next_month(start: datetime) -> datetime:
    """The start of the month after the one that starts at `start`."""
    return month_start(start + timedelta(days=32))


async def maintain(connection: AsyncConnection, oldest: datetime, newest: datetime, keep_since: datetime) -> None:
    """Creates a partition for each month from `oldest` to `newest`; drops those that end before `keep_since`."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MONTHS_OF_EVENTS})
    existing = await existing_months(connection)
    distributed = await is_distributed(connection)
    start = month_start(oldest)
    while start <= newest:
        if start not in existing:
            for statement in _create(start, distributed=distributed):
                await connection.execute(text(statement))
        start = next_month(start)
    for month in existing:
        if next_month(month) <= keep_since:
            # DROP locks the whole table. If it has to wait, ingest waits behind it, so it gives up soon; the next
            # run tries again.
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


def _create(start: datetime, *, distributed: bool) -> Iterator[str]:
    # Created separately and then attached: CREATE TABLE … PARTITION OF would lock the table against writers. The key
    # belongs to the partition: a key of the whole table would have to contain event_time.
    name = _name(start)
    yield f"CREATE TABLE {name} (LIKE event)"
    key = event_key.DISTRIBUTED_INDEX if distributed else event_key.INDEX
    yield f"CREATE UNIQUE INDEX {name}_key ON {name} ({key})"
    if distributed:
        yield f"ALTER TABLE {name} {event_key.REPLICA_IDENTITY}"
    yield (
        f"ALTER TABLE event ATTACH PARTITION {name}"
        f" FOR VALUES FROM ('{start.isoformat()}') TO ('{next_month(start).isoformat()}')"
    )

"""The daily partitions of deliveries and attempts: made ahead of time, and dropped when they are too old."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.postgres.partition_locks import DAYS_OF_DELIVERIES

DAYS_AHEAD = 3  # besides today; without a notifier for longer than that, the default partitions grow

LOCK_TIMEOUT = "2s"
IDLE_TIMEOUT = "5s"

_EXISTING = text("""
SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = CAST(:parent AS regclass) AND relname LIKE :pattern
""")

_DELETE_OPERATOR_EVENTS = text("""
DELETE FROM operator_event
WHERE create_time < :oldest
  AND NOT EXISTS (
      SELECT FROM delivery_live
      WHERE delivery_live.organization_id = operator_event.organization_id
        AND delivery_live.notification_id = operator_event.event_id
  )
""")


@dataclass(frozen=True)
class Parent:
    """A table that is partitioned by day."""

    name: str
    key: str  # the column with the day of a row


PARENTS = (Parent("delivery", "finish_day"), Parent("attempt", "start_time"))


async def make_ahead(connection: AsyncConnection, parents: Sequence[Parent] = PARENTS) -> None:
    """Makes the partitions of today and of the days to come, by PostgreSQL's clock, in UTC.

    Gives up as `drop_old` does. While notifiers work, call it with one table at a time: a transaction that writes
    results needs both, and with both here it could wait for one while this waits for the other.
    """
    await _begin(connection)
    today = await _today(connection)
    for parent in parents:
        existing = await existing_days(connection, parent.name)
        for number in range(DAYS_AHEAD + 1):
            day = today + timedelta(days=number)
            if day not in existing:
                await _make(connection, parent, day)


async def drop_old(connection: AsyncConnection, keep: timedelta, parents: Sequence[Parent] = PARENTS) -> list[str]:
    """Drops the partitions of the days that ended longer than `keep` ago; returns their names.

    A drop locks the whole table for a short time; call it with one table at a time, as `make_ahead`. When it has to
    wait too long for a lock it gives up, with the error of PostgreSQL's lock_timeout. Jobs and operator events of
    that age are deleted, too, except operator events with a delivery that waits.
    """
    await _begin(connection)
    oldest = await _today(connection) - keep
    dropped = []
    for parent in parents:
        for day in sorted(await existing_days(connection, parent.name)):
            if day < oldest:
                await connection.execute(text(f"DROP TABLE {_name(parent, day)}"))
                dropped.append(_name(parent, day))
        await connection.execute(
            text(f"DELETE FROM {parent.name}_default WHERE {parent.key} < :oldest"), {"oldest": oldest}
        )
    await connection.execute(_DELETE_OPERATOR_EVENTS, {"oldest": oldest})
    await connection.execute(text("DELETE FROM redelivery_job WHERE finish_time < :oldest"), {"oldest": oldest})
    return dropped


async def existing_days(connection: AsyncConnection, parent: str) -> set[date]:
    """The days that have a partition in `delivery` or `attempt`."""
    names = await connection.scalars(_EXISTING, {"parent": parent, "pattern": f"{parent}\\_2%"})
    return {datetime.strptime(name, f"{parent}_%Y%m%d").replace(tzinfo=UTC).date() for name in names}


async def _begin(connection: AsyncConnection) -> None:
    # Every transaction that needs the table waits behind a waiting DROP or ATTACH, so this gives up early. A process
    # that is paused in the middle loses its transaction and with it the locks.
    await connection.execute(
        text(
            "SELECT set_config('lock_timeout', :wait, true),"
            " set_config('idle_in_transaction_session_timeout', :idle, true)"
        ),
        {"wait": LOCK_TIMEOUT, "idle": IDLE_TIMEOUT},
    )
    await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": DAYS_OF_DELIVERIES})


async def _today(connection: AsyncConnection) -> date:
    today: date = await connection.scalar(text("SELECT (now() AT TIME ZONE 'UTC')::date"))
    return today


def _name(parent: Parent, day: date) -> str:
    return f"{parent.name}_{day:%Y%m%d}"


async def _make(connection: AsyncConnection, parent: Parent, day: date) -> None:
    # A new table that is then attached does not lock the other partitions against writers. Rows of that day in the
    # default partition move first: otherwise PostgreSQL refuses to attach.
    name = _name(parent, day)
    start, end = (f"'{bound:%Y-%m-%d} 00:00:00+00'" for bound in (day, day + timedelta(days=1)))
    if parent.key == "finish_day":
        start, end = f"'{day}'", f"'{day + timedelta(days=1)}'"
    await connection.execute(
        text(f"CREATE TABLE {name} (LIKE {parent.name} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    )
    await connection.execute(
        text(f"""
        WITH moved AS (
            DELETE FROM {parent.name}_default WHERE {parent.key} >= {start} AND {parent.key} < {end} RETURNING *
        )
        INSERT INTO {name} SELECT * FROM moved
        """)
    )
    await connection.execute(
        text(f"ALTER TABLE {parent.name} ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({end})")
    )

"""The migrations make the tables that the code knows, whoever applies them and however often."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from store import partitions
from store.database import Database, sqlalchemy_url
from store.migrate import migrate
from store.tables import metadata


def test_tables_of_the_code_and_of_the_migrations_are_the_same(database_url: str) -> None:
    engine = create_engine(sqlalchemy_url(database_url))
    with engine.connect() as connection:
        partitions_of_today = set(connection.scalars(text("SELECT relname FROM pg_class WHERE relispartition")))

        def is_ours(name: str | None, kind: str, _: object) -> bool:
            return kind != "table" or name not in partitions_of_today

        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_name": is_ours})
        differences = compare_metadata(context, metadata)
    engine.dispose()
    assert differences == []


def test_replicas_that_start_at_once_migrate_once(database_url: str) -> None:
    engine = create_engine(sqlalchemy_url(database_url))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [database_url] * 4))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM event")) == 0
    engine.dispose()


async def test_partitions_are_made_ahead_and_dropped_when_old(database: Database) -> None:
    def month(number: int) -> datetime:
        return datetime(2026, number, 1, tzinfo=UTC)

    async def maintain(oldest: datetime, newest: datetime, keep_since: datetime) -> None:
        async with database.transaction() as connection:
            await partitions.maintain(connection, oldest, newest, keep_since)

    await asyncio.gather(*(maintain(month(1), month(4), month(1)) for _ in range(3)))
    async with database.transaction() as connection:
        assert await partitions.existing_months(connection) == {month(1), month(2), month(3), month(4)}
    await maintain(month(3), month(5), month(3))
    async with database.transaction() as connection:
        assert await partitions.existing_months(connection) == {month(3), month(4), month(5)}

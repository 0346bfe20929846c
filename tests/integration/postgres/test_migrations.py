"""The migrations create the tables of the code, when several processes apply them and when they are repeated."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.command import upgrade
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from sqlalchemy import make_url, text

from cli.main import tidemark
from store import migrate as migrate_module
from store.citus.distribution import OLDEST_ON_CLUSTER
from store.migrate import NotOwner, SchemaTooNew, SchemaTooOld, check, check_owner, migrate
from store.postgres import partitions
from store.postgres.database import Database, sync_engine
from store.tables import metadata
from tests.support.databases import Template
from tests.support.postgres.nodes import workers
from tests.support.postgres.only_one_server import has_old_keys
from tests.support.server.sharing import own_database
from tests.support.usage.event_keys import key_definitions

pytestmark = own_database


@pytest.fixture
def database_url(template: Template) -> Iterator[str]:
    """The URL of a database that was migrated, and nothing else."""
    with template.lent_database(months=False) as url:
        yield url


def test_migrations_create_the_tables_of_the_code(database_url: str) -> None:
    engine = sync_engine(database_url)
    with engine.connect() as connection:
        partitions_of_today = set(connection.scalars(text("SELECT relname FROM pg_class WHERE relispartition")))

        def is_ours(name: str | None, kind: str, _: object) -> bool:
            return kind != "table" or name not in partitions_of_today

        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_name": is_ours})
        differences = compare_metadata(context, metadata)
    engine.dispose()
    assert differences == []


def test_replicas_that_start_together_migrate_once(empty_url: str) -> None:
    engine = sync_engine(empty_url)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [empty_url] * 4))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM event")) == 0
    engine.dispose()


async def test_partitions_are_created_ahead_and_dropped_when_old(database: Database) -> None:
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


MIGRATIONS = str(Path(migrate_module.__file__).parent / "migrations")


def repeat_migration(url: str, revision: str) -> None:
    """Applies one migration once more, to whatever the tables are now."""
    configuration = Config()
    configuration.set_main_option("script_location", MIGRATIONS)
    before = ScriptDirectory(MIGRATIONS).get_revision(revision).down_revision
    assert isinstance(before, str)
    set_revision(url, before, before)
    engine = sync_engine(url)
    with engine.connect() as connection:
        configuration.attributes["connection"] = connection
        upgrade(configuration, revision)
        connection.commit()
    engine.dispose()


TEXTS = "btree (organization_id, customer_id, event_id)"
STORE = (
    "INSERT INTO event (organization_id, customer_id, event_id, event_time, ingest_time, metric_id, quantity)"
    " VALUES (1, 'acme', %s, %s, now(), 'calls', 1)"
)


@has_old_keys
async def test_partitions_without_events_get_the_narrow_key_and_the_others_keep_theirs(database_url: str) -> None:
    """As on a database of the version before, while a server of it stores an event in a partition that was empty."""

    async def keys() -> dict[str, str]:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            return await key_definitions(connection)

    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for month in range(1, 5):
            name = f"event_2026_{month:02}"
            await connection.execute(
                f"CREATE TABLE {name} (LIKE event, PRIMARY KEY (organization_id, customer_id, event_id))".encode()
            )
            await connection.execute(
                f"ALTER TABLE event ATTACH PARTITION {name}"
                f" FOR VALUES FROM ('2026-{month:02}-01+00') TO ('2026-{month + 1:02}-01+00')".encode()
            )
        await connection.execute(STORE, ("e1", datetime(2026, 1, 10, tzinfo=UTC)))
        assert set((await keys()).values()) == {TEXTS}
        async with await psycopg.AsyncConnection.connect(database_url) as storing:
            await storing.execute(STORE, ("e1", datetime(2026, 2, 10, tzinfo=UTC)))
            await asyncio.to_thread(repeat_migration, database_url, "0033")
        migrated = await keys()
        assert [migrated[f"event_2026_{month:02}"] == TEXTS for month in range(1, 5)] == [True, True, False, False]
        await asyncio.to_thread(repeat_migration, database_url, "0033")  # a migration that is cut off is repeated
        assert await keys() == migrated
        for month in range(1, 5):
            time = datetime(2026, month, 10, tzinfo=UTC)
            stored = await connection.execute((STORE + " ON CONFLICT DO NOTHING").encode(), ("e1", time))
            assert stored.rowcount == (0 if month <= 2 else 1)
            with pytest.raises(psycopg.errors.UniqueViolation):
                await connection.execute(STORE, ("e1", time.replace(day=20)))


def set_revision(url: str, revision: str, oldest_compatible: str) -> None:
    """Changes the schema as if another version of Tidemark had migrated it."""
    engine = sync_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
        connection.execute(
            text("UPDATE schema_compatibility SET oldest_revision = :oldest"), {"oldest": oldest_compatible}
        )
    engine.dispose()


def test_a_version_runs_on_a_newer_compatible_schema_and_changes_nothing(database_url: str) -> None:
    set_revision(database_url, "9999", "0001")
    assert migrate(database_url) is False
    check(database_url)
    engine = sync_engine(database_url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
    engine.dispose()


@pytest.mark.parametrize("start", [migrate, check])
def test_a_version_refuses_a_newer_schema_that_it_cannot_use(
    database_url: str, start: Callable[[str], object]
) -> None:
    set_revision(database_url, "9999", "9998")
    with pytest.raises(SchemaTooNew, match=r"revision 9999.*knows revision 9998"):
        start(database_url)


def test_a_newer_schema_without_declared_compatibility_is_refused(database_url: str) -> None:
    set_revision(database_url, "9999", "0001")
    engine = sync_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE schema_compatibility"))
    engine.dispose()
    with pytest.raises(SchemaTooNew, match="revision unknown"):
        migrate(database_url)


def test_a_schema_check_changes_nothing_and_names_the_missing_revision(database_url: str) -> None:
    set_revision(database_url, "0012", "0012")
    with pytest.raises(SchemaTooOld, match="revision 0012"):
        check(database_url)


def test_a_role_that_does_not_own_the_tables_is_refused_with_the_name_of_their_owner(database_url: str) -> None:
    check_owner(database_url)
    url = make_url(database_url)
    name = f"visitor_{url.database}"
    engine = sync_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name}"))
    try:
        acting = url.update_query_dict({"options": f"-crole={name}"})
        visitor = acting.render_as_string(hide_password=False)
        with pytest.raises(NotOwner, match=f"the role {name} does not own the tables, which belong to"):
            check_owner(visitor)
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE event OWNER TO {name}"))
            connection.execute(text("REVOKE CREATE ON SCHEMA public FROM public"))
        with pytest.raises(NotOwner, match="may not create tables"):
            check_owner(visitor)
        with engine.begin() as connection:
            connection.execute(text(f"GRANT CREATE ON SCHEMA public TO {name}"))
        check_owner(visitor)
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"DROP OWNED BY {name} CASCADE"))
            connection.execute(text(f"DROP ROLE {name}"))
        engine.dispose()


def test_a_schema_check_of_an_empty_database_reports_that_no_schema_exists(empty_url: str) -> None:
    engine = sync_engine(empty_url)
    with pytest.raises(SchemaTooOld, match="revision none"):
        check(empty_url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")) == 0
    engine.dispose()


def test_a_process_without_permission_to_migrate_names_the_command(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_revision(database_url, "0012", "0012")
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", database_url)
    monkeypatch.setenv("TIDEMARK_MIGRATE", "never")
    monkeypatch.setenv("TIDEMARK_LISTEN", "127.0.0.1:0")
    for command in ("serve", "notify", "up"):
        result = CliRunner().invoke(tidemark, [command])
        assert result.exit_code == 1
        assert "run `tidemark migrate`" in result.output


def test_every_migration_since_compatibility_is_stored_declares_the_oldest_revision_that_runs_on_it(
    database_url: str,
) -> None:
    folder = str(Path(migrate_module.__file__).parent / "migrations")
    scripts = list(ScriptDirectory(folder).walk_revisions())[::-1]
    declared = [getattr(script.module, "oldest_compatible", "") for script in scripts if script.revision >= "0019"]
    assert all(declared), "set oldest_compatible in each new migration"
    assert declared == sorted(declared)
    assert all(oldest <= script.revision for oldest, script in zip(declared, scripts[-len(declared) :], strict=True))
    expected = max(declared[-1], OLDEST_ON_CLUSTER) if workers() else declared[-1]
    engine = sync_engine(database_url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT oldest_revision FROM schema_compatibility")) == expected
    engine.dispose()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_of_another_encoding_is_refused_with_the_way_out(database_url: str, encoding: str) -> None:
    """Another encoding cannot represent every id, so requests and evaluations would fail later."""
    name = f"{make_url(database_url).database}_{encoding.lower()}"
    statement = f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    url = make_url(database_url).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(statement.encode())
        try:
            for command in ("migrate", "serve", "notify"):
                found = CliRunner().invoke(tidemark, [command], env={"TIDEMARK_DATABASE_URL": url})
                assert found.exit_code == 1
                assert f"encoded in UTF8; this one is in {encoding}" in found.output
                assert "ENCODING 'UTF8'" in found.output
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

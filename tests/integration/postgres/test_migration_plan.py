"""The plan of migrations says what they do: the locks that PostgreSQL takes are those of the plan."""

import asyncio
import threading
from pathlib import Path

import psycopg
import pytest
from alembic.command import upgrade
from alembic.config import Config
from click.testing import CliRunner
from sqlalchemy import Connection, event, text

from cli.main import tidemark
from store import migrate as migrate_module
from store.migrate import LOCK_TIMEOUT_SECONDS, head, migrate, revisions_after, script_of
from store.migration_effects import Effect, Lock, Work, effects
from store.migration_plan import Plan, module_of, plan, recorded
from store.postgres.database import sync_engine
from tests.support.databases import Template
from tests.support.processes.up import eventually
from tests.support.server.sharing import own_database
from tests.support.waiting import within

pytestmark = own_database

MIGRATIONS = Path(migrate_module.__file__).parent / "migrations"
# Migrations before it were made for a service that stands still; those since run beside servers.
FIRST = "0014"
# Written before the rule that the last tests hold; no version was released with less.
BEFORE_THE_RULE = {"0022", "0023", "0027"}


def migrate_to(url: str, revision: str) -> dict[str, int]:
    """Migrates; returns the strongest lock on each table that existed before, as PostgreSQL shows at the commits."""
    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS))
    engine = sync_engine(url)
    locks: dict[str, int] = {}
    with engine.connect() as connection:
        existing = set(connection.scalars(text("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')")))
        connection.rollback()

        def note(committing: Connection) -> None:
            cursor = committing.connection.cursor()
            cursor.execute(
                "SELECT relname, mode FROM pg_locks JOIN pg_class ON pg_class.oid = relation"
                " WHERE pid = pg_backend_pid() AND relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
            )
            for name, mode in cursor.fetchall():
                lock = _LOCKS.get(mode, Lock.NONE)
                if name in existing and lock > locks.get(name, Lock.NONE):
                    locks[name] = lock

        event.listen(connection, "commit", note)
        configuration.attributes["connection"] = connection
        upgrade(configuration, revision)
        connection.commit()
    engine.dispose()
    return {name: lock for name, lock in locks.items() if not name.startswith(("alembic_", "schema_"))}


_LOCKS = {
    f"{''.join(part.capitalize() for part in lock.name.split('_'))}Lock": lock
    for lock in Lock
    if lock is not Lock.NONE
}


def planned_locks(found: Plan, revision: str) -> dict[str, int]:
    """The strongest lock that one migration of a plan takes in a transaction on each table."""
    [migration] = [one for one in found.migrations if one.revision == revision]
    locks: dict[str, int] = {}
    for step in migration.steps:
        if not step.effect.concurrent:
            locks[step.table] = max(step.effect.lock, locks.get(step.table, Lock.NONE))
    return locks


def test_locks_of_each_migration_are_those_of_its_plan(empty_url: str) -> None:
    migrate_to(empty_url, FIRST)
    before = FIRST
    for revision in revisions_after(FIRST):
        found = plan(empty_url)
        assert found.current == before
        planned, taken = planned_locks(found, revision), migrate_to(empty_url, revision)
        if "autocommit_block" in script_of(revision).read_text():
            planned = {name: lock for name, lock in planned.items() if name in taken}  # others are released at once
        assert planned == taken, revision
        before = revision
    assert plan(empty_url).migrations == ()


@pytest.fixture(scope="module")
def found_effects(template: Template) -> dict[str, list[Effect]]:
    """The effects of each migration since FIRST."""
    with template.lent_database(months=False) as url:
        engine = sync_engine(url)
        with engine.connect() as connection:
            found = {}
            for revision in revisions_after(FIRST):
                transactions = recorded(module_of(revision), connection)
                found[revision] = effects(";\n".join(statement for one in transactions for statement in one))
        engine.dispose()
    return found


def test_every_statement_of_a_migration_is_one_that_the_plan_knows(found_effects: dict[str, list[Effect]]) -> None:
    unknown = [one for found in found_effects.values() for one in found if one.work is Work.UNKNOWN]
    assert unknown == []


def written_reason(revision: str) -> str:
    """What a migration says about a statement that would otherwise break or stop servers of the version before."""
    reason: str = getattr(module_of(revision), "why_safe", "")
    return reason.strip()


def test_migration_that_breaks_the_version_before_says_why_it_does_not(
    found_effects: dict[str, list[Effect]],
) -> None:
    """Expand first, and contract one version later: then both versions run beside each other."""
    for revision, found in found_effects.items():
        breaking = [(one.statement, one.breaks) for one in found if one.breaks]
        assert not breaking or written_reason(revision), f"{revision}: {breaking}: set why_safe in the migration"


def test_migration_that_holds_a_lock_for_long_says_why_it_does_not(found_effects: dict[str, list[Effect]]) -> None:
    for revision, found in found_effects.items():
        stopping = [
            one.statement
            for one in found
            if one.lock.stops_writes and one.work is not Work.CATALOGUE and not one.concurrent
        ]
        assert not stopping or revision in BEFORE_THE_RULE or written_reason(revision), (
            f"{revision}: {stopping}: build indexes concurrently, and change rows in batches"
        )


def test_plan_of_a_new_database_locks_nothing(empty_url: str) -> None:
    found = plan(empty_url)
    assert (found.is_new, found.migrations, found.head) == (True, (), head())


def test_command_shows_what_each_migration_locks_and_changes_nothing(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", empty_url)
    assert "has no schema" in CliRunner().invoke(tidemark, ["migrate", "--plan"]).output
    migrate_to(empty_url, "0029")
    shown = CliRunner().invoke(tidemark, ["migrate", "--plan"])
    assert shown.exit_code == 0, shown.output
    assert f"revision 0029 will become {head()}" in shown.output
    [of_keys] = [line for line in shown.output.splitlines() if line.strip().startswith("api_key (")]
    assert "ACCESS EXCLUSIVE for less than 0.1 s; reads and writes of it wait" in of_keys
    assert "SHARE UPDATE EXCLUSIVE" in shown.output
    assert "Servers of the present version run before, during and after it" in shown.output
    assert plan(empty_url).current == "0029"
    assert CliRunner().invoke(tidemark, ["migrate"]).exit_code == 0
    assert "there is nothing to do" in CliRunner().invoke(tidemark, ["migrate", "--plan"]).output


def test_plan_says_to_stop_servers_that_cannot_run_on_the_result(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", empty_url)
    migrate_to(empty_url, "0022")
    assert "Stop them first" in CliRunner().invoke(tidemark, ["migrate", "--plan"]).output


def test_seconds_of_a_plan_grow_with_the_table(empty_url: str) -> None:
    migrate_to(empty_url, "0029")

    def seconds() -> dict[str, float]:
        [pages] = [one for one in plan(empty_url).migrations if one.revision == "0030"]
        return {step.effect.statement.split()[3]: step.seconds for step in pages.steps if step.effect.concurrent}

    few = seconds()
    with psycopg.connect(empty_url, autocommit=True) as connection:
        # As PostgreSQL estimates them; the plan reads no rows.
        connection.execute("UPDATE pg_class SET reltuples = 10000000 WHERE relname = 'alert'")
    many = seconds()
    assert few["alert_by_state"] < 1 < 40 < many["alert_by_state"]
    assert many["endpoint_by_age"] == few["endpoint_by_age"]


async def test_migration_that_waits_for_a_reader_lets_servers_read_and_write_meanwhile(empty_url: str) -> None:
    """Such as a dump, which has a weak lock on each table for hours. All others queue behind a waiting migration."""
    await asyncio.to_thread(migrate_to, empty_url, "0034")
    async with (
        await psycopg.AsyncConnection.connect(empty_url) as dump,
        await psycopg.AsyncConnection.connect(empty_url, autocommit=True) as server,
    ):
        await dump.execute("LOCK TABLE api_key IN ACCESS SHARE MODE")
        migrating = asyncio.create_task(asyncio.to_thread(migrate, empty_url))
        async with within("a migration that waits"):
            while not await waits(server):  # noqa: ASYNC110 (another process says it)
                await asyncio.sleep(0.01)
        async with within("a statement behind the migration, while the dump goes on"):
            await server.execute("SELECT count(*) FROM api_key")
            await server.execute("DELETE FROM api_key")
        assert not migrating.done()
        await dump.rollback()
        async with within("the migration after the dump"):
            assert await migrating is True
    with psycopg.connect(empty_url) as connection:
        connection.execute("SELECT roles FROM api_key")


async def waits(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> bool:
    """Whether a session of a migration waits for a lock."""
    cursor = await connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND application_name LIKE 'tidemark migrate%'"
    )
    return await cursor.fetchall() != [(0,)]


def test_concurrent_index_waits_for_an_old_transaction_as_long_as_it_takes(empty_url: str) -> None:
    """It blocks no server while it waits, and to build it again would cost more."""
    migrate_to(empty_url, "0027")
    with psycopg.connect(empty_url) as old, psycopg.connect(empty_url, autocommit=True) as watching:
        old.execute("LOCK TABLE metric IN ROW EXCLUSIVE MODE")  # as a transaction that has written to it
        migrating = threading.Thread(target=migrate, args=[empty_url])
        migrating.start()
        # Longer than LOCK_TIMEOUT_SECONDS: the server's own clock says how long the statement waits.
        eventually(lambda: watching.execute(_WAITS_LONG).fetchall() != [(0,)])
        old.rollback()
        migrating.join()
    assert plan(empty_url).migrations == ()


_WAITS_LONG = f"""
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'CREATE INDEX CONCURRENTLY%'
AND now() - query_start > interval '{2 * LOCK_TIMEOUT_SECONDS} seconds'
"""

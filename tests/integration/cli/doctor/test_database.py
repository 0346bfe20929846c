"""`tidemark doctor` finds what is wrong with a database: schema, clock, rights, settings, statements."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from cli.doctor.examination import exit_code
from cli.doctor.findings import Severity
from tests.support.cli.doctor import check, execute, open_transaction, until
from tests.support.server.sharing import own_database
from tests.support.system_postgres import system_postgres

OK, WARNING, PROBLEM, NOT_CHECKED = Severity.OK, Severity.WARNING, Severity.PROBLEM, Severity.NOT_CHECKED


@own_database
async def test_pending_and_newer_migrations_are_found(database_url: str) -> None:
    assert (await check(database_url, "schema.revision")).severity is OK
    await execute(database_url, "UPDATE alembic_version SET version_num = '0030'")
    pending = await check(database_url, "schema.revision")
    assert pending.severity is PROBLEM
    assert pending.findings[0].todo == "tidemark migrate"
    await execute(
        database_url,
        "UPDATE alembic_version SET version_num = '9999'",
        "UPDATE schema_compatibility SET oldest_revision = '9990'",
    )
    newer = await check(database_url, "schema.revision")
    assert newer.severity is PROBLEM
    assert "9999" in newer.findings[0].found
    await execute(database_url, "UPDATE schema_compatibility SET oldest_revision = '0030'")
    assert (await check(database_url, "schema.revision")).severity is OK


@own_database
async def test_a_check_of_a_table_that_does_not_exist_is_reported_as_not_checked(database_url: str) -> None:
    await execute(database_url, "DROP TABLE outbox, alembic_version")
    found = await check(database_url, "work.outbox")
    assert found.severity is NOT_CHECKED
    assert 'relation "outbox" does not exist' in found.findings[0].found
    assert "tidemark migrate" in found.findings[0].todo
    assert "the schema is at none" in (await check(database_url, "schema.revision")).findings[0].found


async def test_a_clock_that_is_off_is_found(database_url: str) -> None:
    assert (await check(database_url, "database.clock")).severity is OK
    for skew, severity in ((timedelta(seconds=-10), WARNING), (timedelta(hours=1), PROBLEM)):

        def skewed(skew: timedelta = skew) -> datetime:
            return datetime.now(UTC) + skew

        found = await check(database_url, "database.clock", now=skewed)
        assert found.severity is severity
        assert "timedatectl" in found.findings[0].todo


@own_database
async def test_a_read_only_database_is_found(database_url: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    await execute(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    found = await check(database_url, "database.writable")
    assert found.severity is PROBLEM
    assert "RESET default_transaction_read_only" in found.findings[0].todo
    found = await check(database_url, "database.pooler")
    assert (found.severity, "pg_monitor" in found.findings[0].todo) == (NOT_CHECKED, False)


async def test_a_long_transaction_and_what_waits_for_it_are_found(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.doctor.activity_checks.LONG_TRANSACTION", timedelta(0))
    monkeypatch.setattr("cli.doctor.activity_checks.LONG_WAIT", timedelta(0))
    monkeypatch.setattr("cli.doctor.activity_checks.LONG_STATEMENT", timedelta(0))
    lock = "LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"
    async with open_transaction(database_url, lock) as pid:
        found = await check(database_url, "activity.transactions")
        assert found.severity is WARNING
        assert f"SELECT pg_terminate_backend({pid});" in [one.todo for one in found.findings]
        waiting = asyncio.create_task(execute(database_url, "SELECT FROM outbox"))
        waits = await until(database_url, "activity.waits", WARNING)
        assert f"pg_terminate_backend({pid})" in waits.findings[0].todo
        assert "outbox" in waits.findings[0].found
        statements = await check(database_url, "activity.running")
        assert "SELECT FROM outbox" in statements.findings[0].found
    await waiting


async def test_slow_statements_need_the_extension(database_url: str) -> None:
    found = await check(database_url, "activity.slow")
    assert found.severity is OK
    assert "not installed" in found.findings[0].found


async def test_settings_that_are_too_low_are_found(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await check(database_url, "settings.speed")
    [buffers] = [one for one in found.findings if "shared_buffers" in one.found]  # of the server of the tests
    assert "restart PostgreSQL" in buffers.todo
    assert all("pg_reload_conf" in one.todo for one in found.findings if one is not buffers)
    unsafe = await check(database_url, "settings.durability")
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        # A server that the environment names may have safe ones.
        off = await connection.execute(
            "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'"
        )
        assert {one.found.partition(" ")[0] for one in unsafe.findings if one.severity is not OK} == {
            name for (name,) in await off.fetchall()
        }


async def test_the_defaults_of_postgresql_are_hints_and_values_below_them_are_warnings() -> None:
    with system_postgres() as url:
        stock = await check(url, "settings.speed")
        assert {one.found.partition(" ")[0]: one.severity for one in stock.findings} == {
            "shared_buffers": Severity.HINT,
            "random_page_cost": Severity.HINT,
        }
        assert (stock.severity, exit_code([stock])) == (Severity.HINT, 0)
        assert (await check(url, "settings.durability")).severity is OK
    with system_postgres("shared_buffers=16MB", "max_wal_size=64MB", "random_page_cost=8", "autovacuum=off") as url:
        lowered = await check(url, "settings.speed")
        assert {one.found.partition(" ")[0]: one.severity for one in lowered.findings} == {
            "shared_buffers": WARNING,
            "max_wal_size": WARNING,
            "random_page_cost": WARNING,
            "autovacuum": WARNING,
        }


async def test_few_connections_that_are_left_are_found(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await check(database_url, "database.connections")).severity is OK
    monkeypatch.setattr("cli.doctor.database_checks.CONNECTIONS_WARNING", 0.0)
    assert (await check(database_url, "database.connections")).severity is WARNING

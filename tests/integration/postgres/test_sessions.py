"""Sessions whose role and database set adverse values: each connection of the product sets what it needs."""

from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from store.migrate import migrate as run_migrations
from store.postgres import sessions
from store.postgres.database import Database, sync_engine
from store.postgres.sessions import MIGRATION_PINS, OF_CLUSTER, PINS
from tests.support.postgres.adverse_settings import ADVERSE, make_adverse
from tests.support.postgres.nodes import workers
from tests.support.server.sharing import own_database

pytestmark = own_database


@pytest.fixture
async def adverse_url(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with adverse values, in an environment with adverse values too."""
    await make_adverse(database_url)
    monkeypatch.setenv("PGOPTIONS", "-c search_path=public -c enable_seqscan=on -c datestyle=sql")
    monkeypatch.setenv("PGTZ", "America/St_Johns")
    monkeypatch.setenv("PGDATESTYLE", "Postgres, MDY")
    monkeypatch.setenv("PGAPPNAME", "another program")
    return database_url


def settings_of(url: str) -> dict[str, str]:
    """The settings of a session that is not of the product."""
    with psycopg.connect(url) as connection:
        return dict(connection.execute("SELECT lower(name), current_setting(name) FROM pg_settings").fetchall())


def expected(pins: dict[str, tuple[str, str]], known: dict[str, str]) -> dict[str, str]:
    values = {"synchronous_commit": "on", **{name: value for name, (value, _) in pins.items()}}
    return {name.lower(): value for name, value in values.items() if name.lower() in known}


def test_every_pinned_setting_has_an_adverse_value_and_a_reason() -> None:
    assert {*PINS, "synchronous_commit"} - OF_CLUSTER == ADVERSE.keys()
    assert MIGRATION_PINS.keys() == PINS.keys()
    assert all(reason for _, reason in [*PINS.values(), *MIGRATION_PINS.values()])


async def test_every_connection_sets_its_pinned_settings(adverse_url: str) -> None:
    known = settings_of(adverse_url)
    pinned = expected(dict(PINS), known)
    # A session that is not of the product has none of them.
    assert [name for name, value in pinned.items() if known[name] == value] == []
    query = "SELECT lower(name), current_setting(name) FROM pg_settings"
    database = Database(adverse_url, pool_size=1)
    try:
        async with database.raw_transaction() as raw:
            of_pool = dict(await (await raw.execute(query)).fetchall())
            assert raw.info.parameter_status("application_name") == sessions.application_name()
            isolation = await (await raw.execute("SHOW transaction_isolation")).fetchone()
        # A rollback keeps them.
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with database.raw_transaction() as raw:
                await raw.execute("SELECT 1 / 0")
        async with database.raw_transaction() as raw:
            after_rollback = dict(await (await raw.execute(query)).fetchall())
    finally:
        await database.close()
    assert isolation == ("read committed",)
    async with await sessions.connect(adverse_url, "listen") as connection:
        of_listener: dict[str, str] = dict(await (await connection.execute(query)).fetchall())
    engine = sync_engine(adverse_url)
    with engine.connect() as migrating:
        of_migration = {row[0]: row[1] for row in migrating.execute(text(query))}
    engine.dispose()
    for found in (of_pool, after_rollback, of_listener):
        assert {name: found[name] for name in pinned} == pinned
    of_migrations = expected(dict(MIGRATION_PINS), known)
    # PostgreSQL shows a minute in its own form.
    of_migrations |= {name: "1min" for name, value in of_migrations.items() if value == "60s"}
    assert {name: of_migration[name] for name in of_migrations} == of_migrations


async def test_the_first_statement_of_a_connection_sets_its_pinned_settings(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy asks a new server for its version, in a transaction; with the settings of the role that may fail."""
    first: list[str] = []
    initialize = PGDialect_psycopg.initialize

    def initializing(self: Any, connection: Any) -> None:
        first.append(connection.exec_driver_sql("SHOW default_transaction_isolation").scalar())
        initialize(self, connection)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(PGDialect_psycopg, "initialize", initializing)
    await make_adverse(database_url)
    database = Database(database_url, pool_size=1)
    try:
        async with database.transaction() as connection:
            await connection.execute(text("SELECT 1"))
    finally:
        await database.close()
    engine = sync_engine(database_url)
    with engine.connect() as migrating:
        migrating.execute(text("SELECT 1"))
    engine.dispose()
    assert first == ["read committed", "read committed"]


async def test_sessions_keep_their_name_whatever_the_url_says(database_url: str) -> None:
    """A process that waits for a lock identifies the session that holds it by that name."""
    url = make_url(database_url).update_query_dict({"application_name": "shop"}).render_as_string(hide_password=False)
    database = Database(url, pool_size=1)
    try:
        async with database.raw_transaction() as raw:
            of_pool = await (await raw.execute("SHOW application_name")).fetchone()
    finally:
        await database.close()
    async with await sessions.connect(url, "listen") as connection:
        of_listener = await (await connection.execute("SHOW application_name")).fetchone()
    assert of_pool == (sessions.application_name(),)
    assert of_listener == (sessions.application_name("listen"),)


async def test_a_stricter_durability_is_kept(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        name = make_url(database_url).database
        await connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = remote_apply'.encode())
    async with await sessions.connect(database_url, "test") as session:
        cursor = await session.execute("SHOW synchronous_commit")
        assert await cursor.fetchone() == ("remote_apply",)


async def test_pinned_settings_need_one_statement_for_each_connection_and_none_for_a_transaction(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes | str] = []
    execute = psycopg.AsyncConnection.execute

    async def counted(self: Any, query: bytes | str, *arguments: Any, **named: Any) -> Any:
        sent.append(query)
        return await execute(self, query, *arguments, **named)

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", counted)
    database = Database(database_url, pool_size=1)
    try:
        for _ in range(3):
            async with database.transaction() as connection:
                await connection.execute(text("SELECT 1"))
    finally:
        await database.close()
    # On a cluster it is also asked whether tables are distributed, and which node this is.
    assert len(sent) == (3 if workers() else 1)


async def test_a_server_without_client_connection_check_is_used_nevertheless(
    database_url: str,
) -> None:
    refused = {"tcp_keepalives_idle": ("no number", "refused by the server")}
    async with await psycopg.AsyncConnection.connect(database_url) as session:
        await sessions.prepare(session, peer_pins=refused)
        cursor = await session.execute("SHOW jit")
        assert await cursor.fetchone() == ("off",)


async def test_migrations_run_on_a_database_with_adverse_session_values(adverse_url: str) -> None:
    name = f"{make_url(adverse_url).database}_anew"
    async with await psycopg.AsyncConnection.connect(adverse_url, autocommit=True) as connection:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0'.encode())
        anew = make_url(adverse_url).set(database=name).render_as_string(hide_password=False)
        try:
            await make_adverse(anew)
            run_migrations(anew)
            run_migrations(anew)
        finally:
            await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())

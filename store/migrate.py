"""Migrations: bring a database's schema up to this version, once, however many replicas start at the same time.

Versions of Tidemark may run side by side on one database while an upgrade rolls out. A migration declares the oldest
revision whose code runs on its result; the schema stores that, and an older server that starts on a newer schema
reads it.
"""

import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.exc import DBAPIError

from runtime.redaction import error_text
from store.postgres.database import DatabaseUnavailable, sync_engine
from store.postgres.failures import failure_of
from store.tables.schema import schema_compatibility

# Any fixed number serves that no other program locks: "tidemark" read as base 36, cut to a bigint.
_LOCK = 1_052_911_830_411
_LOCK_INTERVAL = 0.1  # seconds between two tries to take it
MINIMUM_SERVER_VERSION = 150000  # PostgreSQL 15


class UnsupportedServer(Exception):
    """The PostgreSQL server is older than Tidemark can use."""


class UnsupportedEncoding(UnsupportedServer):
    """The database cannot hold every id and name that callers may send."""


class SchemaTooOld(Exception):
    """The schema lacks migrations that this version needs."""


class SchemaTooNew(Exception):
    """A newer version migrated the schema to a form that this version cannot use."""


def migrate(url: str) -> bool:
    """Applies every missing migration. Blocks while another process does so; safe to repeat.

    Returns whether the schema is this version's own; False when a newer version migrated it and this version can run
    on it, in which case nothing is changed.
    Raises UnsupportedServer when the server is older than PostgreSQL 15 or the database is not in UTF8, SchemaTooNew
    when this version cannot run on the schema, and DatabaseUnavailable, in the driver's words, when the server cannot
    be reached.
    """
    engine = sync_engine(url)
    try:
        with engine.connect() as connection:
            _check_server(connection)
            _lock(connection)
            try:
                configuration = _configuration()
                if _is_newer(connection, configuration):
                    _check_compatible(connection, configuration)
                    return False
                connection.rollback()
                configuration.attributes["connection"] = connection
                command.upgrade(configuration, "head")
                connection.commit()
                return True
            finally:
                # Where the connection was lost, the lock went with it.
                if not connection.invalidated:
                    connection.rollback()
                    connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
                    connection.commit()
    except DBAPIError as error:
        raise _unavailable(error) from error
    finally:
        engine.dispose()


def check(url: str) -> None:
    """Finds out whether this version can run on the schema as it is; changes nothing.

    Raises SchemaTooOld when migrations are missing, and what `migrate` raises.
    """
    engine = sync_engine(url)
    try:
        with engine.connect() as connection:
            _check_server(connection)
            configuration = _configuration()
            if _is_newer(connection, configuration):
                _check_compatible(connection, configuration)
            elif (found := _revision(connection)) != (head := _head(configuration)):
                raise SchemaTooOld(
                    f"the schema is at revision {found or 'none'} and this version of Tidemark needs revision {head}"
                )
    except DBAPIError as error:
        raise _unavailable(error) from error
    finally:
        engine.dispose()


def _lock(connection: Connection) -> None:
    """Takes the lock for this session. Waits between tries, and not in one statement.

    A statement that waits holds a snapshot, and CREATE INDEX CONCURRENTLY waits for all of them.
    """
    while True:
        taken = connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK})
        connection.commit()
        if taken:
            return
        time.sleep(_LOCK_INTERVAL)


def _unavailable(error: DBAPIError) -> Exception:
    """What is raised for an error of the database: itself, when the database is not at fault."""
    failure = failure_of(error)
    return error if failure is None else DatabaseUnavailable(error_text(error), failure)


def _check_server(connection: Connection) -> None:
    version = int(connection.scalar(text("SHOW server_version_num")) or 0)
    if version < MINIMUM_SERVER_VERSION:
        raise UnsupportedServer(f"PostgreSQL 15 or newer is needed; this server is {version // 10000}")
    encoding = connection.scalar(text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise UnsupportedEncoding(f"the database has to be encoded in UTF8; this one is in {encoding}")


def _configuration() -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return configuration


def _head(configuration: Config) -> str:
    head = ScriptDirectory.from_config(configuration).get_current_head()
    assert head is not None
    return head


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _is_newer(connection: Connection, configuration: Config) -> bool:
    """Whether a migration that this version does not know was the last one."""
    found = _revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(configuration).walk_revisions()}
    return found is not None and found not in known


def _check_compatible(connection: Connection, configuration: Config) -> None:
    # Versions before the table, and other programs' schemas, say nothing of compatibility.
    says = inspect(connection).has_table(schema_compatibility.name)
    oldest = connection.scalar(select(schema_compatibility.c.oldest_revision)) if says else None
    if oldest is None or oldest > _head(configuration):
        raise SchemaTooNew(
            f"a newer version of Tidemark migrated the schema to revision {_revision(connection)}, which needs a"
            f" version that knows revision {oldest or 'unknown'}; this one knows up to {_head(configuration)}"
        )

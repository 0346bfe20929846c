"""Migrations: upgrade the schema of a database to this version, once, even if several replicas start together.

During a rolling upgrade, several versions of Tidemark use one database. Each migration declares the oldest revision
whose code can run on its result. The schema stores it, and an older server that starts on a newer schema reads it.
"""

import time
from pathlib import Path

from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.exc import DBAPIError

from runtime.redaction import error_text
from store.postgres.database import DatabaseUnavailable, sync_engine
from store.postgres.failures import failure_of
from store.tables.schema import schema_compatibility

# An advisory lock. Any number works that no other program locks: this one is "tidemark" in base 36, cut to a bigint.
_LOCK = 1_052_911_830_411
_LOCK_INTERVAL = 0.1  # seconds between two tries to take it
MINIMUM_SERVER_VERSION = 150000  # PostgreSQL 15
_MIGRATIONS = Path(__file__).parent / "migrations"


class UnsupportedServer(Exception):
    """The PostgreSQL server is older than Tidemark supports."""


class UnsupportedEncoding(UnsupportedServer):
    """The database cannot store all ids and names that callers can send."""


class SchemaTooOld(Exception):
    """The schema lacks migrations that this version needs."""


class SchemaTooNew(Exception):
    """A newer version migrated the schema so that this version cannot use it."""


def migrate(url: str) -> bool:
    """Applies all missing migrations. Waits while another process does so; safe to repeat.

    Returns True if the schema is that of this version. Returns False, and changes nothing, if a newer version
    migrated the schema and this version can run on it. Raises UnsupportedServer if the server is older than
    PostgreSQL 15 or the database is not in UTF8, SchemaTooNew if this version cannot run on the schema, and
    DatabaseUnavailable, with the message of the driver, if the server cannot be reached.
    """
    engine = sync_engine(url)
    try:
        with engine.connect() as connection:
            _check_server(connection)
            if _revision(connection) == head():
                return True
            _lock(connection)
            try:
                if _is_newer(connection):
                    _check_compatible(connection)
                    return False
                connection.rollback()
                _upgrade(connection)
                connection.commit()
                return True
            finally:
                # If the connection is lost, so is the lock.
                if not connection.invalidated:
                    connection.rollback()
                    connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
                    connection.commit()
    except DBAPIError as error:
        raise _unavailable(error) from error
    finally:
        engine.dispose()


def check(url: str) -> None:
    """Checks that this version can run on the present schema; changes nothing.

    Raises SchemaTooOld if migrations are missing, and the exceptions of `migrate`.
    """
    engine = sync_engine(url)
    try:
        with engine.connect() as connection:
            _check_server(connection)
            if _is_newer(connection):
                _check_compatible(connection)
            elif (found := _revision(connection)) != (latest := head()):
                raise SchemaTooOld(
                    f"the schema is at revision {found or 'none'} and this version of Tidemark needs revision"
                    f" {latest}"
                )
    except DBAPIError as error:
        raise _unavailable(error) from error
    finally:
        engine.dispose()


def _lock(connection: Connection) -> None:
    """Takes the lock for this session. Waits between tries, not inside a statement.

    A waiting statement holds a snapshot, and CREATE INDEX CONCURRENTLY of another migration waits for all snapshots.
    """
    while True:
        taken = connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK})
        connection.commit()
        if taken:
            return
        time.sleep(_LOCK_INTERVAL)


def _unavailable(error: DBAPIError) -> Exception:
    """DatabaseUnavailable for a failure of the database; otherwise the error itself."""
    failure = failure_of(error)
    return error if failure is None else DatabaseUnavailable(error_text(error), failure)


def _check_server(connection: Connection) -> None:
    version = int(connection.scalar(text("SHOW server_version_num")) or 0)
    if version < MINIMUM_SERVER_VERSION:
        raise UnsupportedServer(f"PostgreSQL 15 or newer is needed; this server is {version // 10000}")
    encoding = connection.scalar(text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise UnsupportedEncoding(f"the database has to be encoded in UTF8; this one is in {encoding}")


def _upgrade(connection: Connection) -> None:
    # Imported here, because most processes start on a current schema, and the import takes a fifth of their start.
    from alembic import command
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(_MIGRATIONS))
    configuration.attributes["connection"] = connection
    command.upgrade(configuration, "head")


def _revisions() -> set[str]:
    """The revisions of all migrations. The name of a migration's file begins with its revision."""
    return {path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*_*.py")}


def head() -> str:
    """The revision of the last migration of this version."""
    return max(_revisions())


def _revision(connection: Connection) -> str | None:
    """The revision of the last migration; None if there was none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _is_newer(connection: Connection) -> bool:
    """Whether the last migration is one that this version does not know."""
    found = _revision(connection)
    return found is not None and found not in _revisions()


def _check_compatible(connection: Connection) -> None:
    # Schemas of versions before this table, and of other programs, do not have it.
    has_table = inspect(connection).has_table(schema_compatibility.name)
    oldest = connection.scalar(select(schema_compatibility.c.oldest_revision)) if has_table else None
    if oldest is None or oldest > head():
        raise SchemaTooNew(
            f"a newer version of Tidemark migrated the schema to revision {_revision(connection)}, which needs a"
            f" version that knows revision {oldest or 'unknown'}; this one knows up to {head()}"
        )

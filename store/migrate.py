"""Migrations: upgrade the schema of a database to this version, once, even if several replicas start together.

During a rolling upgrade, several versions of Tidemark use one database. Each migration declares the oldest revision
whose code can run on its result. The schema stores it, and an older server that starts on a newer schema reads it.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, event, inspect, select, text
from sqlalchemy.exc import DBAPIError

from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.redaction import error_text
from store.citus.distribution import distribute, is_complete
from store.citus.nodes import Node, add_nodes, check_extension, check_nodes
from store.postgres.database import DatabaseUnavailable, sync_engine
from store.postgres.distributed import is_distributed_now
from store.postgres.failures import DEADLOCK, LOCK_TIMEOUT, failure_of
from store.tables.schema import schema_compatibility

# An advisory lock. Any number works that no other program locks: this one is "tidemark" in base 36, cut to a bigint.
_LOCK = 1_052_911_830_411
_LOCK_INTERVAL = 0.1  # seconds between two tries to take it
# Seconds that a migration waits for the lock of a table. Everything that needs the table queues behind such a wait,
# also what the holder of the lock would not delay: behind a dump, which only reads, all servers would stand still.
LOCK_TIMEOUT_SECONDS = 2
LOCK_PATIENCE = 600.0  # seconds in which a migration tries again to get its locks
LONGEST_PAUSE = 10.0  # seconds between two tries, in which servers catch up
MINIMUM_SERVER_VERSION = 150000  # PostgreSQL 15
_MIGRATIONS = Path(__file__).parent / "migrations"

logger = logging.getLogger(__name__)


class UnsupportedServer(Exception):
    """The PostgreSQL server is older than Tidemark supports."""


class UnsupportedEncoding(UnsupportedServer):
    """The database cannot store all ids and names that callers can send."""


class SchemaTooOld(Exception):
    """The schema lacks migrations that this version needs."""


class NotOwner(Exception):
    """The role does not own the tables, so it can neither create partitions nor drop old ones."""


class SchemaTooNew(Exception):
    """A newer version migrated the schema so that this version cannot use it."""


def migrate(url: str, *, cluster: Sequence[Node] | None = None) -> bool:
    """Applies all missing migrations. Waits while another process does so; safe to repeat.

    A migration that cannot lock a table soon is rolled back and tried again, so that it never stops servers for long.
    Where the tables are distributed already, those that are new move to their places.

    cluster: also adds these workers to the cluster and moves each table to its place on it. Then raises NotACluster
    if the database is not that of a usable cluster, and StillInUse and Misplaced of `store.citus.distribution`.

    Returns True if the schema is that of this version. Returns False, and changes nothing, if a newer version
    migrated the schema and this version can run on it. Raises UnsupportedServer if the server is older than
    PostgreSQL 15 or the database is not in UTF8, SchemaTooNew if this version cannot run on the schema, and
    DatabaseUnavailable, with the message of the driver, if the server cannot be reached.
    """
    engine = sync_engine(url)
    try:
        with engine.connect() as connection:
            _check_server(connection)
            if cluster is not None:
                check_extension(connection)
            elif _revision(connection) == head() and is_complete(connection):
                return True
            _lock(connection)
            try:
                if _is_newer(connection):
                    _check_compatible(connection)
                    return False
                connection.rollback()
                _patiently(connection, _upgrade)
                connection.commit()
                if cluster is not None:
                    add_nodes(connection, url, cluster)
                    check_nodes(connection)
                if cluster is not None or is_distributed_now(connection):
                    connection.rollback()
                    _patiently(connection, distribute)
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
            elif (found := _revision(connection)) != (needed := head()):
                raise SchemaTooOld(
                    f"the schema is at revision {found or 'none'}, and this version of Tidemark needs revision"
                    f" {needed}"
                )
    except DBAPIError as error:
        raise _unavailable(error) from error
    finally:
        engine.dispose()


def check_owner(url: str) -> None:
    """Checks that the role can create and drop partitions, which servers and notifiers do while they run.

    Raises NotOwner and DatabaseUnavailable.
    """
    engine = sync_engine(url)
    try:
        with engine.connect() as connection:
            role, owner, owns, creates = connection.execute(text(_RIGHTS)).one()
            if not owns:
                raise NotOwner(f"the role {role} does not own the tables, which belong to {owner}")
            if not creates:
                raise NotOwner(f"the role {role} may not create tables in the schema of Tidemark's tables")
    except DBAPIError as error:
        raise _unavailable(error) from error
    finally:
        engine.dispose()


_RIGHTS = """
SELECT current_user, pg_get_userbyid(relowner), pg_has_role(relowner, 'USAGE'),
    has_schema_privilege(relnamespace, 'CREATE')
FROM pg_class WHERE oid = 'event'::regclass
"""


def known_revisions() -> set[str]:
    """The revisions of all migrations of this version. The last one is the greatest."""
    return _revisions()


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


def _patiently(connection: Connection, change: Callable[[Connection], object]) -> None:
    """Changes the schema; tries again what another session kept from its locks. What is committed stays applied."""
    backoff = Backoff(1.0, LONGEST_PAUSE)
    end = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            with _short_lock_waits(connection):
                change(connection)
            return
        except DBAPIError as error:
            failure = failure_of(error)
            if failure not in (LOCK_TIMEOUT, DEADLOCK) or time.monotonic() > end:
                raise
            connection.rollback()
            pause = backoff.next()
            logger.warning(
                "a migration gave way to another session that uses its table, and is tried again in %.1f s: %s",
                pause,
                error_text(error),
                extra={"action": LogAction.MIGRATION_WAITS, "failure": failure.kind},
            )
            time.sleep(pause)


@contextmanager
def _short_lock_waits(connection: Connection) -> Iterator[None]:
    """In this block, statements in transactions wait for LOCK_TIMEOUT_SECONDS at most.

    Outside of a transaction are the concurrent statements. They block no server while they wait, and what they have
    built would be lost.
    """

    def bound(begun: Connection) -> None:
        raw = begun.connection.driver_connection
        assert raw is not None
        if not raw.autocommit:
            raw.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'")

    event.listen(connection, "begin", bound)
    try:
        yield
    finally:
        event.remove(connection, "begin", bound)


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


def usable_revision(connection: Connection) -> str | None:
    """The revision of the schema; None if there is none. Raises the exceptions of `migrate`."""
    _check_server(connection)
    if _is_newer(connection):
        _check_compatible(connection)
    return _revision(connection)


def revisions_after(revision: str) -> list[str]:
    """The later revisions that this version knows, in their order."""
    return sorted(one for one in _revisions() if one > revision)


def script_of(revision: str) -> Path:
    """The file of a migration."""
    [path] = (_MIGRATIONS / "versions").glob(f"{revision}_*.py")
    return path


def unavailable(error: DBAPIError) -> Exception:
    """What `migrate` raises for an error of the database."""
    return _unavailable(error)

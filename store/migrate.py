"""Migrations: brings a database's schema up to this version, once, however many replicas start at the same time."""

import time
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from runtime.redaction import error_text
from store import sessions
from store.database import DatabaseUnavailable, sqlalchemy_url
from store.failures import failure_of

# Any fixed number serves, as long as nobody else locks it: "tidemark" read as base 36, cut to a bigint.
_LOCK = 1_052_911_830_411
_LOCK_INTERVAL = 0.1  # seconds between two tries to take it
MINIMUM_SERVER_VERSION = 150000  # PostgreSQL 15


class UnsupportedServer(Exception):
    """The PostgreSQL server is older than Tidemark can use."""


def migrate(url: str) -> None:
    """Applies every missing migration. Blocks while another process does so; safe to repeat.

    Raises UnsupportedServer when the server is older than PostgreSQL 15, and DatabaseUnavailable, in the driver's
    words, when it cannot be reached.
    """
    engine = create_engine(
        sqlalchemy_url(url), hide_parameters=True, connect_args=sessions.connection_arguments("migrate")
    )
    event.listen(engine, "connect", _prepare)
    try:
        with engine.connect() as connection:
            version = int(connection.scalar(text("SHOW server_version_num")) or 0)
            if version < MINIMUM_SERVER_VERSION:
                raise UnsupportedServer(f"PostgreSQL 15 or newer is needed; this server is {version // 10000}")
            _lock(connection)
            try:
                configuration = Config()
                configuration.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
                configuration.attributes["connection"] = connection
                command.upgrade(configuration, "head")
                connection.commit()
            finally:
                # Where the connection was lost, the lock went with it.
                if not connection.invalidated:
                    connection.rollback()
                    connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
                    connection.commit()
    except DBAPIError as error:
        failure = failure_of(error)
        if failure is None:
            raise
        raise DatabaseUnavailable(error_text(error), failure) from error
    finally:
        engine.dispose()


def _prepare(connection: Any, _: Any) -> None:
    sessions.prepare_migration(connection)


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

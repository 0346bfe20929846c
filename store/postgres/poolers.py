"""Transaction poolers: proxies that give each transaction of a client another session of the server.

Tidemark relies on session state: the settings of each connection, prepared statements, and LISTEN. Behind PgBouncer
with `pool_mode = transaction`, or a similar proxy, some statements fail, and settings of one client reach another. So
a process refuses to start behind such a proxy, instead of failing later.
"""

from typing import Any

import psycopg

from runtime.redaction import error_text
from store.postgres import sessions
from store.postgres.failures import DatabaseUnavailable

ROUNDS = 3  # checks; a busy pooler can give two connections different sessions once, but not each time


def shares_sessions(url: str) -> bool:
    """Whether a proxy lets connections to `url` share server sessions.

    Without a proxy, two open connections have two sessions, and the session of a connection never changes. Raises
    DatabaseUnavailable if the database cannot be reached.
    """
    conninfo = sessions.connection_string(url, "start")
    try:
        with (
            psycopg.connect(conninfo, autocommit=True, prepare_threshold=None) as one,
            psycopg.connect(conninfo, autocommit=True, prepare_threshold=None) as other,
        ):
            pairs = [(_session(one), _session(other)) for _ in range(ROUNDS)]
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(error_text(error)) from error
    return len(set(pairs)) > 1 or any(first == second for first, second in pairs)


def _session(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])

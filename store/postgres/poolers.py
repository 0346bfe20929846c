"""Transaction poolers: proxies that give each transaction of a client another session of the server.

Tidemark keeps session state: the settings that every connection pins, prepared statements, and LISTEN. Behind
PgBouncer with `pool_mode = transaction` (or another proxy of the kind) statements fail now and then, and settings of
one client leak to another. So a process refuses to start behind one, instead of failing later.
"""

from typing import Any

import psycopg

from runtime.redaction import error_text
from store.postgres import sessions
from store.postgres.failures import DatabaseUnavailable

ROUNDS = 3  # of questions; a pooler that is busy may hand out different sessions once, but not each time


def shares_sessions(url: str) -> bool:
    """Whether connections to `url` do not keep a server session of their own.

    Two connections that are open at the same time have two sessions, unless a proxy lends one session to both; and
    the session of a connection never changes, unless a proxy changes it. Raises DatabaseUnavailable when the
    database cannot be reached.
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

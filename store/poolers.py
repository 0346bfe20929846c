"""Transaction poolers: proxies that give each transaction of a client another session of the server.

Tidemark keeps session state: the settings that every connection pins, prepared statements, and LISTEN. Behind
PgBouncer with `pool_mode = transaction` (or another proxy of the kind) statements fail now and then, and settings of
one client leak to another. So a process refuses to start behind one, instead of failing later.
"""

from typing import Any

import psycopg

from store.addresses import writable
from store.database import CONNECT_TIMEOUT, DatabaseUnavailable

ROUNDS = 3  # of questions; a pooler that is busy may hand out different sessions once, but not each time


def shares_sessions(url: str) -> bool:
    """Whether connections to `url` do not keep a server session of their own.

    Two connections that are open at the same time have two sessions, unless a proxy lends one session to both; and
    the session of a connection never changes, unless a proxy changes it. Raises DatabaseUnavailable when the
    database cannot be reached.
    """
    conninfo = writable(url, connect_timeout=CONNECT_TIMEOUT)
    try:
        with (
            psycopg.connect(conninfo, autocommit=True, prepare_threshold=None) as one,
            psycopg.connect(conninfo, autocommit=True, prepare_threshold=None) as other,
        ):
            sessions = [(_session(one), _session(other)) for _ in range(ROUNDS)]
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(str(error)) from error
    return len(set(sessions)) > 1 or any(first == second for first, second in sessions)


def _session(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])

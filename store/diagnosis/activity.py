"""What the sessions of the database do: long transactions, waits, slow statements."""

import re
from dataclasses import dataclass
from datetime import timedelta

from store.postgres.database import DriverConnection

SHOWN = 5  # sessions or statements of one answer
STATEMENT_LENGTH = 120  # characters of a statement that are shown


@dataclass(frozen=True)
class Session:
    """A session, and how long it has been in its transaction, its statement or its wait. blocked_by: process ids."""

    pid: int
    application: str
    user: str
    state: str
    duration: timedelta
    statement: str
    blocked_by: tuple[int, ...] = ()


# The sessions of a backup (walsender) and of the system have no transaction of the database.
_LONG = """
SELECT pid, application_name, coalesce(usename, ''), coalesce(state, ''), clock_timestamp() - xact_start,
    left(coalesce(query, ''), %(length)s)
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND xact_start < clock_timestamp() - %(least)s
ORDER BY xact_start LIMIT %(limit)s
"""
_WAITING = """
SELECT pid, application_name, coalesce(usename, ''), coalesce(state, ''), clock_timestamp() - query_start,
    left(coalesce(query, ''), %(length)s), pg_blocking_pids(pid)
FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()
    AND query_start < clock_timestamp() - %(least)s
ORDER BY query_start LIMIT %(limit)s
"""
_RUNNING = """
SELECT pid, application_name, coalesce(usename, ''), coalesce(state, ''), clock_timestamp() - query_start,
    left(coalesce(query, ''), %(length)s)
FROM pg_stat_activity
WHERE datname = current_database() AND state = 'active' AND backend_type = 'client backend'
    AND pid <> pg_backend_pid() AND query_start < clock_timestamp() - %(least)s
ORDER BY query_start LIMIT %(limit)s
"""


async def long_transactions(connection: DriverConnection, least: timedelta) -> list[Session]:
    """The transactions that have been open for longest."""
    return await _sessions(connection, _LONG, least)


async def waits(connection: DriverConnection, least: timedelta) -> list[Session]:
    """The statements that have waited longest for a lock."""
    return await _sessions(connection, _WAITING, least)


async def running_statements(connection: DriverConnection, least: timedelta) -> list[Session]:
    """The statements that have run for longest."""
    return await _sessions(connection, _RUNNING, least)


# Comments and names are found, too: an apostrophe in them begins no text.
_TOKENS = re.compile(
    r"""(?P<name>"(?:[^"]|"")*(?:"|\Z))|(?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))"""
    r"""|[eE]'(?:\\.|''|[^'\\])*(?:'|\Z|\\\Z)|'(?:''|[^'])*(?:'|\Z)"""
    r"""|(?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?:(?P=tag)|\Z)""",
    re.DOTALL,
)


def shown_statement(statement: str) -> str:
    """A statement of any program on one line, without its comments and texts: these can be secrets or personal.

    What is not printable becomes a question mark: it could control the terminal.
    """

    def shown(token: re.Match[str]) -> str:
        if token["name"] is not None:
            return token["name"]
        return " " if token["comment"] is not None else "'…'"

    line = " ".join(_TOKENS.sub(shown, statement).split())
    return line if line.isprintable() else "".join(one if one.isprintable() else "?" for one in line)


async def _sessions(connection: DriverConnection, query: str, least: timedelta) -> list[Session]:
    cursor = await connection.execute(query.encode(), {"least": least, "limit": SHOWN, "length": STATEMENT_LENGTH})
    found = []
    for pid, application, user, state, duration, statement, *rest in await cursor.fetchall():
        blocked_by = tuple(rest[0]) if rest else ()
        found.append(Session(pid, application, user, state, duration, shown_statement(statement), blocked_by))
    return found


@dataclass(frozen=True)
class SlowStatement:
    """A kind of statement, by pg_stat_statements. mean, total: time."""

    statement: str
    calls: int
    mean: timedelta
    total: timedelta


_SLOW = """
SELECT left(query, %(length)s), calls, mean_exec_time, total_exec_time FROM {schema}.pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND mean_exec_time >= %(least)s AND calls >= %(calls)s
ORDER BY total_exec_time DESC LIMIT %(limit)s
"""
_EXTENSION = """
SELECT quote_ident(nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE extname = 'pg_stat_statements'
"""


async def slow_statements(connection: DriverConnection, least: timedelta, calls: int) -> list[SlowStatement] | None:
    """The kinds of statements with at least that mean time; None where pg_stat_statements is not installed."""
    found = await (await connection.execute(_EXTENSION)).fetchone()
    if found is None:
        return None
    cursor = await connection.execute(
        _SLOW.format(schema=found[0]).encode(),
        {
            "least": least.total_seconds() * 1000,
            "calls": calls,
            "limit": SHOWN,
            "length": STATEMENT_LENGTH,
        },
    )
    return [
        SlowStatement(shown_statement(statement), number, timedelta(milliseconds=mean), timedelta(milliseconds=total))
        for statement, number, mean, total in await cursor.fetchall()
    ]

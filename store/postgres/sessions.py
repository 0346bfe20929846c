"""Sessions: how every connection of the product is made, and the settings that its correctness needs.

A role, a database, the server's configuration, PGOPTIONS and variables such as PGTZ all change what a new session
does. What the product relies on is therefore set by each session itself, in one statement after it has connected.
A statement and not the `options` of the connection's start: PgBouncer refuses those.

What is *not* set, on purpose: `default_transaction_read_only`, with which an operator fences off an old primary, so
that a server that is to take no writes gets none (such a session is refused, see `ReadOnlyServer`); and
`search_path`, which decides where the tables lie and must be the same for server, notifier and commands.
"""

import os
import socket
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from store.postgres.addresses import conninfo
from store.postgres.failures import READ_ONLY, DatabaseUnavailable

Row = tuple[Any, ...]

CONNECT_TIMEOUT = 5  # seconds
LOCK_TIMEOUT = 3  # seconds that a statement waits for a lock before its transaction is rolled back and tried again
# Seconds that a transaction may lie idle between two statements. A process that is frozen in mid-transaction keeps
# its locks for this long and no longer; one that works is idle for milliseconds.
IDLE_TRANSACTION_TIMEOUT = 5
# Seconds after which either side takes a peer for dead that acknowledges nothing.
PEER_TIMEOUT = 15
_KEEPALIVE = {"idle": 10, "interval": 5, "count": 1}  # seconds, seconds, probes

# name: (value, why). Values are literals of ours.
PINS: Mapping[str, tuple[str, str]] = {
    # What a transaction sees and leaves.
    "default_transaction_isolation": (
        "read committed",
        "the snapshot of the statement after a lock has to be younger than the lock; under REPEATABLE READ every"
        " second transaction of a customer fails",
    ),
    "default_transaction_deferrable": ("off", "belongs to SERIALIZABLE"),
    "transform_null_equals": ("off", "`= NULL` would find rows"),
    "row_security": ("on", "off, every statement fails in a database with row policies"),
    # How values are written and read: the driver parses text, and some statements build it.
    "client_encoding": ("UTF8", "ids are any UTF-8; SQL_ASCII makes the driver return bytes"),
    "TimeZone": ("UTC", "days and months are cut in UTC"),
    "DateStyle": ("ISO, YMD", "the driver reads ISO dates only"),
    "IntervalStyle": ("postgres", "the driver reads this style only"),
    "bytea_output": ("hex", "what the driver and `encode` expect"),
    "extra_float_digits": ("1", "the shortest text that is exact"),
    "standard_conforming_strings": ("on", "off, a backslash in a literal is an escape"),
    "array_nulls": ("on", "off, NULL in an array is the string NULL"),
    "quote_all_identifiers": ("off", "names of partitions are read from the catalogue"),
    # How long a session may keep others waiting. Statements are bounded by the deadline of the call that they serve.
    "statement_timeout": ("0", "calls have deadlines; a time-out of the role would fail large batches for ever"),
    "transaction_timeout": ("0", "as statement_timeout; PostgreSQL 17 and newer"),
    "idle_session_timeout": ("0", "idle connections of a pool are meant to be there; PostgreSQL ends none of them"),
    "lock_timeout": (f"{LOCK_TIMEOUT}s", "a waiter gives its connection back and tries again"),
    "idle_in_transaction_session_timeout": (
        f"{IDLE_TRANSACTION_TIMEOUT}s",
        "a frozen process must not hold its locks for as long as it is frozen",
    ),
    # Plans.
    "jit": ("off", "compiling costs more than any statement of ours: a claim took a second"),
    "plan_cache_mode": ("auto", "forced generic plans ignore how few rows a batch names"),
}

# A peer that vanished without a word. Not every platform of a server knows all of them, so they may be refused.
_PEER_PINS: Mapping[str, tuple[str, str]] = {
    "client_connection_check_interval": ("5s", "a statement that runs for a client that is gone ends"),
    "tcp_keepalives_idle": (str(_KEEPALIVE["idle"]), "the server notices a vanished client"),
    "tcp_keepalives_interval": (str(_KEEPALIVE["interval"]), "as tcp_keepalives_idle"),
    "tcp_keepalives_count": (str(_KEEPALIVE["count"]), "as tcp_keepalives_idle"),
    "tcp_user_timeout": (f"{PEER_TIMEOUT}s", "also where a client takes no more data"),
}

# A migration works in long statements and waits for its turn, but a frozen one must not keep its lock either.
MIGRATION_PINS: Mapping[str, tuple[str, str]] = {
    **PINS,
    "lock_timeout": ("0", "a migration waits for the one that another process makes"),
    "idle_in_transaction_session_timeout": ("60s", "a frozen process must not keep others from starting"),
    "idle_session_timeout": ("60s", "the lock of migrations belongs to the session"),
}

# `off` and `local` answer before the event is as durable as the server's configuration promises. What waits for more
# than the default stays.
_SYNCHRONOUS_COMMIT = (
    "('synchronous_commit',"
    " CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END)"
)


class ReadOnlyServer(DatabaseUnavailable):
    """The server of a new connection takes no writes, so the connection was closed again."""

    def __init__(self) -> None:
        super().__init__(READ_ONLY.message, READ_ONLY)


def application_name(purpose: str = "") -> str:
    """The name of this process's sessions in pg_stat_activity: what it is, its host and its process id."""
    name = f"tidemark {purpose}".strip()
    return f"{name} {socket.gethostname()[:32]}:{os.getpid()}"


def connection_string(url: str, purpose: str = "") -> str:
    """What the driver needs to connect to the database at `url`."""
    found = conninfo(
        url,
        connect_timeout=CONNECT_TIMEOUT,
        keepalives=1,
        keepalives_idle=_KEEPALIVE["idle"],
        keepalives_interval=_KEEPALIVE["interval"],
        keepalives_count=_KEEPALIVE["count"],
        tcp_user_timeout=PEER_TIMEOUT * 1_000,  # milliseconds
    )
    # Not left to the URL, as the others are: the watch over lock waits finds our sessions by their name.
    return make_conninfo(found, application_name=application_name(purpose))


async def prepare(connection: psycopg.AsyncConnection[Row]) -> None:
    """Sets what a new session needs, in one round trip.

    Raises ReadOnlyServer and the driver's errors; then the connection is closed.
    """
    try:
        # Set in a transaction, the settings would go with its rollback.
        await connection.set_autocommit(True)
        try:
            cursor = await connection.execute(_statement({**PINS, **_PEER_PINS}))
        except psycopg.errors.InvalidParameterValue:
            cursor = await connection.execute(_statement(PINS))
        _require_writable(await cursor.fetchall())
        await connection.set_autocommit(False)
    except BaseException:
        await connection.close()
        raise


def prepare_migration(connection: psycopg.Connection[Row]) -> None:
    """Sets what the session of a migration needs, as `prepare`."""
    try:
        connection.autocommit = True
        _require_writable(connection.execute(_statement(MIGRATION_PINS)).fetchall())
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise


async def connect(url: str, purpose: str) -> psycopg.AsyncConnection[Row]:
    """A connection of its own, outside of any pool, in autocommit mode.

    Raises ReadOnlyServer and the driver's errors.
    """
    connection = await psycopg.AsyncConnection.connect(connection_string(url, purpose))
    await prepare(connection)
    await connection.set_autocommit(True)
    return connection


async def require_writable(connection: psycopg.AsyncConnection[Row]) -> None:
    """Raises ReadOnlyServer when the server of a session takes no writes any more."""
    cursor = await connection.execute("SELECT NULL, current_setting('transaction_read_only')")
    _require_writable(await cursor.fetchall())


def _require_writable(settings: list[Row]) -> None:
    if any(read_only == "on" for _, read_only in settings):
        raise ReadOnlyServer


def _statement(pins: Mapping[str, tuple[str, str]]) -> bytes:
    """Sets each setting that the server knows, and says whether its transactions are read only."""
    values = ", ".join([_SYNCHRONOUS_COMMIT, *(f"('{name}', '{value}')" for name, (value, _) in pins.items())])
    return f"""
        SELECT set_config(name, value, false), current_setting('transaction_read_only')
        FROM (VALUES {values}) AS pin (name, value)
        WHERE current_setting(name, true) IS NOT NULL
    """.encode()

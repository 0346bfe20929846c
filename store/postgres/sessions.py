"""Sessions: how each connection is opened, and the settings that correctness depends on.

The role, the database, the server's configuration, PGOPTIONS and variables such as PGTZ all change how a new session
behaves. So each session sets what Tidemark depends on, in one statement after it has connected. It does not use the
`options` of the connection, which PgBouncer refuses.

Two settings stay unset on purpose. With `default_transaction_read_only`, operators keep writes from an old primary
(such a session is refused, see `ReadOnlyServer`). `search_path` decides in which schema the tables are, and must be
the same for server, notifier and commands.
"""

import os
import socket
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from store.postgres import distributed
from store.postgres.addresses import conninfo
from store.postgres.failures import READ_ONLY, DatabaseUnavailable
from store.postgres.pooled_connection import PooledConnection

Row = tuple[Any, ...]

CONNECT_TIMEOUT = 5  # seconds
LOCK_TIMEOUT = 3  # seconds that a statement waits for a lock before its transaction is rolled back and tried again
# Seconds that a transaction can be idle between two statements. A process that freezes in a transaction holds its
# locks no longer than this; a process that works is idle for milliseconds.
IDLE_TRANSACTION_TIMEOUT = 5
# Seconds that a statement can run. It ends the statements of a process that hangs. The longest statement that is
# right counts the events of one customer, millions of them in a minute; calls have a shorter time
# (`store.postgres.statement_bounds`).
STATEMENT_TIMEOUT = 900
# Seconds without acknowledgements after which either side considers the other one dead.
PEER_TIMEOUT = 15
_KEEPALIVE = {"idle": 10, "interval": 5, "count": 1}  # seconds, seconds, probes

# name: (value, why). The values are constants, so they need no escapes.
PINS: Mapping[str, tuple[str, str]] = {
    # What a transaction reads and stores.
    "default_transaction_isolation": (
        "read committed",
        "the snapshot of the statement after a lock must be newer than the lock; under REPEATABLE READ every second"
        " transaction of a customer fails",
    ),
    "default_transaction_deferrable": ("off", "belongs to SERIALIZABLE"),
    "transform_null_equals": ("off", "`= NULL` would find rows"),
    "row_security": ("on", "off, every statement fails in a database with row policies"),
    # The text form of values: the driver parses it, and some statements build it.
    "client_encoding": ("UTF8", "ids can contain any UTF-8; with SQL_ASCII the driver returns bytes"),
    "TimeZone": ("UTC", "days and months are those of UTC"),
    "DateStyle": ("ISO, YMD", "the driver reads ISO dates only"),
    "IntervalStyle": ("postgres", "the driver reads this style only"),
    "bytea_output": ("hex", "what the driver and `encode` expect"),
    "extra_float_digits": ("1", "the shortest text that is exact"),
    "standard_conforming_strings": ("on", "off, a backslash in a literal is an escape"),
    "array_nulls": ("on", "off, NULL in an array is the string NULL"),
    "quote_all_identifiers": ("off", "names of partitions are read from the catalogue"),
    # How long a session can make others wait.
    "statement_timeout": (
        f"{STATEMENT_TIMEOUT // 60}min",
        "a process that hangs must not leave a statement that never ends",
    ),
    # PostgreSQL 17 and newer. It would end the session. Its parts, statements and pauses, have limits of their own.
    "transaction_timeout": ("0", "with a timeout of the role, large batches would never succeed"),
    "idle_session_timeout": ("0", "idle connections of a pool must stay open"),
    "lock_timeout": (f"{LOCK_TIMEOUT}s", "a transaction that waits returns its connection and is tried again"),
    "idle_in_transaction_session_timeout": (
        f"{IDLE_TRANSACTION_TIMEOUT}s",
        "a frozen process must not hold its locks until it continues",
    ),
    # Plans.
    "jit": ("off", "compilation takes longer than any statement of Tidemark: a claim took a second"),
    "plan_cache_mode": ("auto", "forced generic plans ignore that a batch names few rows"),
    # Of a Citus cluster; a server without that extension does not know them, and they are left out.
    "citus.enable_deadlock_prevention": (
        "off",
        "on, every statement that changes several shards locks them until the commit: commits wait for each other,"
        " and deadlock although they share no row",
    ),
    "citus.multi_shard_modify_mode": (
        "sequential",
        "one connection to each node, so that a transaction sees its own changes, and locks shards in one order",
    ),
    "citus.node_connection_timeout": (
        f"{CONNECT_TIMEOUT}s",
        "a statement must not wait longer for a node whose machine is away than a process for the database",
    ),
}

# Those of PINS that only a server with the extension of a cluster knows.
OF_CLUSTER = frozenset(name for name in PINS if name.startswith("citus."))

# Detect a peer that vanished. Not each platform of the server supports all of them, so the server may refuse them.
PEER_PINS: Mapping[str, tuple[str, str]] = {
    "client_connection_check_interval": ("5s", "ends the statement of a client that vanished"),
    "tcp_keepalives_idle": (str(_KEEPALIVE["idle"]), "the server detects a client that vanished"),
    "tcp_keepalives_interval": (str(_KEEPALIVE["interval"]), "as tcp_keepalives_idle"),
    "tcp_keepalives_count": (str(_KEEPALIVE["count"]), "as tcp_keepalives_idle"),
    "tcp_user_timeout": (f"{PEER_TIMEOUT}s", "also if the client reads no more data"),
}


def pins_with(*, lock_timeout: float) -> Mapping[str, tuple[str, str]]:
    """PINS with another lock_timeout, in seconds."""
    _, why = PINS["lock_timeout"]
    return {**PINS, "lock_timeout": (f"{lock_timeout * 1_000:.0f}ms", why)}


# A migration runs long statements and waits for others, but a frozen migration must not hold its lock either.
MIGRATION_PINS: Mapping[str, tuple[str, str]] = {
    **PINS,
    "lock_timeout": ("0", "a migration waits for the migration of another process"),
    "idle_in_transaction_session_timeout": ("60s", "a frozen process must not keep others from starting"),
    "idle_session_timeout": ("60s", "the lock of migrations belongs to the session"),
}

# With `off` and `local`, a commit returns before it is as durable as the server's configuration promises. The
# stricter `remote_apply` stays.
_SYNCHRONOUS_COMMIT = (
    "('synchronous_commit',"
    " CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END)"
)


class ReadOnlyServer(DatabaseUnavailable):
    """The server of a new connection accepts no writes; the connection is closed."""

    def __init__(self) -> None:
        super().__init__(READ_ONLY.message, READ_ONLY)


def application_name(purpose: str = "") -> str:
    """The name of this process's sessions in pg_stat_activity: purpose, host and process id."""
    name = f"tidemark {purpose}".strip()
    return f"{name} {socket.gethostname()[:32]}:{os.getpid()}"


def connection_string(url: str, purpose: str = "") -> str:
    """The driver's connection string for the database at `url`."""
    found = conninfo(
        url,
        connect_timeout=CONNECT_TIMEOUT,
        keepalives=1,
        keepalives_idle=_KEEPALIVE["idle"],
        keepalives_interval=_KEEPALIVE["interval"],
        keepalives_count=_KEEPALIVE["count"],
        tcp_user_timeout=PEER_TIMEOUT * 1_000,  # milliseconds
    )
    # The URL cannot override this one: `LockWatch` finds the sessions of Tidemark by their name.
    return make_conninfo(found, application_name=application_name(purpose))


async def prepare(
    connection: psycopg.AsyncConnection[Row],
    *,
    pins: Mapping[str, tuple[str, str]] = PINS,
    peer_pins: Mapping[str, tuple[str, str]] = PEER_PINS,
) -> None:
    """Sets the settings of a new session, in one round trip; those of `peer_pins` unless the server refuses them.

    Closes the connection if it fails. Raises ReadOnlyServer and the driver's errors.
    """
    try:
        # Outside of a transaction, whose rollback would undo the settings.
        await connection.set_autocommit(True)
        try:
            cursor = await connection.execute(_statement({**pins, **peer_pins}))
        except psycopg.errors.InvalidParameterValue:
            cursor = await connection.execute(_statement(pins))
        settings = await cursor.fetchall()
        _require_writable(settings)
        if isinstance(connection, PooledConnection) and any(row[2] for row in settings):
            await distributed.detect(connection)
        await connection.set_autocommit(False)
    except BaseException:
        await connection.close()
        raise


def prepare_migration(connection: psycopg.Connection[Row]) -> None:
    """Like `prepare`, for the session of a migration."""
    try:
        connection.autocommit = True
        _require_writable(connection.execute(_statement(MIGRATION_PINS)).fetchall())
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise


async def connect(url: str, purpose: str) -> psycopg.AsyncConnection[Row]:
    """A connection outside of any pool, in autocommit mode.

    Raises ReadOnlyServer and the driver's errors.
    """
    connection = await psycopg.AsyncConnection.connect(connection_string(url, purpose))
    await prepare(connection)
    await connection.set_autocommit(True)
    return connection


async def require_writable(connection: psycopg.AsyncConnection[Row]) -> None:
    """Raises ReadOnlyServer if the server of a session no longer accepts writes."""
    cursor = await connection.execute("SELECT NULL, current_setting('transaction_read_only'), NULL")
    _require_writable(await cursor.fetchall())


def _require_writable(settings: list[Row]) -> None:
    if any(read_only == "on" for _, read_only, _ in settings):
        raise ReadOnlyServer


def _statement(pins: Mapping[str, tuple[str, str]]) -> bytes:
    """A statement that sets those settings that the server knows.

    Its rows say whether transactions are read only, and whether the database has the extension Citus.
    """
    values = ", ".join([_SYNCHRONOUS_COMMIT, *(f"('{name}', '{value}')" for name, (value, _) in pins.items())])
    return f"""
        SELECT set_config(name, value, false), current_setting('transaction_read_only'), {distributed.HAS_CITUS}
        FROM (VALUES {values}) AS pin (name, value)
        WHERE current_setting(name, true) IS NOT NULL
    """.encode()

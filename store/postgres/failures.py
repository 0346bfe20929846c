"""What a failure of the database means: for the caller, for the transaction, and for the connection.

One table from SQLSTATE to `Failure`. A state that is not in it is a fault of a statement, that is of this program,
and keeps the driver's exception.
"""

import enum
from dataclasses import dataclass
from datetime import timedelta

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


class Discard(enum.Enum):
    """What is thrown away after a failure."""

    NOTHING = "nothing"  # the transaction was rolled back, and the connection is as good as before
    CONNECTION = "connection"  # this one only
    POOL = "pool"  # all of them: what ended this one, or moved the server, has done the same to the others


@dataclass(frozen=True)
class Failure:
    """One way in which the database does not serve a transaction that is right in itself.

    kind: its name, for logs and for the metadata of the caller's error.
    tries: how often a transaction that may be repeated is tried in all, see `store.postgres.retries`.
    rolled_back: it is certain that the transaction left nothing. If not, a commit may have been made unheard.
    contained: it concerns this transaction; another organization's may succeed at the same moment.
    discard: what becomes of the connections.
    retry_after: what callers are told to wait before they repeat the request.
    """

    kind: str
    message: str
    tries: int = 1
    rolled_back: bool = True
    contained: bool = False
    discard: Discard = Discard.NOTHING
    retry_after: timedelta = timedelta(seconds=1)


CONNECTION_LOST = Failure(
    "connection_lost", "the connection to the database was lost", tries=2, rolled_back=False, discard=Discard.POOL
)
SHUTTING_DOWN = Failure(
    "shutting_down",
    "the database server shuts down, crashed or starts",
    tries=2,
    rolled_back=False,
    discard=Discard.POOL,
)
# After a failover the old primary may be there still, as a standby or set to read only. Its connections work, so
# nothing but this error says that the writable server is elsewhere.
READ_ONLY = Failure(
    "read_only",
    "the database server takes no writes: it is a standby, or default_transaction_read_only is on",
    tries=2,
    discard=Discard.POOL,
    retry_after=timedelta(seconds=2),
)
SESSION_ENDED = Failure(
    "session_ended",
    "the server ended the session since it was silent for too long",
    tries=4,
    discard=Discard.CONNECTION,
)
SERIALIZATION = Failure("serialization", "transactions got into each other's way", tries=5, contained=True)
DEADLOCK = Failure("deadlock", "the transaction waited in a circle with others", tries=5, contained=True)
LOCK_TIMEOUT = Failure(
    "lock_timeout",
    "another session holds a lock for too long",
    tries=8,
    contained=True,
    retry_after=timedelta(seconds=2),
)
# Not tried again inside: the statement would take as long again, of a database that has too much to do.
STATEMENT_CANCELED = Failure(
    "statement_canceled", "the server canceled a statement: its time-out, or an operator", contained=True
)
TOO_MANY_CONNECTIONS = Failure("too_many_connections", "the server has no connection left")
POOL_EXHAUSTED = Failure("pool_exhausted", "no connection became free in time")
DISK_FULL = Failure("disk_full", "the server has no disk left", retry_after=timedelta(seconds=5))
OUT_OF_MEMORY = Failure("out_of_memory", "the server has no memory left", retry_after=timedelta(seconds=5))
LIMIT_REACHED = Failure(
    "limit_reached", "the server reached a limit of its configuration", retry_after=timedelta(seconds=5)
)
SYSTEM_ERROR = Failure(
    "system_error",
    "the server's operating system failed it",
    discard=Discard.CONNECTION,
    retry_after=timedelta(seconds=5),
)

# The whole state, else its first two characters.
_BY_STATE = {
    "08": CONNECTION_LOST,
    "57P": SHUTTING_DOWN,
    "57P01": SHUTTING_DOWN,  # admin_shutdown; also pg_terminate_backend
    "57P02": SHUTTING_DOWN,  # crash_shutdown
    "57P03": SHUTTING_DOWN,  # cannot_connect_now
    "57P04": SHUTTING_DOWN,  # database_dropped
    "57P05": SESSION_ENDED,  # idle_session_timeout
    "25006": READ_ONLY,  # read_only_sql_transaction
    "25P03": SESSION_ENDED,  # idle_in_transaction_session_timeout
    "25P04": SESSION_ENDED,  # transaction_timeout, of PostgreSQL 17 and newer
    "40": SERIALIZATION,
    "40001": SERIALIZATION,
    "40003": CONNECTION_LOST,  # statement_completion_unknown
    "40P01": DEADLOCK,
    "55P03": LOCK_TIMEOUT,  # lock_not_available
    "57014": STATEMENT_CANCELED,
    "53": LIMIT_REACHED,  # insufficient_resources
    "53100": DISK_FULL,
    "53200": OUT_OF_MEMORY,
    "53300": TOO_MANY_CONNECTIONS,
    "58": SYSTEM_ERROR,
    "58030": SYSTEM_ERROR,  # io_error
}
# 40002 is a deferred constraint that does not hold: repeated, it fails again.
_OWN_FAULTS = frozenset({"40002"})


class DatabaseUnavailable(Exception):
    """The database does not serve a transaction now, though nothing is wrong with it; the same may succeed later.

    Whoever works in a loop waits and goes on. `failure` says what it was.
    """

    def __init__(self, message: str, failure: Failure = CONNECTION_LOST) -> None:
        super().__init__(message)
        self.failure = failure
        # Set by `store.postgres.retries` after the last try that the failure allows: no caller may begin again.
        self.given_up = False


def unavailable(failure: Failure) -> DatabaseUnavailable:
    """The exception of a failure, in its own words."""
    return DatabaseUnavailable(failure.message, failure)


def failure_of(error: BaseException, *, connection_is_dead: bool = False) -> Failure | None:
    """What an exception of the driver or of SQLAlchemy means; None when the statement itself was at fault.

    connection_is_dead: as the driver sees it. Then the exception is about that, whatever its type: a pipeline, a
    rollback and a cursor each complain in their own way about a connection that has gone.
    """
    if isinstance(error, DatabaseUnavailable):
        return error.failure
    if isinstance(error, PoolTimeoutError):
        return POOL_EXHAUSTED
    invalidated = isinstance(error, DBAPIError) and error.connection_invalidated
    found = _of_driver(error.orig if isinstance(error, DBAPIError) else error)
    if found is None and (invalidated or connection_is_dead):
        return CONNECTION_LOST
    return found


def sqlstate_of(error: BaseException) -> str:
    """What the server called an error; empty where it did not get to say so."""
    beneath = error.orig if isinstance(error, DBAPIError) else error
    return (beneath.sqlstate or "") if isinstance(beneath, psycopg.Error) else ""


def _of_driver(error: BaseException | None) -> Failure | None:
    if not isinstance(error, psycopg.Error):
        return None
    state = error.sqlstate
    if state is None:
        # The driver's own words, not the server's: it cannot connect, or finds the connection gone.
        return CONNECTION_LOST if isinstance(error, psycopg.OperationalError) else None
    if state in _OWN_FAULTS:
        return None
    return _BY_STATE.get(state) or _BY_STATE.get(state[:3]) or _BY_STATE.get(state[:2])

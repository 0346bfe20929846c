"""The failures of the database: what each means for the caller, for the transaction and for the connection.

A table maps each SQLSTATE to a `Failure`. A state that is not in the table is a fault of a statement, and so of this
program: the driver's exception is raised unchanged.
"""

import enum
from dataclasses import dataclass
from datetime import timedelta

import psycopg
from psycopg import errors
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from store.postgres.cluster_errors import node_in, true_state


class Discard(enum.Enum):
    """Which connections are closed after a failure."""

    NOTHING = "nothing"  # the transaction was rolled back, and the connection is usable
    CONNECTION = "connection"  # only this one
    POOL = "pool"  # all: the cause has ended the others too, or they lead to a server that is no longer the primary


@dataclass(frozen=True)
class Failure:
    """One way in which the database fails a transaction that has no fault of its own.

    kind: its name, for logs and for the metadata of the caller's error.
    tries: how many tries a repeatable transaction gets in all, see `store.postgres.retries`.
    rolled_back: the transaction certainly stored nothing. If false, it may have committed without an answer.
    contained: the failure concerns only this transaction; those of other organizations can succeed now.
    discard: which connections are closed.
    retry_after: the wait that callers are asked for before they repeat the request.
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
# Of a cluster: the coordinator answers, and customers of other nodes go on, so nothing is closed. Each session of the
# coordinator notices by an error of its own that its connection to the node is gone, and then makes another one: so
# many tries. A transaction of one node is committed there first, so it may be stored.
NODE_LOST = Failure(
    "node_lost",
    "a node of the database cluster does not answer",
    tries=4,
    rolled_back=False,
    contained=True,
    retry_after=timedelta(seconds=2),
)
SHUTTING_DOWN = Failure(
    "shutting_down",
    "the database server shuts down, crashed or starts",
    tries=2,
    rolled_back=False,
    discard=Discard.POOL,
)
# After a failover the old primary can still run, as a standby or set to read only. Its connections work, so only this
# error shows that another server is the primary.
READ_ONLY = Failure(
    "read_only",
    "the database server takes no writes: it is a standby, or default_transaction_read_only is on",
    tries=2,
    discard=Discard.POOL,
    retry_after=timedelta(seconds=2),
)
SESSION_ENDED = Failure(
    "session_ended",
    "the server ended the session because it was idle for too long",
    tries=4,
    discard=Discard.CONNECTION,
)
SERIALIZATION = Failure("serialization", "the transaction conflicted with another one", tries=5, contained=True)
DEADLOCK = Failure("deadlock", "the transaction and another one waited for each other", tries=5, contained=True)
LOCK_TIMEOUT = Failure(
    "lock_timeout",
    "another session held a lock for too long",
    tries=8,
    contained=True,
    retry_after=timedelta(seconds=2),
)
# One try only: the statement would take as long again, and the database is overloaded already.
STATEMENT_CANCELED = Failure(
    "statement_canceled", "the server canceled a statement: its time-out, or an operator", contained=True
)
TOO_MANY_CONNECTIONS = Failure("too_many_connections", "the server has no connection left")
POOL_EXHAUSTED = Failure("pool_exhausted", "no connection became free in time")
DISK_FULL = Failure("disk_full", "the disk of the server is full", retry_after=timedelta(seconds=5))
OUT_OF_MEMORY = Failure("out_of_memory", "the server is out of memory", retry_after=timedelta(seconds=5))
LIMIT_REACHED = Failure(
    "limit_reached", "the server reached a limit of its configuration", retry_after=timedelta(seconds=5)
)
SYSTEM_ERROR = Failure(
    "system_error",
    "the server's operating system reported an error",
    discard=Discard.CONNECTION,
    retry_after=timedelta(seconds=5),
)

# Other transactions cause these, and each is over by now: the same transaction can succeed at once.
CONFLICTS = (SERIALIZATION, DEADLOCK)

# By the whole state, or its first three or two characters.
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
# The kinds of all failures.
KINDS = tuple(dict.fromkeys(one.kind for one in (*_BY_STATE.values(), POOL_EXHAUSTED, NODE_LOST)))
# The severity of an error that a coordinator passes on. The end of the own session has FATAL or PANIC, or comes from
# the driver without any.
_PASSED_ON = "ERROR"
# 40002 is a deferred constraint that is violated: the same transaction would fail again.
_OWN_FAULTS = frozenset({"40002"})


class DatabaseUnavailable(Exception):
    """The database fails a transaction that has no fault of its own; the same transaction can succeed later.

    Loops catch it, wait, and continue. failure: the reason. node: of a cluster, which does not answer, if that is the
    reason and it is known.
    """

    def __init__(self, message: str, failure: Failure = CONNECTION_LOST, node: str | None = None) -> None:
        super().__init__(message)
        self.failure = failure
        self.node = node
        # Set by `store.postgres.retries` after the last try that the failure allows: an outer retry must not repeat.
        self.given_up = False


def unavailable(failure: Failure, cause: BaseException | None = None) -> DatabaseUnavailable:
    """The exception of a failure, with its message. cause: the error that stands for it, which may name a node."""
    node = node_of(cause) if cause is not None and failure is NODE_LOST else None
    return DatabaseUnavailable(failure.message if node is None else f"{failure.message}: {node}", failure, node)


def failure_of(error: BaseException, *, connection_is_dead: bool = False) -> Failure | None:
    """The failure that an exception of the driver or of SQLAlchemy stands for; None for a fault of the statement.

    connection_is_dead: whether the driver knows that the connection is lost. Then that is the failure, whatever the
    type of the exception: pipelines, rollbacks and cursors raise different ones for a lost connection.
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


def is_fault_of_statement(error: BaseException) -> bool:
    """Whether a statement fails for what it does or stores, and not because of the database."""
    return isinstance(error, psycopg.Error | SQLAlchemyError) and failure_of(error) is None


def sqlstate_of(error: BaseException) -> str:
    """The SQLSTATE of an error; empty if it does not come from the server."""
    beneath = error.orig if isinstance(error, DBAPIError) else error
    return (beneath.sqlstate or "") if isinstance(beneath, psycopg.Error) else ""


def node_of(error: BaseException) -> str | None:
    """The node of a cluster, as host:port, that an error is about; None if it names none."""
    if isinstance(error, DatabaseUnavailable):
        return error.node
    beneath = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(beneath, psycopg.Error):
        return None
    return node_in(beneath.diag.message_primary or "", beneath.diag.context or "")


def is_duplicate(error: BaseException) -> bool:
    """Whether a unique key refuses what a statement stores; also inside a COPY of a cluster."""
    if not isinstance(error, psycopg.Error):
        return False
    return true_state(error.sqlstate or "", error.diag.message_primary or "") == errors.UniqueViolation.sqlstate


def _of_driver(error: BaseException | None) -> Failure | None:
    if not isinstance(error, psycopg.Error):
        return None
    state = error.sqlstate
    if state is None:
        # An error of the driver, not of the server: it cannot connect, or the connection is lost.
        if not isinstance(error, psycopg.OperationalError):
            return None
        return SESSION_ENDED if _follows_end_of_session(error) else CONNECTION_LOST
    if state in _OWN_FAULTS:
        return None
    state = true_state(state, error.diag.message_primary or "")
    found = _BY_STATE.get(state) or _BY_STATE.get(state[:3]) or _BY_STATE.get(state[:2])
    if found in (CONNECTION_LOST, SHUTTING_DOWN) and error.diag.severity_nonlocalized == _PASSED_ON:
        return NODE_LOST
    return found


def _follows_end_of_session(error: BaseException) -> bool:
    """Whether the rollback of a session that the server has ended raised this error.

    The others of the pool are alive: they must not be closed because of one transaction that was idle for too long.
    """
    before = error.__context__
    while before is not None:
        if isinstance(before, psycopg.Error) and before.sqlstate is not None:
            return _BY_STATE.get(before.sqlstate) is SESSION_ENDED
        before = before.__context__
    return False

"""Watches the lock waits of this process: logs which session waits for which, and ends sessions that are frozen.

PostgreSQL ends the transaction of a client that freezes between two statements (idle_in_transaction_session_timeout).
It does not end that of a client that freezes in the middle of a COPY: its statement is running, and no timeout limits
the wait for data of the client. So the processes that wait for its locks end its session.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.tasks import BackgroundTask, FailureLog
from store.postgres import sessions
from store.postgres.database import Database, DatabaseUnavailable

CHECK_INTERVAL = 1.0  # seconds
LONG = 1.0  # seconds; the age of a transaction, and of a lock wait, from which the watch considers it
# Seconds without data from the client after which a session that holds locks counts as frozen. Normal pauses are
# milliseconds.
SILENT_TIMEOUT = float(sessions.IDLE_TRANSACTION_TIMEOUT)

logger = logging.getLogger(__name__)

# Follows each waiting session of this process along the sessions that it waits for, to those that wait for no lock.
_WAITS = text("""
WITH RECURSIVE chain AS (
    SELECT pid AS waiter, query_start AS since, pid AS behind, 0 AS depth
    FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = :name AND wait_event_type = 'Lock'
      AND query_start < clock_timestamp() - make_interval(secs => :long)
    UNION
    SELECT waiter, since, ahead, depth + 1
    FROM chain CROSS JOIN unnest(pg_blocking_pids(behind)) AS blocking (ahead)
    WHERE depth < 5
)
SELECT DISTINCT chain.waiter, chain.since, extract(epoch FROM clock_timestamp() - chain.since) AS seconds,
       holder.pid, coalesce(holder.application_name, '') AS application_name, holder.state, holder.state_change,
       extract(epoch FROM clock_timestamp() - holder.state_change) AS state_seconds,
       coalesce(holder.wait_event_type = 'Client', false) AS is_silent,
       coalesce(holder.usename = current_user, false) AS is_ours
FROM chain
JOIN pg_stat_activity AS holder ON holder.pid = chain.behind
WHERE depth > 0 AND holder.wait_event_type IS DISTINCT FROM 'Lock'
""")

# Ends a session, but only if it is still in the statement in which `_WAITS` found it.
_END = text("""
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE pid = :pid AND state_change = :state_change AND wait_event_type = 'Client'
""")


@dataclass(frozen=True)
class LockWait:
    """A session of this process that waits for a lock, and a session that holds it."""

    waiter: int  # process id of the waiting session's backend
    since: datetime  # when its statement began
    seconds: float
    holder: int  # process id of the holding session's backend
    application_name: str  # of the holder; empty if this role may not see it
    state: str
    state_change: datetime | None  # None if this role may not see it
    state_seconds: float
    is_silent: bool  # the holder waits for its client, which sends no data and reads none
    is_ours: bool  # this role may end the holder


class LockWatch:
    """Checks while a transaction of `database` takes long, on its own connection: the pool can be exhausted."""

    def __init__(self, database: Database) -> None:
        self.waits = 0  # found so far, each once
        self._watched = database
        self._database = Database(database.url, pool_size=1, purpose="watch")
        self._known: dict[tuple[int, datetime, int], float] = {}  # logged waits, and when each was last found
        self._silent: dict[tuple[int, datetime], float] = {}  # silent sessions with their statements, and since when
        self._task = BackgroundTask(
            self._check_if_long,
            FailureLog(
                logger,
                "lock waits cannot be watched",
                LogAction.LOCK_WATCH_FAILED,
                (DatabaseUnavailable,),  # `Database` logs it
            ),
            name="lock watch",
            interval=CHECK_INTERVAL,
            first_pause=CHECK_INTERVAL,
            backoff=Backoff(longest=CHECK_INTERVAL),
        )

    def start(self) -> None:
        """Begins to watch."""
        self._task.start()

    async def stop(self) -> None:
        """Ends the watch, and closes its connection."""
        await self._task.stop()
        await self._database.close()

    async def _check_if_long(self) -> None:
        if self._watched.longest_transaction() >= LONG:
            await self.check()

    async def check(self) -> list[LockWait]:
        """Logs new waits, and ends holders that were silent for too long; returns all waits."""
        now = asyncio.get_running_loop().time()
        async with self._database.transaction() as connection:
            rows = await connection.execute(_WAITS, {"name": sessions.application_name(), "long": LONG})
            waits = [
                LockWait(
                    row.waiter,
                    row.since,
                    float(row.seconds),
                    row.pid,
                    row.application_name,
                    row.state or "",
                    row.state_change,
                    float(row.state_seconds or 0),
                    row.is_silent,
                    row.is_ours,
                )
                for row in rows
            ]
            for wait in waits:
                self._log(wait, now)
                if self._is_frozen(wait, now):
                    await connection.execute(_END, {"pid": wait.holder, "state_change": wait.state_change})
                    logger.warning(
                        "ended a session that held locks and was silent for %.0f s: %s, process %d",
                        wait.state_seconds,
                        wait.application_name,
                        wait.holder,
                        extra={
                            "action": LogAction.LOCK_HOLDER_ENDED,
                            "holder": wait.application_name,
                            "holder_pid": wait.holder,
                        },
                    )
        self._known = {key: seen for key, seen in self._known.items() if now - seen < 60}
        self._silent = {key: since for key, since in self._silent.items() if now - since < 60}
        return waits

    def _log(self, wait: LockWait, now: float) -> None:
        key = wait.waiter, wait.since, wait.holder
        if key not in self._known:
            self.waits += 1
            logger.warning(
                "waiting for a lock that another session holds: %s, process %d, %s for %.1f s",
                wait.application_name or "a session of another role",
                wait.holder,
                wait.state or "state unknown",
                wait.state_seconds,
                extra={
                    "action": LogAction.LOCK_WAIT,
                    "seconds": round(wait.seconds, 3),
                    "waiter_pid": wait.waiter,
                    "holder": wait.application_name,
                    "holder_pid": wait.holder,
                },
            )
        self._known[key] = now

    def _is_frozen(self, wait: LockWait, now: float) -> bool:
        """Whether the holder is a session of Tidemark that was silent in one statement for SILENT_TIMEOUT."""
        if not wait.is_silent or not wait.is_ours or wait.state_change is None:
            return False
        if not wait.application_name.startswith("tidemark "):
            return False
        since = self._silent.setdefault((wait.holder, wait.state_change), now)
        return now - since >= SILENT_TIMEOUT

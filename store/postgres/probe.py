"""Whether the database is usable: it answers, and it accepts writes."""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.tasks import BackgroundTask, FailureLog
from store.postgres.database import Database, DatabaseUnavailable, driver

TIMEOUT = 3.0  # seconds that a check can take
SLOTS = 64  # rows of `heartbeat`, which all processes share

logger = logging.getLogger(__name__)

_READ = b"SELECT 1"
# Needs a new page on the disk: a temporary table is empty after each commit. On a full disk this fails, while updates
# that fit into an existing page still succeed.
_EXTEND = """
SET LOCAL client_min_messages = warning;
CREATE TEMPORARY TABLE IF NOT EXISTS heartbeat_page (filler integer) ON COMMIT DELETE ROWS;
INSERT INTO pg_temp.heartbeat_page VALUES (1);
"""
# Fails on a standby and on a read-only database; its commit waits for the write-ahead log like any other.
_BEAT = """
INSERT INTO heartbeat (slot, beat_time) VALUES ({slot}, clock_timestamp())
    ON CONFLICT (slot) DO UPDATE SET beat_time = excluded.beat_time;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeIntervals:
    """Seconds between the checks of a probe.

    reads: between two checks while the database answers.
    writes: between two writes while they succeed. Each write is one commit to disk for each process.
    first_retry: after a failed check; doubled for each further failure, up to `reads`.
    """

    reads: float = 1.0
    writes: float = 5.0
    first_retry: float = 0.1


DEFAULT_INTERVALS = ProbeIntervals()


class Probe:
    """Checks the database on its own connection.

    With the pool of the service, a check would wait for a connection while the service is busy, and would report a
    busy service as a dead database.
    """

    def __init__(self, url: str, intervals: ProbeIntervals = DEFAULT_INTERVALS) -> None:
        self._database = Database(url, pool_size=1, purpose="probe")
        # Two processes with the same slot wait only for each other's commit.
        self._slot = random.randrange(SLOTS)
        self._may_extend = True
        self._intervals = intervals

    async def answers(self, timeout: float, *, write: bool = True) -> bool:
        """Whether a statement succeeds within `timeout` seconds; with `write`, whether a commit does."""
        return await self.problem(timeout, write=write) is None

    async def problem(self, timeout: float, *, write: bool = True) -> str | None:
        """Why the database is not usable, as a text for operators; None if it is usable."""
        try:
            async with asyncio.timeout(timeout):
                await self._check(write)
        except TimeoutError:
            return f"no answer within {timeout:g} seconds"
        # Any error counts: a server that refuses logins or writes is not usable either.
        except (DatabaseUnavailable, SQLAlchemyError, psycopg.Error) as error:
            return str(error).partition("\n")[0] or type(error).__name__
        return None

    def following(self, on_check: Callable[[str | None], None], *, reads: bool = True) -> BackgroundTask:
        """The task that checks regularly, and calls `on_check` with the problem, or None, after each check.

        reads: False to check only when a write is due, for a process that reads often enough itself.
        """
        loop = asyncio.get_running_loop()
        intervals = self._intervals
        retry = Backoff(intervals.first_retry, intervals.reads, random_part=0.0)
        next_write = 0.0

        async def check() -> float:
            nonlocal next_write
            write = not reads or loop.time() >= next_write
            problem = await self.problem(TIMEOUT, write=write)
            on_check(problem)
            if problem is not None:
                next_write = 0.0  # the next check must write: reads can succeed while writes fail
                return retry.next()
            retry.reset()
            if write:
                next_write = loop.time() + intervals.writes
            return intervals.reads if reads else intervals.writes

        failures = FailureLog(logger, "the database could not be probed", LogAction.PROBE_FAILED)
        return BackgroundTask(check, failures, name="probe", backoff=Backoff(longest=intervals.reads))

    async def close(self) -> None:
        """Closes the connection."""
        await self._database.close()

    async def _check(self, write: bool) -> None:
        try:
            await self._run(write)
        except psycopg.errors.InsufficientPrivilege:
            # Some operators forbid temporary tables. Then the probe does not detect a full disk.
            if not (write and self._may_extend):
                raise
            self._may_extend = False
            await self._run(write)

    async def _run(self, write: bool) -> None:
        statements = (_EXTEND if self._may_extend else "") + _BEAT.format(slot=self._slot)
        async with self._database.transaction() as connection:
            raw = await driver(connection)
            # Several statements in one round trip; prepared statements allow only one.
            await raw.execute(statements.encode() if write else _READ, prepare=False)

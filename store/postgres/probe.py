"""Whether the database can be worked with: it answers, and it takes writes."""

import asyncio
import logging
import random
from collections.abc import Callable

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from runtime.actions import LogAction
from runtime.backoff import Backoff
from runtime.tasks import BackgroundTask, FailureLog
from store.postgres.database import Database, DatabaseUnavailable, driver

INTERVAL = 1.0  # seconds between looks while the database answers
WRITE_INTERVAL = 5.0  # seconds between writes while they succeed; one flushed commit of each process
TIMEOUT = 3.0  # seconds that a look may take
FIRST_RETRY = 0.1  # seconds after a look that failed, doubled up to the interval
SLOTS = 64  # rows that all processes share

logger = logging.getLogger(__name__)

_READ = b"SELECT 1"
# A session's own table that is empty after each commit, so that the row needs a new page: a full disk refuses that,
# while it may go on to take an update that fits into a page.
_EXTEND = """
SET LOCAL client_min_messages = warning;
CREATE TEMPORARY TABLE IF NOT EXISTS heartbeat_page (filler integer) ON COMMIT DELETE ROWS;
INSERT INTO pg_temp.heartbeat_page VALUES (1);
"""
# A standby and a database that was made read-only refuse this, and its commit waits for the log like any other.
_BEAT = """
INSERT INTO heartbeat (slot, beat_time) VALUES ({slot}, clock_timestamp())
    ON CONFLICT (slot) DO UPDATE SET beat_time = excluded.beat_time;
"""


class Probe:
    """Asks the database for signs of life, on a connection of its own.

    A connection of the common pool would have to be waited for while the service is busy, and a busy service
    is not a dead database.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url, pool_size=1, purpose="probe")
        # Two processes with the same slot wait for each other's commit, and no longer than that.
        self._slot = random.randrange(SLOTS)
        self._may_extend = True

    async def answers(self, timeout: float, *, write: bool = True) -> bool:
        """Whether a statement succeeds within `timeout` seconds; with `write`, whether a commit does."""
        return await self.problem(timeout, write=write) is None

    async def problem(self, timeout: float, *, write: bool = True) -> str | None:
        """What keeps the database from being worked with, in words for operators; None when nothing does."""
        try:
            async with asyncio.timeout(timeout):
                await self._look(write)
        except TimeoutError:
            return f"no answer within {timeout:g} seconds"
        # Any refusal counts: a server that is there but takes no login or no write serves nobody either.
        except (DatabaseUnavailable, SQLAlchemyError, psycopg.Error) as error:
            return str(error).partition("\n")[0] or type(error).__name__
        return None

    def following(self, on_look: Callable[[str | None], None], *, reads: bool = True) -> BackgroundTask:
        """The task that looks regularly, and calls `on_look` with the problem, or None, at every look.

        Without `reads` it only looks when a write is due: for a process that reads often enough itself.
        """
        loop = asyncio.get_running_loop()
        retry = Backoff(FIRST_RETRY, INTERVAL, random_part=0.0)
        next_write = 0.0

        async def look() -> float:
            nonlocal next_write
            write = not reads or loop.time() >= next_write
            problem = await self.problem(TIMEOUT, write=write)
            on_look(problem)
            if problem is not None:
                next_write = 0.0  # that it can be read again is not enough
                return retry.next()
            retry.reset()
            if write:
                next_write = loop.time() + WRITE_INTERVAL
            return INTERVAL if reads else WRITE_INTERVAL

        failures = FailureLog(logger, "the database could not be probed", LogAction.PROBE_FAILED)
        return BackgroundTask(look, failures, name="probe", backoff=Backoff(longest=INTERVAL))

    async def close(self) -> None:
        """Closes the connection."""
        await self._database.close()

    async def _look(self, write: bool) -> None:
        try:
            await self._run(write)
        except psycopg.errors.InsufficientPrivilege:
            # Some operators let nobody make temporary tables. A full disk is then found by those who meet it.
            if not (write and self._may_extend):
                raise
            self._may_extend = False
            await self._run(write)

    async def _run(self, write: bool) -> None:
        statements = (_EXTEND if self._may_extend else "") + _BEAT.format(slot=self._slot)
        async with self._database.transaction() as connection:
            raw = await driver(connection)
            # Several statements in one round trip, which prepared ones cannot be.
            await raw.execute(statements.encode() if write else _READ, prepare=False)

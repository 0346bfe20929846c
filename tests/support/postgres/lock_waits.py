"""Waits for locks of the database: a test goes on when a task of it waits for one."""

import asyncio
from typing import Any

from sqlalchemy import text

from store.postgres.database import Database
from tests.support.postgres.nodes import workers
from tests.support.waiting import within

# The sessions of all nodes: on a cluster, it is a worker that waits for the lock of a row.
SESSIONS, _ID = ("citus_stat_activity", "global_pid") if workers() else ("pg_stat_activity", "pid")
_ARE_WAITING = f"FROM {SESSIONS} WHERE datname = current_database() AND wait_event_type = 'Lock'"
WAITING_SESSIONS = f"SELECT count(*) {_ARE_WAITING}"
END_WAITING_SESSIONS = f"SELECT pg_terminate_backend({_ID}) {_ARE_WAITING}"
_WAITING = text(WAITING_SESSIONS)


async def until_it_waits_for_a_lock(database: Database, task: "asyncio.Task[Any]") -> None:
    """Waits until a session of the database waits for a lock, which must be that of the task; fails when it ends."""
    async with within("a wait for a lock"):
        while True:
            assert not task.done(), task
            # A new transaction each time: within one, PostgreSQL keeps the activity of the first read.
            async with database.transaction() as connection:
                if await connection.scalar(_WAITING):
                    return
            await asyncio.sleep(0.01)

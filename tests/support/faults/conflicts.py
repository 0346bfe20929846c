"""Conflicts: PostgreSQL ends transactions of the service with deadlocks and serialization failures, at their commits.

Each kind of transaction, by the tables that it writes, fails once with each of the two; the real error comes from
PostgreSQL, after everything else that the transaction did. So whatever is not tried again fails its caller, and
whatever is tried again in a wrong way shows its effects twice.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy.ext.asyncio import AsyncConnection

from store.postgres import pipelines
from store.postgres.database import Database, DriverConnection, driver
from tests.support.postgres.nodes import workers

STATES = ("40P01", "40001")

# At a node of a cluster, the tables are those of shards: Citus hides them in pg_class, and their names have numbers.
_SHOW_SHARDS = "SET LOCAL citus.override_table_visibility = off"
_WRITTEN = r"""
SELECT string_agg(DISTINCT t.name, ' ' ORDER BY t.name)
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
CROSS JOIN regexp_replace(c.relname, '_\d+$', '') AS t (name)
WHERE l.pid = pg_backend_pid() AND l.mode = 'RowExclusiveLock' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""


class Conflicts:
    """Fails transactions while it is `on`. failed: how often, by the tables that they write."""

    def __init__(self) -> None:
        self.on = False
        self.failed = Counter[str]()
        self._spared: set[int] = set()

    def spare(self, database: Database) -> None:
        """Fails no transaction of the test's own connections."""
        self._spared.add(id(database))

    @property
    def tables(self) -> set[str]:
        """The tables that failed transactions wrote."""
        return {table for written in self.failed for table in written.split()}

    async def fail(self, connection: DriverConnection) -> None:
        """Fails the open transaction, if its kind has not failed often enough."""
        if not self.on:
            return
        if workers():
            await connection.execute(_SHOW_SHARDS)
        row = await (await connection.execute(_WRITTEN)).fetchone()
        written = row[0] if row else None
        if not written or self.failed[written] == len(STATES):
            return
        state = STATES[self.failed[written]]
        self.failed[written] += 1
        await connection.execute(
            f"DO $$ BEGIN RAISE EXCEPTION 'a conflict of the test' USING ERRCODE = '{state}'; END $$".encode()
        )

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Puts itself before each commit of the service."""
        transaction, commit = Database._noted_transaction, pipelines.commit

        @asynccontextmanager
        async def conflicting(database: Database, *, unbegun: bool) -> AsyncIterator[AsyncConnection]:
            async with transaction(database, unbegun=unbegun) as connection:
                yield connection
                raw = await driver(connection)
                if id(database) not in self._spared and raw.pgconn.transaction_status == TransactionStatus.INTRANS:
                    await self.fail(raw)

        async def committing(connection: DriverConnection) -> None:
            await self.fail(connection)
            await commit(connection)

        patch.setattr(Database, "_noted_transaction", conflicting)
        patch.setattr(pipelines, "commit", committing)

"""What the peers on PostgreSQL share: tables, and connections of asyncpg, the fastest driver in Python."""

from abc import abstractmethod
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg  # type: ignore[import-not-found]  # only in the environment of the peers

from bench.peers.script import Peer
from bench.peers.task import Event, Task

_TABLES = """
CREATE TABLE IF NOT EXISTS event (
    event_id text PRIMARY KEY, customer_id text NOT NULL, quantity bigint NOT NULL, event_time timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS total (customer_id text PRIMARY KEY, value bigint NOT NULL) WITH (fillfactor = 70);
CREATE TABLE IF NOT EXISTS threshold (value bigint PRIMARY KEY);
CREATE TABLE IF NOT EXISTS reached (
    customer_id text, value bigint, reach_time timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (customer_id, value)
);
"""
_STORE = """
INSERT INTO event
SELECT 'stored-' || n, 'customer-' || lpad((n % 500)::text, 6, '0'), 1, now() FROM generate_series(1, $1::bigint) AS n
WHERE NOT EXISTS (SELECT FROM event)
"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OnPostgreSQL(Peer):
    """A peer with a connection for each caller. It records what is reached in the table `reached`."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.connections: list[Any] = []

    async def open(self) -> None:
        """Makes the tables, connects, and prepares the statement of each caller."""
        connection = await self.connect()
        await connection.execute(_TABLES)
        await connection.executemany(
            "INSERT INTO threshold VALUES ($1) ON CONFLICT DO NOTHING", [(value,) for value in self.task.thresholds]
        )
        await connection.execute(_STORE, self.task.stored)
        await connection.execute("ANALYZE event, threshold")
        await connection.close()
        self.connections = [await self.connect() for _ in range(self.callers)]
        await self.prepare()

    async def connect(self) -> Any:
        """One more connection."""
        return await asyncpg.connect(self.task.store)

    @abstractmethod
    async def prepare(self) -> None:
        """Prepares the statements of the connections."""

    async def close(self) -> None:
        """Closes the connections."""
        for connection in self.connections:
            await connection.close()


def time_of(event: Event) -> datetime:
    """The time of an event as the driver takes it."""
    return _EPOCH + timedelta(microseconds=event.time)

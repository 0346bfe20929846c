"""The servers of the state machine: replicas on one database, in this process."""

import asyncio
import contextlib
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import uvloop

from runtime.clock import ManualClock
from runtime.configuration import Configuration
from store.postgres.database import Database
from tests.support.server.running import running
from tests.support.usage.caller import Caller
from tests.support.usage.draws import START

MONTHS = (START, datetime(2026, 4, 2, 12, tzinfo=UTC), datetime(2026, 5, 3, 12, tzinfo=UTC))
REPLICAS = 2

CONFIGURATION = Configuration(listen_port=0, propagation_delay=0.0, ingest_writers=2, retention=timedelta(days=366))


class Stage:
    """The servers that all examples use, and the event loop in which they run."""

    def __init__(self, database_url: str) -> None:
        self.steps = 0
        self._organizations = 0
        self.kinds: Counter[str] = Counter()
        # A server creates the partitions up to its clock when it starts, and no example sets a later time.
        self.clock = ManualClock(MONTHS[-1])
        self.database_url = database_url
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.database: Database = self.run(self._open(2))
        # Each replica's connections stay open when it restarts: they remember nothing of an organization.
        self._databases: list[Database] = [self.run(self._open()) for _ in range(REPLICAS)]
        self.servers: list[Caller] = []
        self._stacks: list[contextlib.AsyncExitStack] = []
        for number in range(REPLICAS):
            stack = contextlib.AsyncExitStack()
            self._stacks.append(stack)
            self.servers.append(self.run(self._start(number, stack)))

    def run(self, work: Any) -> Any:
        """Runs a coroutine to its end; the servers run meanwhile."""
        return self._runner.run(work)

    def next_number(self) -> int:
        """The number of a further organization."""
        self._organizations += 1
        return self._organizations

    def caller(self, number: int, name: str, key: str) -> Caller:
        """A caller of one of the servers, as that organization."""
        return Caller(self.servers[number].server, self.clock, self.database_url, name, key)

    async def _open(self, pool_size: int = 12) -> Database:
        return Database(self.database_url, pool_size)

    async def _start(self, number: int, stack: contextlib.AsyncExitStack) -> Caller:
        server = await stack.enter_async_context(
            # One replica decodes usage natively, where that is compiled, and the other one in Python.
            running(self._databases[number], self.clock, configuration=replace(CONFIGURATION, native=number == 0))
        )
        return Caller(server, self.clock, self.database_url, "", "")

    async def restart(self, number: int) -> None:
        """Replaces a server by a new one, which has cached nothing."""
        await self._stacks[number].aclose()
        self._stacks[number] = contextlib.AsyncExitStack()
        self.servers[number] = await self._start(number, self._stacks[number])

    async def _stop(self) -> None:
        for stack in self._stacks:
            await stack.aclose()
        for database in (self.database, *self._databases):
            await database.close()

    def close(self) -> None:
        """Stops everything."""
        self.run(self._stop())
        self._runner.close()

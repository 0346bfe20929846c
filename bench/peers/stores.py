"""What the peers count in: each store can be killed with everything in it that runs, and started again."""

import asyncio
import contextlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from bench.peers import redis_server
from bench.peers.redis_server import RedisServer
from bench.support import load
from bench.support.sending import create_alerts
from bench.support.stack import PostgreSQL
from tests.support.processes.programs import Program


class Store(ABC):
    """A running store.

    address: where the peer's script finds it. database_url: that of its database, if the store is a server on one.
    """

    address = ""
    database_url = ""

    @abstractmethod
    async def kill(self) -> None:
        """Kills its processes with SIGKILL."""

    @abstractmethod
    async def start_again(self) -> None:
        """Starts them, and waits until they are ready."""


class NoStore(Store):
    """Of a peer that counts in the memory of its script."""

    async def kill(self) -> None:
        """There is no process but the script."""

    async def start_again(self) -> None:
        """As above."""


class Database(Store):
    """A database in the benchmark's PostgreSQL."""

    def __init__(self, postgresql: PostgreSQL, url: str) -> None:
        self._postgresql = postgresql
        self.address = url

    async def kill(self) -> None:
        """Kills PostgreSQL."""
        await self._postgresql.kill()

    async def start_again(self) -> None:
        """It recovers from its log."""
        await self._postgresql.start_again()


class Server(Store):
    """Tidemark's server on a database."""

    def __init__(self, postgresql: PostgreSQL, url: str, program: Program) -> None:
        self._postgresql = postgresql
        self._program = program
        self.address = program.address.server
        self.database_url = url

    async def kill(self) -> None:
        """Kills the server and PostgreSQL."""
        await self._program.killed()
        await self._postgresql.kill()

    async def start_again(self) -> None:
        """PostgreSQL first."""
        await self._postgresql.start_again()
        await self._program.start()
        self.address = self._program.address.server


class Redis(Store):
    """A Redis server."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.address = server.socket

    async def kill(self) -> None:
        """Kills it."""
        await self._server.kill()

    async def start_again(self) -> None:
        """It reads what it has written."""
        await self._server.start()


@asynccontextmanager
async def no_store(postgresql: PostgreSQL, name: str) -> AsyncIterator[Store]:
    """Nothing."""
    yield NoStore()


@asynccontextmanager
async def database(postgresql: PostgreSQL, name: str) -> AsyncIterator[Store]:
    """A new database of that name."""
    url = postgresql.create_database(name)
    await asyncio.to_thread(postgresql.checkpoint)
    yield Database(postgresql, url)


@asynccontextmanager
async def server(postgresql: PostgreSQL, name: str) -> AsyncIterator[Store]:
    """A server on a new database of that name, with the alerts of the benchmarks."""
    url = postgresql.create_database(name)
    async with contextlib.AsyncExitStack() as exits:
        program = await postgresql.server(exits, url)
        await create_alerts(program.address.server, load.alerts())
        await asyncio.to_thread(postgresql.checkpoint)
        yield Server(postgresql, url, program)


def redis(*options: str) -> "Maker":
    """Makes a Redis server with these options."""

    @asynccontextmanager
    async def make(postgresql: PostgreSQL, name: str) -> AsyncIterator[Store]:
        with tempfile.TemporaryDirectory(prefix="redis-", dir=postgresql.folder) as folder:
            server = RedisServer(await redis_server.program(), Path(folder), options)
            try:
                await server.start()
                yield Redis(server)
            finally:
                await server.kill()

    return make


Maker = Callable[[PostgreSQL, str], AbstractAsyncContextManager[Store]]

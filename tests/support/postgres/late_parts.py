"""Workers of the cluster whose parts of commits show late, or stay in doubt.

A commit that changed several nodes is prepared at the workers, committed at the coordinator, and then at the workers.
Here each worker is reached through a relay, which can hold, or lose, the statement that commits at a worker.
"""

import asyncio
import random
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from store.citus.nodes import Node
from tests.support.server.certificates import Authority
from tests.support.waiting import within

_LAST = b"COMMIT PREPARED"
_ASKS_FOR_TLS = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
_ASKS_FOR_GSS = b"\x00\x00\x00\x08\x04\xd2\x16\x30"
_WORKERS = "SELECT nodeid, nodename, nodeport FROM pg_dist_node WHERE groupid > 0 AND noderole = 'primary'"
_MOVE = "SELECT citus_update_node(%s, '127.0.0.1', %s)"
_SYNC = "SELECT start_metadata_sync_to_all_nodes()"
_RECOVER = "SELECT recover_prepared_transactions()"
_PAUSE = 0.01  # seconds between two checks
_GRACE = 0.1  # seconds in which connections end


class LateParts:
    """Relays to the workers of a database.

    They run in a thread of their own. url: of the database at the coordinator, in whose metadata the relays take the
    place of the workers.
    """

    def __init__(self, url: str, folder: Path) -> None:
        """folder: an empty one, for a certificate: Citus asks for TLS between nodes."""
        certificate, key = folder / "certificate", folder / "key"
        Authority().server().write(certificate, key)
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate, key)
        self._url = url
        self.delay = 0.0  # seconds, at most, of each part, while it is set
        self._is_held = False
        self._loses = False
        self._servers: list[asyncio.Server] = []
        self._ends: list[asyncio.StreamWriter] = []
        self._loop = asyncio.SelectorEventLoop()
        self._passes = asyncio.Event()
        self._passes.set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Puts a relay before each worker."""
        self._thread.start()
        with psycopg.connect(self._url, autocommit=True) as connection:
            for number, host, port in connection.execute(_WORKERS).fetchall():
                relay = asyncio.run_coroutine_threadsafe(self._listen(Node(host, port)), self._loop).result()
                connection.execute(_MOVE, (number, relay))
            connection.execute(_SYNC)

    def stop(self) -> None:
        """Ends all connections, and what is in doubt, or the database could not be dropped."""
        self.recover()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def held(self) -> Iterator[None]:
        """While it lasts, what is committed shows at the coordinator, and not at the workers."""
        self._is_held = False
        self._loop.call_soon_threadsafe(self._passes.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._passes.set)

    async def until_held(self, task: "asyncio.Task[Any]") -> None:
        """Waits until a part of the commit of a task is held; fails when the task ends."""
        async with within("a part of a commit that is held"):
            while not self._is_held:
                assert not task.done(), task
                await asyncio.sleep(_PAUSE)

    @contextmanager
    def lost(self) -> Iterator[None]:
        """While it lasts, connections end instead of committing a part: it stays in doubt until `recover`."""
        self._loses = True
        try:
            yield
        finally:
            self._loses = False

    def recover(self) -> None:
        """Does what Citus does each minute: ends the parts that are in doubt."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(_RECOVER)

    async def _listen(self, worker: Node) -> int:
        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._relay(worker, reader, writer)

        server = await asyncio.start_server(relay, "127.0.0.1")
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for one in self._ends:
            one.transport.abort()
        await asyncio.sleep(_GRACE)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _relay(self, worker: Node, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.append(writer)
        ends = [writer]
        try:
            first = await reader.readexactly(8)
            while first in {_ASKS_FOR_TLS, _ASKS_FOR_GSS}:
                writer.write(b"S" if first == _ASKS_FOR_TLS else b"N")
                if first == _ASKS_FOR_TLS:
                    await writer.start_tls(self._tls)
                first = await reader.readexactly(8)
            of_worker, to_worker = await asyncio.open_connection(worker.host, worker.port)
            ends.append(to_worker)
            self._ends.append(to_worker)
            to_worker.write(first)
            both = [
                asyncio.create_task(self._pass_on(reader, to_worker, self._late)),
                asyncio.create_task(self._pass_on(of_worker, writer, self._at_once)),
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in both:
                    task.cancel()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # one of both has ended, or the test has
        finally:
            for one in ends:
                with suppress(OSError):
                    one.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: Callable[[bytes], Awaitable[bool]]
    ) -> None:
        with suppress(OSError):
            while (data := await reader.read(1 << 16)) and await passes(data):
                writer.write(data)
                await writer.drain()

    async def _at_once(self, _: bytes) -> bool:
        return True

    async def _late(self, data: bytes) -> bool:
        """Whether what the coordinator sends reaches the worker; waits for that."""
        if _LAST not in data:
            return True
        if self._loses:
            return False
        await asyncio.sleep(random.random() * self.delay)
        if not self._passes.is_set():
            self._is_held = True
            await self._passes.wait()
        return True


@pytest.fixture(scope="module")
def late(shared_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateParts]:
    """Relays to the workers of the module's database. A test names it first: before what connects to the database."""
    late = LateParts(shared_database_url, tmp_path_factory.mktemp("late"))
    late.start()
    yield late
    late.stop()

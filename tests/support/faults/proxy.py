"""A TCP proxy that cuts, stalls and delays the connections that go through it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK = 65_536  # bytes


class Proxy:
    """Forwards each connection on `port` of 127.0.0.1 to another port.

    delay: seconds that each piece of data waits. While it is stalled nothing passes; connections stay open and new
    ones are accepted, as by a machine that hangs.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.delay = 0.0
        self._target = target
        self._flows = asyncio.Event()
        self._flows.set()
        self._closes = False
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    async def start(self) -> asyncio.Server:
        """Listens on a free port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def cut(self) -> int:
        """Breaks all connections off; returns how many."""
        for writers in list(self._connections.values()):
            for writer in writers:
                writer.transport.abort()
        return len(self._connections)

    def stall(self) -> None:
        """Lets nothing pass until `flow`."""
        self._flows.clear()

    def flow(self) -> None:
        """Lets data pass again, at once."""
        self.delay = 0.0
        self._flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        writers = self._connections[task] = [writer]
        try:
            await self._flows.wait()
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target)
            writers.append(upstream_writer)
            await asyncio.gather(self._copy(reader, upstream_writer), self._copy(upstream_reader, writer))
        except (OSError, RuntimeError):
            pass  # the target is away, or the connection was cut; uvloop then raises RuntimeError
        except asyncio.CancelledError:
            # By `close`. asyncio would log the cancellation of a task that it has begun itself.
            if not self._closes:
                raise
        finally:
            del self._connections[task]
            for one in writers:
                one.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            with contextlib.suppress(OSError, RuntimeError):
                writer.write_eof()

    async def close(self) -> None:
        """Breaks all connections off, and waits until their tasks have ended."""
        self._closes = True
        self.flow()
        self.cut()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def proxied(target: int) -> AsyncIterator[Proxy]:
    """A proxy to a port of 127.0.0.1, for the time of the block."""
    proxy = Proxy(target)
    server = await proxy.start()
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()

"""The driver's connection, with pipelines whose statements go to the server together.

The driver sends each statement of a pipeline by itself: a system call, and a wake-up of the server's process, for
each. On a machine whose cores are busy each wake-up takes the processor from the sender. Here they wait in the
driver's queue until a result is needed, or the pipeline ends, and then go out in one piece.

`_communicate_gen`, `_exit_gen`, `_fetch_gen` and `_pipeline` are inner parts of psycopg 3. With a version in which
they have other names each statement is sent by itself again, or a test of `pipelines` fails.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.abc import PQGen
from psycopg.generators import send

Row = tuple[Any, ...]


class QueuedPipeline(psycopg.AsyncPipeline):
    """A pipeline that sends nothing before somebody waits for a result."""

    def _communicate_gen(self) -> PQGen[None]:
        """After each statement: nothing. It stays in the queue."""
        return
        yield  # a generator, as the driver expects

    def _exit_gen(self) -> PQGen[None]:
        """At the end: sends what waits, with the message that ends a pipeline, and reads all results."""
        self._enqueue_sync()
        yield from self._fetch_gen(flush=False)

    def _fetch_gen(self, *, flush: bool) -> PQGen[None]:
        """Sends what waits, and reads all results. flush: the server is asked for them before the pipeline ends."""
        commands = self.command_queue
        while commands:
            commands.popleft()()
        if not flush:  # otherwise the driver sends them with its request
            yield from send(self.pgconn)
        yield from super()._fetch_gen(flush=flush)


class PooledConnection(psycopg.AsyncConnection[Row]):
    """A connection with such pipelines."""

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[psycopg.AsyncPipeline]:
        """A block whose statements are sent together."""
        self._check_connection_ok()
        if self._pipeline is None:
            self._pipeline = QueuedPipeline(self)
        async with super().pipeline() as pipeline:
            yield pipeline

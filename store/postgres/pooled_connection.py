"""The driver's connection, with pipelines whose statements go to the server together.

The driver sends each statement of a pipeline by itself: a system call, and a wake-up of the server's process, for
each. On a machine whose cores are busy each wake-up takes the processor from the sender. Here they wait in the
driver's queue until a result is needed, a large one comes, or the pipeline ends, and then go out in one piece.

`_communicate_gen`, `_exit_gen`, `_fetch_gen` and `_pipeline` are inner parts of psycopg 3. With a version in which
they have other names each statement is sent by itself again, or a test of `pipelines` fails.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.abc import PipelineCommand, PQGen
from psycopg.generators import send

Row = tuple[Any, ...]


# Bytes of parameters from which on a statement is sent at once, with those that wait: the database works on it while
# the next one is written.
LARGE = 4_096


class QueuedPipeline(psycopg.AsyncPipeline):
    """A pipeline whose small statements are sent when a result is needed."""

    def _communicate_gen(self) -> PQGen[None]:
        """After each statement: it stays in the queue, unless the database had better begin with it."""
        if self.command_queue and _bytes_of(self.command_queue[-1]) >= LARGE:
            yield from super()._communicate_gen()

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


def _bytes_of(command: PipelineCommand) -> int:
    """How many bytes of parameters a statement in the queue has."""
    arguments: Sequence[Any] = getattr(command, "args", ())
    if len(arguments) < 2 or arguments[1] is None:  # the first one is the statement, or its name
        return 0
    return sum(len(one) for one in arguments[1] if one is not None)


class PooledConnection(psycopg.AsyncConnection[Row]):
    """A connection with such pipelines.

    on_cluster: whether the tables of customers are distributed. marker: of a connection to a worker of a cluster.
    announced: the organizations that the transaction there notifies. See `store.postgres.distributed`.
    """

    on_cluster = False
    marker: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.announced = set[int]()

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[psycopg.AsyncPipeline]:
        """A block whose statements are sent together."""
        self._check_connection_ok()
        if self._pipeline is None:
            self._pipeline = QueuedPipeline(self)
        async with super().pipeline() as pipeline:
            yield pipeline

"""What every row is measured with."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from bench.rules import servers
from bench.rules.scale import Scale
from bench.rules.servers import Data, Server
from bench.rules.streaming import Clients
from bench.support.stack import PostgreSQL


@dataclass(frozen=True)
class Run:
    """The database server, the clients, the size of the run, and where lines about its progress go."""

    postgresql: PostgreSQL
    clients: Clients
    scale: Scale
    report: Callable[[str], None]

    def server(self, name: str, data: Data) -> AbstractAsyncContextManager[Server]:
        """A server on a new database with `data`; it has acknowledged its first event."""
        return servers.server(self.postgresql, self.clients, name, data)

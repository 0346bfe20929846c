"""The monitoring port of a process: liveness, readiness, metrics.

/healthz answers while the event loop turns. A stuck loop does not answer, and a restart of the process helps. /readyz
fails while the database cannot be reached or accepts no writes, and while the process drains; a restart does not
help. /metrics answers also without a database.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from prometheus_client import CollectorRegistry

from runtime.monitoring.addresses import Address
from runtime.monitoring.exposition import Exposition, exposition


class Monitored(Protocol):
    """What the port shows."""

    async def is_alive(self) -> bool:
        """Whether a restart would not help."""

    async def is_ready(self) -> bool:
        """Whether it can be used."""

    async def scrape(self, accept: str) -> Exposition:
        """The metrics, in the format that the header Accept asks for."""


class MonitoredProcess:
    """The process that has the port."""

    def __init__(self, registry: CollectorRegistry, is_ready: Callable[[], bool]) -> None:
        self._registry = registry
        self._is_ready = is_ready
        self._one_at_a_time = asyncio.Lock()  # of scrapes: many would take all turns of the event loop

    async def is_alive(self) -> bool:
        """See `Monitored`."""
        return True

    async def is_ready(self) -> bool:
        """See `Monitored`."""
        return self._is_ready()

    async def scrape(self, accept: str) -> Exposition:
        """See `Monitored`."""
        async with self._one_at_a_time:
            return await exposition(self._registry, accept)


@asynccontextmanager
async def monitoring_port(addresses: Sequence[Address], monitored: Monitored) -> AsyncIterator[int | None]:
    """Listens on the addresses while the block runs; yields the port of the first. Does nothing without an address.

    Raises CannotMonitor.
    """
    if not addresses:
        yield None
        return
    # Here, because a process without a port needs no HTTP server, which takes 10 MB.
    from runtime.monitoring.http import listening

    async with listening(addresses, monitored) as port:
        yield port

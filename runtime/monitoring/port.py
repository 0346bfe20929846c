"""The monitoring port of a process: liveness, readiness, metrics.

/healthz answers while the event loop turns. A stuck loop does not answer, and a restart of the process helps. /readyz
fails while the database cannot be reached or accepts no writes, and while the process drains; a restart does not
help. /metrics answers also without a database.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry

from runtime.monitoring.addresses import Address, CannotMonitor
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
    runner = web.AppRunner(_application(monitored), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        for address in addresses:
            await _listen(runner, address)
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, address: Address) -> None:
    if isinstance(address, socket.socket):
        await web.SockSite(runner, address).start()
        return
    try:
        await web.TCPSite(runner, *address).start()
    except OSError as error:
        raise CannotMonitor(*address) from error


def _application(monitored: Monitored) -> web.Application:
    async def on_healthz(_: web.Request) -> web.Response:
        return _verdict(await monitored.is_alive(), "alive")

    async def on_readyz(_: web.Request) -> web.Response:
        return _verdict(await monitored.is_ready(), "ready")

    async def on_metrics(request: web.Request) -> web.Response:
        found = await monitored.scrape(request.headers.get("Accept", ""))
        return web.Response(body=found.body, headers={"Content-Type": found.content_type})

    application = web.Application()
    application.router.add_get("/healthz", on_healthz)
    application.router.add_get("/readyz", on_readyz)
    application.router.add_get("/metrics", on_metrics)
    return application


def _verdict(holds: bool, word: str) -> web.Response:
    return web.Response(status=200 if holds else 503, text=f"{word}\n" if holds else f"not {word}\n")

"""The HTTP server of the monitoring port."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from runtime.http_connections import BoundedServer, ConnectionLimits, bounded
from runtime.http_faults import add_plain_headers
from runtime.http_listening import Listening, listen
from runtime.monitoring.addresses import Address, CannotMonitor
from runtime.monitoring.port import Monitored

CONNECTIONS = 1_000  # at the same time
# Prometheus keeps a connection for five minutes between scrapes, and must not find it closed.
LIMITS = ConnectionLimits(idle=330.0)

logger = logging.getLogger(__name__)


@asynccontextmanager
async def listening(addresses: Sequence[Address], monitored: Monitored) -> AsyncIterator[int]:
    """Listens on the addresses while the block runs; yields the port of the first. Raises CannotMonitor."""
    application = _application(monitored)
    async with bounded(application, LIMITS, most=CONNECTIONS, logger=logger, shutdown_timeout=1.0) as server:
        opened: list[Listening] = []
        try:
            for address in addresses:
                opened.append(await _listen(server, address))
            yield opened[0].port
        finally:
            for one in opened:
                one.close()


async def _listen(server: BoundedServer, address: Address) -> Listening:
    if isinstance(address, socket.socket):
        inherited = await asyncio.get_running_loop().create_server(server, sock=address)
        return Listening(int(address.getsockname()[1]), inherited)
    try:
        return await listen(server, *address)
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
    application.on_response_prepare.append(add_plain_headers)
    application.router.add_get("/healthz", on_healthz)
    application.router.add_get("/readyz", on_readyz)
    application.router.add_get("/metrics", on_metrics)
    return application


def _verdict(holds: bool, word: str) -> web.Response:
    return web.Response(status=200 if holds else 503, text=f"{word}\n" if holds else f"not {word}\n")

"""The HTTP server of the monitoring port."""

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from runtime.http_faults import http_logger
from runtime.monitoring.addresses import Address, CannotMonitor
from runtime.monitoring.port import Monitored


@asynccontextmanager
async def listening(addresses: Sequence[Address], monitored: Monitored) -> AsyncIterator[int]:
    """Listens on the addresses while the block runs; yields the port of the first. Raises CannotMonitor."""
    runner = web.AppRunner(_application(monitored), access_log=None, logger=http_logger, shutdown_timeout=1.0)
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

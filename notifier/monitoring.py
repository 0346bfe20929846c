"""The monitoring port of the notifier: liveness, readiness, metrics.

/healthz answers while the event loop turns. A stuck loop does not answer, and a restart of the process helps. /readyz
fails while the database cannot be reached or accepts no writes, and while the process drains; a restart does not
help.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from notifier.metrics import CONTENT_TYPE, Metrics


@asynccontextmanager
async def monitoring(
    address: tuple[str, int] | None,
    metrics: Metrics,
    is_ready: Callable[[], bool],
) -> AsyncIterator[int | None]:
    """Listens on `address` while the block runs; yields the port. Does nothing without an address."""
    if address is None:
        yield None
        return

    async def on_healthz(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def on_readyz(_: web.Request) -> web.Response:
        ready = is_ready()
        return web.Response(status=200 if ready else 503, text="ready\n" if ready else "not ready\n")

    async def on_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text().encode(), headers={"Content-Type": CONTENT_TYPE})

    application = web.Application()
    application.router.add_get("/healthz", on_healthz)
    application.router.add_get("/readyz", on_readyz)
    application.router.add_get("/metrics", on_metrics)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, address[0], address[1]).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()

"""The receiver of webhooks in the client's process: it notes when each event's webhook arrives."""

import asyncio
import json
from collections.abc import Collection

from aiohttp import web

_PATH = "/webhooks"


class NotDelivered(Exception):
    """A webhook did not arrive in time."""


class Receiver:
    """Waits for one webhook of each of the events. arrived: by event id, seconds of the event loop's clock."""

    def __init__(self, event_ids: Collection[str]) -> None:
        self.arrived: dict[str, float] = {}
        self._missing = set(event_ids)
        self._complete = asyncio.Event()
        application = web.Application()
        application.router.add_post(_PATH, self._take)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self) -> str:
        """Listens on a free port of this machine; returns the URL."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}{_PATH}"

    async def complete(self, timeout: float) -> None:
        """Returns once every webhook has arrived; raises NotDelivered when that takes too long."""
        try:
            async with asyncio.timeout(timeout):
                await self._complete.wait()
        except TimeoutError:
            raise NotDelivered(f"the webhooks of {len(self._missing)} events did not arrive") from None

    async def stop(self) -> None:
        """Closes the port."""
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        arrival = asyncio.get_running_loop().time()
        body = json.loads(await request.read())
        for transition in body["data"]["transitions"]:
            self.arrived.setdefault(transition["event_id"], arrival)
            self._missing.discard(transition["event_id"])
        if not self._missing:
            self._complete.set()
        return web.Response(status=204)

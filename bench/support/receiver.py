"""When the webhook of each event arrives, in the client's process."""

import asyncio
import json
import time
from collections.abc import Collection

from aiohttp import web

from tests.support.notifier.receiver import Arrival, Receiver


class NotDelivered(Exception):
    """A webhook did not arrive in time."""


class EventArrivals:
    """Waits for one webhook of each of the events.

    arrived: by event id, seconds of time.perf_counter(). The clock of the event loop counts only milliseconds.
    """

    def __init__(self, event_ids: Collection[str]) -> None:
        self.arrived: dict[str, float] = {}
        self._missing = set(event_ids)
        self._complete = asyncio.Event()
        self._receiver = Receiver()
        self._receiver.always_answer(self._take)

    async def start(self) -> str:
        """Listens on a free port of this machine; returns the URL."""
        await self._receiver.start()
        return self._receiver.url

    async def complete(self, timeout: float) -> None:
        """Returns once every webhook has arrived; raises NotDelivered when that takes too long."""
        try:
            async with asyncio.timeout(timeout):
                await self._complete.wait()
        except TimeoutError:
            raise NotDelivered(f"the webhooks of {len(self._missing)} events did not arrive") from None

    async def stop(self) -> None:
        """Closes the port."""
        await self._receiver.stop()

    async def _take(self, arrival: Arrival) -> web.StreamResponse:
        now = time.perf_counter()
        for transition in json.loads(arrival.body)["data"]["transitions"]:
            self.arrived.setdefault(transition["event_id"], now)
            self._missing.discard(transition["event_id"])
        if not self._missing:
            self._complete.set()
        return web.Response(status=204)

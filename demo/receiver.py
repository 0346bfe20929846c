"""The webhook receiver: a foreign service that believes nothing it cannot verify."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from demo.told import crossings_of_body, sequence_of_body
from demo.world import Crossing

PATH = "/webhooks/tidemark"
PATIENCE = 30.0  # seconds without a webhook after which those that are missing count as missing
POLLING_INTERVAL = 0.05  # seconds


@dataclass(frozen=True)
class Received:
    """A notification that was verified. arrival: by time.perf_counter, in seconds."""

    notification_id: str
    body: bytes
    crossings: tuple[Crossing, ...]
    sequence: int
    arrival: float


@dataclass
class Receiver:
    """Takes POSTs, verifies each, and keeps what they said.

    received: by notification id, each once. repeated: those that came again with the same content, which is allowed
    where delivery is at least once. faults: what must never happen, in words.
    """

    on_received: Callable[[Received], None] = lambda received: None
    received: dict[str, Received] = field(default_factory=dict)
    repeated: int = 0
    faults: list[str] = field(default_factory=list)
    url: str = ""
    _verifier: Webhook | None = None
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listens on a free port of this machine."""
        application = web.Application()
        application.router.add_post(PATH, self._take)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}{PATH}"

    def trust(self, secret: str) -> None:
        """What is signed with this secret is believed from now on."""
        self._verifier = Webhook(secret)

    async def wait_for(self, crossings: int) -> None:
        """Waits until so many crossings have arrived, or none has for PATIENCE."""
        loop = asyncio.get_running_loop()
        seen, since = -1, loop.time()
        while True:
            arrived = sum(len(received.crossings) for received in self.received.values())
            if arrived >= crossings or loop.time() - since > PATIENCE:
                return
            if arrived != seen:
                seen, since = arrived, loop.time()
            await asyncio.sleep(POLLING_INTERVAL)

    async def stop(self) -> None:
        """Closes the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        arrival = time.perf_counter()
        body = await request.read()
        notification_id = request.headers.get("webhook-id", "")
        if self._verifier is None:
            return web.Response(status=503)
        try:
            self._verifier.verify(body, dict(request.headers), json_parse=False)
        except WebhookVerificationError as error:
            self.faults.append(f"{notification_id or 'a request without an id'} is not signed well: {error}")
            return web.Response(status=401)
        try:
            crossings, sequence = tuple(crossings_of_body(body)), sequence_of_body(body)
        except (KeyError, ValueError) as error:
            self.faults.append(f"{notification_id} cannot be read: {error!r}")
            return web.Response(status=400)
        known = self.received.get(notification_id)
        if known is None:
            received = Received(notification_id, body, crossings, sequence, arrival)
            self.received[notification_id] = received
            self.on_received(received)
        elif known.body == body:
            self.repeated += 1
        else:
            self.faults.append(f"{notification_id} came with two different bodies")
        return web.Response(status=204)

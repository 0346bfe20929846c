"""The webhooks that arrive at the demo's receiver: each is verified, and kept once."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web
from standardwebhooks import WebhookVerificationError

from demo.transitions import TransitionKey, sequence_of_body, transitions_of_body
from tests.support.notifier.receiver import Arrival

PATIENCE = 30.0  # seconds without a webhook after which those that are missing count as missing
POLLING_INTERVAL = 0.05  # seconds


@dataclass(frozen=True)
class Received:
    """A notification that was verified. arrival: by time.perf_counter, in seconds."""

    notification_id: str
    body: bytes
    transitions: tuple[TransitionKey, ...]
    sequence: int
    arrival: float


@dataclass
class VerifiedWebhooks:
    """Answers the requests of a receiver, and keeps what they contain.

    received: by notification id, each once. repeated: the number of those that came again with the same content,
    which is allowed where delivery is at least once. faults: what must never happen, in words.
    """

    on_received: Callable[[Received], None] = lambda received: None
    received: dict[str, Received] = field(default_factory=dict)
    repeated: int = 0
    faults: list[str] = field(default_factory=list)
    _secret: str = ""

    def trust(self, secret: str) -> None:
        """Accepts webhooks that are signed with this secret from now on."""
        self._secret = secret

    async def wait_for(self, transitions: int) -> None:
        """Waits until so many transitions have arrived, or none has for PATIENCE."""
        loop = asyncio.get_running_loop()
        seen, since = -1, loop.time()
        while True:
            arrived = sum(len(received.transitions) for received in self.received.values())
            if arrived >= transitions or loop.time() - since > PATIENCE:
                return
            if arrived != seen:
                seen, since = arrived, loop.time()
            await asyncio.sleep(POLLING_INTERVAL)

    async def answer(self, arrival: Arrival) -> web.Response:
        """Answers one request: 204 when it is as it must be."""
        notification_id = arrival.headers.get("webhook-id", "")
        if not self._secret:
            return web.Response(status=503)
        try:
            arrival.verify(self._secret)
        except WebhookVerificationError as error:
            self.faults.append(f"{notification_id or 'a request without an id'} is not signed correctly: {error}")
            return web.Response(status=401)
        except ValueError as error:
            self.faults.append(f"{notification_id} is no JSON: {error}")
            return web.Response(status=400)
        try:
            transitions, sequence = tuple(transitions_of_body(arrival.body)), sequence_of_body(arrival.body)
        except (KeyError, ValueError) as error:
            self.faults.append(f"{notification_id} cannot be read: {error!r}")
            return web.Response(status=400)
        known = self.received.get(notification_id)
        if known is None:
            received = Received(notification_id, arrival.body, transitions, sequence, arrival.time)
            self.received[notification_id] = received
            self.on_received(received)
        elif known.body == arrival.body:
            self.repeated += 1
        else:
            self.faults.append(f"{notification_id} came with two different bodies")
        return web.Response(status=204)

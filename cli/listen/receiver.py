"""The receiver: takes POSTs on a port of this machine, verifies and counts them, and gives the chosen answers."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from aiohttp import web

from cli.listen.answers import CLOSE, HANG, Answer
from cli.listen.forwarding import Forwarder
from runtime.clock import Clock
from tidemark_client import WebhookNotVerified, WebhookVerifier

MAX_BODY = 256 * 1024  # bytes; Tidemark never sends more
UNVERIFIED = 401


@dataclass(frozen=True)
class Arrival:
    """One request. scheme: of the signature that fits, empty when none does. fault: why none fits."""

    time: datetime
    webhook_id: str
    event_type: str
    count: int  # how often this id has come, this request included
    scheme: str
    fault: str
    answer: Answer
    body: bytes
    forwarded: str = ""  # what became of it at the URL of --forward-to; empty without one

    @property
    def is_test(self) -> bool:
        """Whether it is a test event, which SendTestEvent made."""
        parsed = _parsed(self.body)
        data = parsed.get("data") if isinstance(parsed, dict) else None
        return isinstance(data, dict) and data.get("test") is True

    def as_json(self) -> dict[str, Any]:
        """The request as --json prints it."""
        return {
            "time": self.time.isoformat(),
            "webhook_id": self.webhook_id,
            "type": self.event_type,
            "count": self.count,
            "verified": self.scheme or None,
            "fault": self.fault or None,
            "answer": self.answer.silent or self.answer.status,
            **({"forwarded": self.forwarded} if self.forwarded else {}),
            "body": _parsed(self.body),
        }


class Receiver:
    """A receiver that verifies each request with `verifier`, and gives the answers of `answers` one after the other.

    A request that does not verify gets 401 and uses up no answer. With None as `verifier` nothing is verified. With a
    `forwarder`, a request that verifies goes on to its URL, whose answer is given.
    """

    def __init__(
        self,
        verifier: WebhookVerifier | None,
        answers: Iterator[Answer],
        clock: Clock,
        on_arrival: Callable[[Arrival], None],
        forwarder: Forwarder | None = None,
    ) -> None:
        self.url = ""
        self._verifier = verifier
        self._answers = answers
        self._clock = clock
        self._on_arrival = on_arrival
        self._forwarder = forwarder
        self._counts: Counter[str] = Counter()
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Listens; port 0 takes any free one. Raises OSError."""
        application = web.Application(client_max_size=MAX_BODY)
        application.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._runner.addresses[0][1]}/"

    async def stop(self) -> None:
        """Closes the port and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        scheme, fault = "", ""
        if self._verifier is not None:
            try:
                scheme = self._verifier.check(request.headers, body, self._clock.now())
            except WebhookNotVerified as error:
                fault = str(error)
        webhook_id = request.headers.get("webhook-id", "")
        self._counts[webhook_id] += 1
        arrival = Arrival(
            time=self._clock.now(),
            webhook_id=webhook_id,
            event_type=_type_of(body),
            count=self._counts[webhook_id],
            scheme=scheme,
            fault=fault,
            answer=Answer(UNVERIFIED),
            body=body,
        )
        if not fault and self._forwarder is not None:
            status, forwarded = await self._forwarder.forward(request.rel_url, request.headers, body)
            arrival = replace(arrival, answer=Answer(status), forwarded=forwarded)
        elif not fault:
            arrival = replace(arrival, answer=next(self._answers))
        self._on_arrival(arrival)
        return await self._answered(request, arrival.answer)

    async def _answered(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        if answer.silent == HANG:
            await asyncio.Event().wait()  # until the caller gives up, or the receiver stops
        await asyncio.sleep(answer.delay)
        if answer.silent == CLOSE and request.transport is not None:
            request.transport.abort()
        headers = {"Retry-After": answer.retry_after} if answer.retry_after else None
        return web.Response(status=answer.status or 204, headers=headers)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def _type_of(body: bytes) -> str:
    parsed = _parsed(body)
    return str(parsed.get("type", "")) if isinstance(parsed, dict) else ""

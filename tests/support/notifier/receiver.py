"""A webhook receiver on a real socket for tests, benchmarks and the demo: keeps what arrives, answers as set."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from standardwebhooks import Webhook

Answer = Callable[["Arrival"], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Arrival:
    """One request that came in. time: when, by time.perf_counter, in seconds, before its body was read."""

    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    peer: tuple[str, int]  # the notifier's end of the connection
    time: float

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]

    def verify(self, secret: str) -> object:
        """The body, parsed, after its signature was checked by the public library."""
        verified: object = Webhook(secret).verify(self.body.decode(), self.headers)
        return verified


class Receiver:
    """What arrived, and how the next requests are answered. url: of the path /hook."""

    def __init__(self) -> None:
        self.url = ""
        self.arrivals: list[Arrival] = []
        self.open = 0  # requests that are being answered
        self.most_open = 0
        self._script: list[Answer] = []
        self._default: Answer = status(204)
        self._changed = asyncio.Condition()
        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", self.handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True, access_log=None)

    async def start(self) -> None:
        """Listens on a free port of 127.0.0.1."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/hook"

    async def stop(self) -> None:
        """Closes the port; requests that are not answered yet are given up."""
        await self._runner.cleanup()

    def answer(self, *answers: Answer) -> None:
        """Answers the next requests with these, one each, before going back to the usual answer."""
        self._script.extend(answers)

    def always_answer(self, answer: Answer) -> None:
        """Makes `answer` the usual one."""
        self._default = answer

    def ids(self, path: str = "/hook") -> list[str]:
        """The webhook ids that arrived at `path`, in their order."""
        return [arrival.webhook_id for arrival in self.arrivals if arrival.path == path]

    async def arrived(self, number: int) -> list[Arrival]:
        """Waits until at least `number` requests have arrived; returns all."""
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: len(self.arrivals) >= number)
        return self.arrivals

    async def handle(self, request: web.Request) -> web.StreamResponse:
        arrival_time = time.perf_counter()
        peer = request.transport.get_extra_info("peername") if request.transport else ("", 0)
        arrival = Arrival(
            path=request.path,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.read(),
            peer=(peer[0], peer[1]),
            time=arrival_time,
        )
        answer = self._script.pop(0) if self._script else self._default
        async with self._changed:
            self.arrivals.append(arrival)
            self._changed.notify_all()
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await answer(arrival)
        finally:
            self.open -= 1


def status(code: int, text: str = "", headers: dict[str, str] | None = None) -> Answer:
    """Answers with a status at once."""

    async def answer(_: Arrival) -> web.StreamResponse:
        return web.Response(status=code, text=text, headers=headers)

    return answer


def hang(released: asyncio.Event) -> Answer:
    """Answers with 204 when `released` is set."""

    async def answer(_: Arrival) -> web.StreamResponse:
        await released.wait()
        return web.Response(status=204)

    return answer


@asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    """A receiver on a free port of 127.0.0.1; its `url` leads to /hook."""
    receiver = Receiver()
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop()

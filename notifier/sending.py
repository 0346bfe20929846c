"""One HTTP POST of one attempt: bounded in time and memory, whatever the receiver does."""

import asyncio
import contextlib
import ssl
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from notifier.addresses import Dial, DialGuard, current_dial
from notifier.schedule import parse_retry_after
from runtime.clock import Clock
from runtime.targets import TargetPolicy
from store.deliveries import Outcome

MAX_EXCERPT = 16 * 1024  # bytes of the response that are read, and stored
MAX_ERROR = 500  # characters
DNS_TTL = 10  # seconds; short, because a name that moved is dialled at its old address until then
BACK_PRESSURE = (429, 503)  # HTTP statuses
KEEPALIVE = 30.0  # seconds that an idle connection stays open

HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": "Tidemark-Webhooks/1",
}


@dataclass(frozen=True)
class Timeouts:
    """How long each phase of an attempt may take, in seconds."""

    connect: float = 5.0  # resolve the name, connect, and shake hands
    headers: float = 15.0  # send the request and get the headers of the answer
    body: float = 1.0  # read the part of the answer that is stored

    @staticmethod
    def of(answer: float) -> "Timeouts":
        """The timeouts when a receiver may take `answer` seconds; no other phase may take longer than that."""
        return Timeouts(connect=min(5.0, answer), headers=answer, body=min(1.0, answer))

    @property
    def lease(self) -> timedelta:
        """A lease that outlasts an attempt and the writing of its result by far: three times all phases."""
        return timedelta(seconds=3 * (self.connect + self.headers + self.body))


@dataclass(frozen=True)
class Answer:
    """How an attempt ended."""

    outcome: Outcome
    http_status: int | None = None
    response_excerpt: str = ""
    error: str = ""
    retry_after: timedelta | None = None
    remote_address: str = ""  # that was dialled last; empty when none was

    @property
    def back_pressure(self) -> bool:
        """Whether the receiver asked to be left alone for a while, which is no failure."""
        return self.http_status in BACK_PRESSURE


class _Exchange:
    """One request on its way: the phase that it is in, and the end of that phase."""

    def __init__(self, deadline: asyncio.Timeout, header_timeout: float) -> None:
        self.connected = False
        self.reused = False  # the connection served an earlier request
        self.dial = Dial()
        self._deadline = deadline
        self._header_timeout = header_timeout

    def on_connected(self) -> None:
        """Ends the time to connect; the time for the answer's headers begins."""
        self.connected = True
        self.reused = not self.dial.allowed
        self._deadline.reschedule(asyncio.get_running_loop().time() + self._header_timeout)


_current_exchange: ContextVar[_Exchange] = ContextVar("current_exchange")


class _Connector(aiohttp.TCPConnector):
    """Tells each exchange when it has its connection. aiohttp's traces would say so, too, and cost more than that."""

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        connection = await super().connect(req, traces, timeout)
        _current_exchange.get().on_connected()
        return connection


class _Response(aiohttp.ClientResponse):
    """An answer that remembers whom it came from; its connection may be gone by the time anyone asks."""

    remote_address = ""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        peer = None if connection.transport is None else connection.transport.get_extra_info("peername")
        self.remote_address = "" if peer is None else str(peer[0])
        return await super().start(connection)


class Sender:
    """Posts bodies to endpoints over a pool of connections; an asynchronous context manager."""

    def __init__(self, policy: TargetPolicy, timeouts: Timeouts, clock: Clock) -> None:
        self._timeouts = timeouts
        self._clock = clock
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                limit=0,  # claims are bounded; a second bound would only let leases run out in a queue
                socket_factory=DialGuard(policy),
                ttl_dns_cache=DNS_TTL,
                keepalive_timeout=KEEPALIVE,
            ),
            headers=HEADERS,
            timeout=aiohttp.ClientTimeout(total=None),  # each phase has its own end, see _Exchange
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # a proxy named by the environment would be dialled in the receiver's place
            auto_decompress=False,  # a small compressed answer can hold gigabytes
            read_bufsize=MAX_EXCERPT,
            response_class=_Response,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Makes one attempt and says how it ended: that it failed is an answer, not an exception."""
        answer, reused = await self._try(url, headers, body)
        if answer.outcome is Outcome.CONNECTION_LOST and reused:
            # The receiver closed an idle connection just as it was picked from the pool. That says nothing of
            # its health, and a wait for the next attempt would make a good alert late.
            answer, _ = await self._try(url, headers, body)
        return answer

    async def _try(self, url: str, headers: dict[str, str], body: bytes) -> tuple[Answer, bool]:
        exchange = None
        try:
            async with asyncio.timeout(self._timeouts.connect) as deadline:
                exchange = _Exchange(deadline, self._timeouts.headers)
                current_dial.set(exchange.dial)
                _current_exchange.set(exchange)
                response = await self._session.post(url, data=body, headers=headers, allow_redirects=False)
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            # RuntimeError: what uvloop makes of some failures to connect.
            if exchange is None:
                raise
            return _failure(error, exchange), exchange.reused
        try:
            excerpt = await self._excerpt(response)
        finally:
            # Closes the connection, unless the answer was read to its end and it can serve again.
            response.close()
        remote = response.remote_address if isinstance(response, _Response) else ""
        retry_after = parse_retry_after(response.headers.get("Retry-After"), self._clock.now())
        outcome = _outcome(response.status)
        error_text = "" if outcome is Outcome.DELIVERED else f"the receiver answered {response.status}"
        return Answer(outcome, response.status, excerpt, error_text, retry_after, remote), exchange.reused

    async def _excerpt(self, response: aiohttp.ClientResponse) -> str:
        """The beginning of the answer's body, as much as comes in time and may be stored."""
        excerpt = bytearray()
        with contextlib.suppress(aiohttp.ClientError, OSError, ValueError):  # TimeoutError is an OSError
            if response.content.is_eof():  # it came with the headers, as most do
                return printable(response.content.read_nowait(MAX_EXCERPT))
            async with asyncio.timeout(self._timeouts.body):
                while len(excerpt) < MAX_EXCERPT:
                    chunk = await response.content.read(MAX_EXCERPT - len(excerpt))
                    if not chunk:
                        break
                    excerpt += chunk
        return printable(excerpt)


def printable(data: bytes | bytearray) -> str:
    """Text that PostgreSQL stores, whatever the bytes were: UTF-8 without NUL, at most MAX_EXCERPT bytes."""
    text = data.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    # A replacement character takes three bytes where there was one.
    return text.encode()[:MAX_EXCERPT].decode("utf-8", "ignore")


def _outcome(status: int) -> Outcome:
    if 200 <= status <= 299:
        return Outcome.DELIVERED
    if status == 410:
        return Outcome.GONE
    if status == 429:
        return Outcome.THROTTLED
    kinds = {3: Outcome.REDIRECTED, 4: Outcome.REJECTED, 5: Outcome.SERVER_ERROR}
    return kinds.get(status // 100, Outcome.SERVER_ERROR)


def _failure(error: Exception, exchange: _Exchange) -> Answer:
    return Answer(_phase(error, exchange), error=_describe(error, exchange), remote_address=exchange.dial.address)


def _phase(error: Exception, exchange: _Exchange) -> Outcome:
    if exchange.connected:
        if isinstance(error, TimeoutError):
            return Outcome.RESPONSE_TIMED_OUT
        if isinstance(error, aiohttp.ClientConnectionError | OSError):
            return Outcome.CONNECTION_LOST
        return Outcome.RESPONSE_MALFORMED
    if exchange.dial.only_refused:
        return Outcome.ADDRESS_REFUSED
    if isinstance(error, TimeoutError):
        return Outcome.CONNECTION_TIMED_OUT
    if isinstance(error, aiohttp.ClientConnectorDNSError | aiohttp.InvalidURL | UnicodeError):
        return Outcome.NAME_NOT_RESOLVED
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return Outcome.TLS_FAILED
    return Outcome.CONNECTION_FAILED


def _describe(error: Exception, exchange: _Exchange) -> str:
    if exchange.dial.only_refused:
        text = "; ".join(dict.fromkeys(exchange.dial.refused))
    elif isinstance(error, TimeoutError):
        text = "no answer in time" if exchange.connected else "no connection in time"
    else:
        text = str(error) or type(error).__name__
    return printable(text.encode("utf-8", "replace"))[:MAX_ERROR]

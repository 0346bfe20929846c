"""One HTTP POST of one attempt: bounded in time and memory, whatever the receiver does."""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Self

import aiohttp
from aiohttp.http import HttpProcessingError
from aiohttp.streams import StreamReader

from notifier.addresses import Dial, DialGuard, current_dial
from notifier.exchange import Destination, end, exchange
from notifier.schedule import parse_retry_after
from runtime.clock import Clock
from runtime.targets import TargetPolicy
from store.deliveries import Outcome

MAX_EXCERPT = 16 * 1024  # bytes of the response that are read, and stored
MAX_ERROR = 500  # characters
DNS_TTL = 10  # seconds; short, because a name that moved is dialled at its old address until then
BACK_PRESSURE = (429, 503)  # HTTP statuses
KEEPALIVE = 30.0  # seconds that an idle connection stays open
MAX_DESTINATIONS = 1_024  # URLs that are kept as they were read


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


# Not frozen, since every attempt has one: see store.delivery_queue.
@dataclass(slots=True)
class Answer:
    """How an attempt ended."""

    outcome: Outcome
    http_status: int | None = None
    response_excerpt: str = ""
    error: str = ""
    retry_after: timedelta | None = None
    remote_address: str = ""  # that of the connection, or else the one dialled last; empty when none was

    @property
    def back_pressure(self) -> bool:
        """Whether the receiver asked to be left alone for a while, which is no failure."""
        return self.http_status in BACK_PRESSURE


class Sender:
    """Posts bodies to endpoints over a pool of connections; an asynchronous context manager."""

    def __init__(self, policy: TargetPolicy, timeouts: Timeouts, clock: Clock) -> None:
        self._timeouts = timeouts
        self._clock = clock
        self._connector = aiohttp.TCPConnector(
            limit=0,  # claims are bounded; a second bound would only let leases run out in a queue
            socket_factory=DialGuard(policy),
            ttl_dns_cache=DNS_TTL,
            keepalive_timeout=KEEPALIVE,
        )
        # Of these times the connector knows that to connect only, and takes it when it has to dial.
        self._connect_timeout = aiohttp.ClientTimeout(
            total=None, connect=timeouts.connect, ceil_threshold=timeouts.connect
        )
        self._destination = lru_cache(maxsize=MAX_DESTINATIONS)(Destination.of)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connector.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Makes one attempt and says how it ended: that it failed is an answer, not an exception.

        `headers` are all but those of the connection and the body's length.
        """
        answer, reused = await self._try(url, headers, body)
        if answer.outcome is Outcome.CONNECTION_LOST and reused:
            # The receiver closed an idle connection just as it was picked from the pool. That says nothing of
            # its health, and a wait for the next attempt would make a good alert late.
            answer, _ = await self._try(url, headers, body)
        return answer

    async def _try(self, url: str, headers: Mapping[str, str], body: bytes) -> tuple[Answer, bool]:
        dial = Dial()
        current_dial.set(dial)
        try:
            destination = self._destination(url)
            request = destination.post(headers, body)
            connection = await self._connector.connect(destination.request, [], self._connect_timeout)
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            # RuntimeError: what uvloop makes of some failures to connect.
            return _failure(_not_connected(error, dial), error, dial, dial.address), False
        reused = not dial.allowed
        peer = None if connection.transport is None else connection.transport.get_extra_info("peername")
        address = dial.address if peer is None else str(peer[0])
        content = None
        try:
            message, content = await exchange(connection, request, self._timeouts.headers, MAX_EXCERPT)
            excerpt = await self._excerpt(content)
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError, RuntimeError) as error:
            return _failure(_not_answered(error), error, dial, address), reused
        finally:
            end(connection, content)
        outcome = _outcome(message.code)
        asked = message.headers.get("Retry-After")
        return (
            Answer(
                outcome,
                message.code,
                excerpt,
                "" if outcome is Outcome.DELIVERED else f"the receiver answered {message.code}",
                None if asked is None else parse_retry_after(asked, self._clock.now()),
                address,
            ),
            reused,
        )

    async def _excerpt(self, content: StreamReader) -> str:
        """The beginning of the answer's body, as much as comes in time and may be stored."""
        excerpt = bytearray()
        with contextlib.suppress(aiohttp.ClientError, OSError, ValueError):  # TimeoutError is an OSError
            if content.is_eof():  # it came with the headers, as most do
                return printable(content.read_nowait(MAX_EXCERPT))
            async with asyncio.timeout(self._timeouts.body):
                while len(excerpt) < MAX_EXCERPT:
                    chunk = await content.read(MAX_EXCERPT - len(excerpt))
                    if not chunk:
                        break
                    excerpt += chunk
        return printable(excerpt)


def printable(data: bytes | bytearray) -> str:
    """Text that PostgreSQL stores, whatever the bytes were: UTF-8 without NUL, at most MAX_EXCERPT bytes."""
    if not data:
        return ""
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


def _failure(outcome: Outcome, error: Exception, dial: Dial, address: str) -> Answer:
    if outcome is Outcome.ADDRESS_REFUSED:
        text = "; ".join(dict.fromkeys(dial.refused))
    elif isinstance(error, TimeoutError):
        text = "no answer in time" if outcome is Outcome.RESPONSE_TIMED_OUT else "no connection in time"
    elif isinstance(error, HttpProcessingError):
        text = error.message or "the answer is not HTTP"
    else:
        text = str(error) or type(error).__name__
    return Answer(outcome, error=printable(text.encode("utf-8", "replace"))[:MAX_ERROR], remote_address=address)


def _not_answered(error: Exception) -> Outcome:
    if isinstance(error, TimeoutError):
        return Outcome.RESPONSE_TIMED_OUT
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return Outcome.CONNECTION_LOST
    return Outcome.RESPONSE_MALFORMED


def _not_connected(error: Exception, dial: Dial) -> Outcome:
    if dial.only_refused:
        return Outcome.ADDRESS_REFUSED
    if isinstance(error, TimeoutError):
        return Outcome.CONNECTION_TIMED_OUT
    if isinstance(error, aiohttp.ClientConnectorDNSError | aiohttp.InvalidURL | UnicodeError):
        return Outcome.NAME_NOT_RESOLVED
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return Outcome.TLS_FAILED
    return Outcome.CONNECTION_FAILED

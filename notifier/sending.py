"""The HTTP POST of one attempt. Its time and memory are bounded, whatever the receiver does."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Self

import aiohttp
from aiohttp.connector import Connection

from notifier.addresses import Dial, DialGuard, current_dial
from notifier.exchange import Destination, end, exchange, is_stale
from notifier.response import MalformedResponse, ResponseReader
from runtime.clock import Clock
from webhooks.deliveries import AttemptOutcome
from webhooks.retry_after import asked_wait
from webhooks.url_policy import UrlPolicy

MAX_EXCERPT = 16 * 1024  # bytes of the response that are read, and stored
MAX_ERROR = 500  # characters
DNS_TTL = 10  # seconds; short, because a name that has moved is dialled at its old address until then
BACK_PRESSURE = (429, 503)  # HTTP statuses
KEEPALIVE = 30.0  # seconds that an idle connection stays open
MAX_DESTINATIONS = 1_024  # URLs that are kept in their parsed form


@dataclass(frozen=True)
class Timeouts:
    """How long each phase of an attempt may take, in seconds."""

    connect: float = 5.0  # resolve the name, connect, and shake hands
    headers: float = 15.0  # send the request and get the headers of the answer
    body: float = 1.0  # read the part of the answer that is stored

    @staticmethod
    def of(answer: float) -> "Timeouts":
        """The timeouts when the headers may take `answer` seconds; no other phase may take longer than that."""
        return Timeouts(connect=min(5.0, answer), headers=answer, body=min(1.0, answer))

    @property
    def lease(self) -> timedelta:
        """The lease of a claim: three times all phases, so that it outlasts attempt and result by far."""
        return timedelta(seconds=3 * (self.connect + self.headers + self.body))


# Not frozen, since each attempt has one: see `store.deliveries.claims.Claim`.
@dataclass(slots=True)
class Answer:
    """How an attempt ended."""

    outcome: AttemptOutcome
    http_status: int | None = None
    response_excerpt: str = ""
    error: str = ""
    retry_after: timedelta | None = None
    remote_address: str = ""  # of the connection, or else the last one that was dialled; empty without any

    @property
    def back_pressure(self) -> bool:
        """Whether the receiver asked for a pause, which is not a failure."""
        return self.http_status in BACK_PRESSURE


class Sender:
    """Posts bodies to endpoints over a pool of connections; an asynchronous context manager."""

    def __init__(self, policy: UrlPolicy, timeouts: Timeouts, clock: Clock) -> None:
        self._timeouts = timeouts
        self._clock = clock
        self._connector = aiohttp.TCPConnector(
            limit=0,  # slots limit the requests; with a second limit, leases would run out in a queue
            socket_factory=DialGuard(policy),
            ttl_dns_cache=DNS_TTL,
            keepalive_timeout=KEEPALIVE,
        )
        # The connector uses only the time to connect, when it has to dial.
        self._connect_timeout = aiohttp.ClientTimeout(
            total=None, connect=timeouts.connect, ceil_threshold=timeouts.connect
        )
        self._destination = lru_cache(maxsize=MAX_DESTINATIONS)(Destination.of)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connector.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Makes one attempt and returns how it ended. A failure is an Answer, not an exception.

        headers: all headers but Host and Content-Length.
        """
        answer, again = await self._try(url, headers, body)
        if again:
            answer, _ = await self._try(url, headers, body)
        return answer

    async def _try(self, url: str, headers: Mapping[str, str], body: bytes) -> tuple[Answer, bool]:
        """Posts once; returns how that ended, and whether to try again, because the fault was a kept connection."""
        dial = Dial()
        current_dial.set(dial)
        try:
            destination = self._destination(url)
            request = destination.post(headers, body)
            connection = await self._connect(destination, dial)
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            # uvloop raises RuntimeError for some failures to connect.
            return _failure(_not_connected(error, dial), error, dial, dial.address), False
        reused = not dial.allowed
        peer = None if connection.transport is None else connection.transport.get_extra_info("peername")
        address = dial.address if peer is None else str(peer[0])
        reader = ResponseReader(asyncio.get_running_loop(), MAX_EXCERPT, self._timeouts.body)
        try:
            await exchange(connection, request, reader, self._timeouts.headers)
        except (aiohttp.ClientError, MalformedResponse, OSError, ValueError, RuntimeError) as error:
            # The receiver closed an idle connection when it was just taken from the pool, or the rest of its previous
            # answer arrived only now. That is no sign of bad health, and to wait for the next attempt would make the
            # notification late.
            again = reused and not reader.has_begun and not isinstance(error, TimeoutError)
            return _failure(_not_answered(error), error, dial, address), again
        finally:
            end(connection, reader)
        assert reader.status is not None
        outcome = _outcome(reader.status)
        delivered = outcome is AttemptOutcome.DELIVERED
        return (
            Answer(
                outcome,
                reader.status,
                printable(reader.excerpt),
                "" if delivered else f"the receiver answered {reader.status}",
                None if delivered else self._asked_wait(reader),
                address,
            ),
            False,
        )

    async def _connect(self, destination: Destination, dial: Dial) -> Connection:
        """A usable connection of the pool, or a new one."""
        while True:
            connection = await self._connector.connect(destination.request, [], self._connect_timeout)
            if dial.allowed or not is_stale(connection):
                return connection
            connection.close()

    def _asked_wait(self, reader: ResponseReader) -> timedelta | None:
        asked = reader.fields("Retry-After")
        return asked_wait(asked, reader.fields("Date"), self._clock.now()) if asked else None


def printable(data: bytes | bytearray) -> str:
    """Any bytes as text that PostgreSQL can store: UTF-8 without NUL, at most MAX_EXCERPT bytes."""
    if not data:
        return ""
    text = data.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    # A replacement character takes three bytes where there was one.
    return text.encode()[:MAX_EXCERPT].decode("utf-8", "ignore")


def _outcome(status: int) -> AttemptOutcome:
    if 200 <= status <= 299:
        return AttemptOutcome.DELIVERED
    if status == 410:
        return AttemptOutcome.GONE
    if status == 429:
        return AttemptOutcome.THROTTLED
    kinds = {3: AttemptOutcome.REDIRECTED, 4: AttemptOutcome.REJECTED, 5: AttemptOutcome.SERVER_ERROR}
    return kinds.get(status // 100, AttemptOutcome.SERVER_ERROR)


def _failure(outcome: AttemptOutcome, error: Exception, dial: Dial, address: str) -> Answer:
    if outcome is AttemptOutcome.ADDRESS_REFUSED:
        text = "; ".join(dict.fromkeys(dial.refused))
    elif isinstance(error, TimeoutError):
        text = "no answer in time" if outcome is AttemptOutcome.RESPONSE_TIMED_OUT else "no connection in time"
    else:
        text = str(error) or type(error).__name__
    return Answer(outcome, error=printable(text.encode("utf-8", "replace"))[:MAX_ERROR], remote_address=address)


def _not_answered(error: Exception) -> AttemptOutcome:
    if isinstance(error, TimeoutError):
        return AttemptOutcome.RESPONSE_TIMED_OUT
    if isinstance(error, MalformedResponse):
        return AttemptOutcome.RESPONSE_MALFORMED
    return AttemptOutcome.CONNECTION_LOST


def _not_connected(error: Exception, dial: Dial) -> AttemptOutcome:
    if dial.only_refused:
        return AttemptOutcome.ADDRESS_REFUSED
    if isinstance(error, TimeoutError):
        return AttemptOutcome.CONNECTION_TIMED_OUT
    if isinstance(error, aiohttp.ClientConnectorDNSError | aiohttp.InvalidURL | UnicodeError):
        return AttemptOutcome.NAME_NOT_RESOLVED
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return AttemptOutcome.TLS_FAILED
    return AttemptOutcome.CONNECTION_FAILED

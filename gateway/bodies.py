"""Bodies of requests: their content type, their coding, their size, and the time that they take to arrive."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.client_exceptions import ClientPayloadError
from google.rpc import code_pb2

from gateway.calls import refusals
from gateway.limits import HttpLimits
from generated.tidemark.v1 import error_reason_pb2

JSON = "application/json"
CODINGS = ("gzip", "deflate", "identity", "")


class Bodies:
    """Reads bodies. Large ones are read a few at a time, and only of callers that the server would serve."""

    def __init__(self, max_bytes: int, limits: HttpLimits) -> None:
        """max_bytes: of a body, after it is decompressed."""
        self._max_bytes = max_bytes
        self._limits = limits
        self._large = 0

    async def read(self, request: web.BaseRequest, admit: Callable[[], Awaitable[None]]) -> bytes:
        """The body, decompressed. admit: raises the Refusal of a caller that the server would not serve.

        A request without a body is not asked about.

        Raises Refusal.
        """
        coding = request.headers.get("Content-Encoding", "").strip().lower()
        if coding not in CODINGS:
            raise refusals.malformed(
                f"the Content-Encoding {coding[:40]!r} is not known: send gzip, deflate, or the body as it is",
                http_code=415,
                headers={"Accept-Encoding": "gzip, deflate"},
            )
        length = request.content_length
        if length is not None and length > self._max_bytes:
            raise refusals.too_large(length, self._max_bytes)
        try:
            async with asyncio.timeout(self._limits.body):
                return await self._read(request, "" if coding == "identity" else coding, admit)
        except TimeoutError:
            raise refusals.malformed(
                f"the body did not arrive within {self._limits.body:g} seconds", http_code=408
            ) from None
        except (ClientPayloadError, zlib.error):
            raise refusals.malformed(
                f"the body is not what its headers say: {coding or 'it is incomplete'}"
            ) from None

    async def _read(self, request: web.BaseRequest, coding: str, admit: Callable[[], Awaitable[None]]) -> bytes:
        is_large = (request.content_length or 0) > self._limits.plain_body
        decoder, received = _Decoder(coding), b""
        if not is_large:
            _continue(request)
            received = await _take(request, decoder, b"", self._limits.plain_body)
        if not is_large and not received:
            return received
        await admit()  # also for a small one: to parse it takes longer than to read it
        if not is_large and len(received) <= self._limits.plain_body:
            return received
        if self._large >= self._limits.large_bodies:
            raise refusals.refusal(
                code_pb2.RESOURCE_EXHAUSTED,
                error_reason_pb2.ERROR_REASON_OVERLOADED,
                f"the server reads {self._large} large bodies already, the maximum: repeat the request later",
                http_code=503,
                metadata={"share_of": "server", "limit": str(self._limits.large_bodies)},
                retry_seconds=1,
            )
        self._large += 1
        if is_large:
            _continue(request)
        try:
            body = await _take(request, decoder, received, self._max_bytes)
        finally:
            self._large -= 1
        if len(body) > self._max_bytes:
            raise refusals.too_large(len(body), self._max_bytes)
        return body


async def _take(request: web.BaseRequest, decoder: "_Decoder", received: bytes, limit: int) -> bytes:
    """The body until its end, or until it has more than `limit` bytes. Decompresses no more than that."""
    parts, size = [received], len(received)
    while size <= limit:
        piece = decoder.more(limit + 1 - size)
        if piece:
            parts.append(piece)
            size += len(piece)
        elif decoder.is_at_end:
            break
        elif chunk := await request.content.readany():
            decoder.feed(chunk)
        else:
            decoder.end()
    return b"".join(parts)


class _Decoder:
    """Decompresses what has come, in pieces of a bounded size."""

    def __init__(self, coding: str) -> None:
        bits = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}.get(coding)
        self._inflate = None if bits is None else zlib.decompressobj(bits)
        self._waiting = b""
        self._has_ended = False
        self._was_fed = False

    def feed(self, chunk: bytes) -> None:
        """Bytes as they came."""
        self._waiting += chunk
        self._was_fed = True

    def end(self) -> None:
        """No more will come. Raises zlib.error where the end is missing."""
        self._has_ended = True
        if self._inflate is not None and self._was_fed and not self._inflate.eof:
            raise zlib.error("incomplete")

    @property
    def is_at_end(self) -> bool:
        """Whether nothing more will come; ask it when `more` had nothing."""
        return self._has_ended or (self._inflate is not None and self._inflate.eof)

    def more(self, limit: int) -> bytes:
        """At most `limit` bytes of what has come. What follows a complete stream of compressed bytes is ignored."""
        if self._inflate is None:
            piece, self._waiting = self._waiting[:limit], self._waiting[limit:]
            return piece
        if self._inflate.eof:
            return b""
        # Also without new bytes: zlib may keep some that did not fit into the last piece.
        piece = self._inflate.decompress(self._waiting, limit)
        self._waiting = self._inflate.unconsumed_tail
        return piece


def _continue(request: web.BaseRequest) -> None:
    """Asks for the body of a client that waits for this."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def check_json(request: web.BaseRequest, body: bytes) -> None:
    """Raises Refusal where a body is not said to be JSON.

    A web page can send other types, without a question of its browser to this server.
    """
    if not body:
        return
    kind = request.content_type if "Content-Type" in request.headers else "none"
    if kind != JSON and not kind.endswith("+json"):
        raise refusals.malformed(
            f"the Content-Type is {kind[:80]}: send JSON, with the header 'Content-Type: {JSON}'",
            http_code=415,
            headers={"Accept": JSON},
        )
    charset = request.charset
    if charset is not None and charset.lower().replace("_", "-") not in ("utf-8", "utf8", "us-ascii"):
        raise refusals.malformed(f"the charset is {charset[:40]}: send UTF-8", http_code=415)

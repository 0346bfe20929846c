"""Reads one HTTP/1.1 response as far as an attempt needs it: the final status and an excerpt, within bounds.

The status line alone decides the outcome of an attempt. What follows cannot change it, even if it is cut, faulty or
endless; nor can the way in which the bytes are spread over packets. A parser that accepts or rejects a response as a
whole, such as aiohttp's, would reject a 204 with a body together with its status. The framing of the response decides
one thing only: whether its connection may carry another request.
"""

import asyncio
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import ClassVar

MAX_HEAD = 64 * 1024  # bytes before the body: blank lines, interim responses, the status line and the headers
MAX_INTERIM = 16  # responses 1xx before the final one
MAX_CHUNK_LINE = 1_024  # bytes of the line that gives a chunk's size
FRAMING_ALLOWANCE = 16 * 1024  # bytes of chunk framing that are read besides the chunks

_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: [^\n]*)?")
_FIELD_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")

# The headers that are kept.
_CONTENT_LENGTH = b"content-length"
_TRANSFER_ENCODING = b"transfer-encoding"
_CONNECTION = b"connection"
_KEPT = frozenset({_CONTENT_LENGTH, _TRANSFER_ENCODING, _CONNECTION, b"retry-after", b"date"})

SWITCHING_PROTOCOLS = 101
_WITHOUT_BODY = (SWITCHING_PROTOCOLS, 204, 304)


class MalformedResponse(Exception):
    """The answer is not HTTP/1.1; the message says why."""


class _State(Enum):
    STATUS_LINE = auto()
    INTERIM_HEADERS = auto()
    HEADERS = auto()
    SIZED_BODY = auto()
    BODY_UNTIL_CLOSE = auto()
    CHUNK_SIZE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    ENDED = auto()


class ResponseReader:
    """Takes the bytes of one response as they come; the future `ended` is done when no more of them are needed.

    aiohttp's protocol calls `feed_data` and `feed_eof` on the parser that is set with `set_parser`.
    excerpt_limit: bytes of the body that are kept. rest_timeout: seconds after the outcome is decided (by the status
    line of a success, or by the head of another response) until the reader stops. The excerpt of a response without a
    body is empty, whatever follows its head.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, excerpt_limit: int, rest_timeout: float) -> None:
        self.ended: asyncio.Future[None] = loop.create_future()
        self.status: int | None = None
        self.excerpt = bytearray()
        self.error: Exception | None = None  # why there is no status; None also when the connection was lost
        self.has_begun = False  # a status line has come, possibly that of an interim response
        self._loop = loop
        self._excerpt_limit = excerpt_limit
        self._rest_timeout = rest_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._is_decided = False
        self._rest_began = False
        self._state = _State.STATUS_LINE
        self._buffer = bytearray()
        self._searched = 0  # bytes of the buffer that hold no line end
        self._head_room = MAX_HEAD
        self._framing_room = FRAMING_ALLOWANCE
        self._interim = 0
        self._fields: dict[bytes, list[bytes]] = {}
        self._is_clean = True
        self._is_complete = False
        self._persists = True  # the receiver keeps the connection
        self._remaining = 0  # bytes of the body or of the chunk

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request: the response was complete, and framed without fault."""
        return self._is_complete and self._is_clean and self._persists

    def fields(self, name: str) -> list[str]:
        """The values of a header, in their order. Only the headers that an attempt needs are kept."""
        return [value.decode("latin-1") for value in self._fields.get(name.lower().encode(), ())]

    def start(self, timeout: float) -> None:
        """Starts the timeout: the outcome has to be decided within `timeout` seconds."""
        self._timer = self._loop.call_later(timeout, self._on_timeout)

    def close(self) -> None:
        """Stops the timeout."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Takes bytes."""
        if self._has_ended:
            self._is_clean = False  # bytes after the response
            return False, b""
        self._buffer += data
        while self._steps[self._state](self):
            pass
        if self._is_decided and not (self._has_ended or self._rest_began) and self._timer is not None:
            self._rest_began = True
            self._timer.cancel()
            self._timer = self._loop.call_later(self._rest_timeout, self._on_timeout)
        return False, b""

    def feed_eof(self) -> None:
        """Ends the response, because the connection has ended."""
        self._persists = False
        if not self._has_ended:
            self._end()

    @property
    def _has_ended(self) -> bool:
        return self._state is _State.ENDED

    def _on_timeout(self) -> None:
        self._timer = None
        if self.status is None:
            self.error = TimeoutError()
        self._end()

    def _end(self, *, complete: bool = False) -> None:
        self._is_complete = complete
        self._state = _State.ENDED
        if self._buffer:
            self._is_clean = False  # more than the response
            self._buffer.clear()
        if not self.ended.done():
            self.ended.set_result(None)

    def _reject(self, reason: str) -> bool:
        """Ends a response without a final status."""
        self.error = MalformedResponse(reason)
        self._end()
        return False

    def _head_line(self) -> bytes | None:
        """The next line of the head; None when it has not come, or when the head is too long."""
        end = self._buffer.find(b"\n", self._searched, self._head_room)
        if end < 0:
            self._searched = len(self._buffer)
            if self._searched >= self._head_room:
                if self.status is None:
                    self._reject(f"no status line came within {MAX_HEAD} bytes")
                else:
                    self._end()
            return None
        self._head_room -= end + 1
        return self._take_line(end)

    def _take_line(self, end: int) -> bytes:
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        if line.endswith(b"\r"):
            return line[:-1]
        self._is_clean = False
        return line

    def _read_status_line(self) -> bool:
        line = self._head_line()
        if line is None:
            return False
        if not line:  # some servers send an additional empty line after a response
            return True
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            return self._reject("the answer does not begin with a status line of HTTP/1.1")
        self.has_begun = True
        status = int(match[2])
        if 100 <= status <= 199 and status != SWITCHING_PROTOCOLS:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                return self._reject(f"more than {MAX_INTERIM} interim responses (1xx) came before the answer")
            self._state = _State.INTERIM_HEADERS
            return True
        self.status = status
        self._persists = match[1] != b"0"
        self._is_decided = 200 <= status <= 299
        self._state = _State.HEADERS
        return True

    def _read_interim_header(self) -> bool:
        line = self._head_line()
        if line is None:
            return False
        if not line:
            self._state = _State.STATUS_LINE
        return True

    def _read_header(self) -> bool:
        line = self._head_line()
        if line is None:
            return False
        if not line:
            self._begin_body()
            return True
        # Not one regular expression for the whole line: with blanks on both sides of a value it would try every way
        # to divide them, and a receiver that sends many blanks would block the event loop.
        name, colon, value = line.partition(b":")
        if not colon or _FIELD_NAME.fullmatch(name) is None or b"\0" in value or b"\r" in value:
            self._is_clean = False
        elif (name := name.lower()) in _KEPT:
            self._fields.setdefault(name, []).append(value.strip(b" \t"))
        return True

    def _begin_body(self) -> None:
        """Chooses the framing of the body, after RFC 9112 section 6.3."""
        self._is_decided = True
        options = _tokens(self._fields.get(_CONNECTION, ()))
        self._persists = b"close" not in options and (self._persists or b"keep-alive" in options)
        lengths = self._fields.get(_CONTENT_LENGTH, ())
        encodings = _tokens(self._fields.get(_TRANSFER_ENCODING, ()))
        numbers = [int(length) for length in lengths if length.isdigit() and len(length) < 19]
        if len(lengths) > 1 or len(numbers) < len(lengths) or (lengths and encodings):
            self._is_clean = False
        if self.status in _WITHOUT_BODY:
            if encodings or (self.status != 304 and any(numbers)) or self.status == SWITCHING_PROTOCOLS:
                self._is_clean = False
            self._end(complete=True)
        elif encodings:
            self._state = _State.CHUNK_SIZE if encodings == [b"chunked"] else _State.BODY_UNTIL_CLOSE
        elif numbers:
            self._remaining = min(numbers)
            self._persists &= self._remaining <= self._excerpt_limit  # a longer body is cut, not read to its end
            self._state = _State.SIZED_BODY
        else:
            self._state = _State.BODY_UNTIL_CLOSE

    def _read_sized_body(self) -> bool:
        self._keep(self._remaining)
        if self._remaining == 0:
            self._end(complete=True)
        elif self._is_full():
            self._end()
        return False

    def _read_body_until_close(self) -> bool:
        self._remaining = len(self._buffer)
        self._keep(self._remaining)
        if self._is_full():
            self._end()
        return False

    def _keep(self, number: int) -> None:
        """Takes up to `number` bytes of the body, and keeps those that the excerpt has room for."""
        part = self._buffer[:number]
        del self._buffer[:number]
        self._remaining -= len(part)
        self.excerpt += part[: self._excerpt_limit - len(self.excerpt)]

    def _is_full(self) -> bool:
        return len(self.excerpt) >= self._excerpt_limit

    def _framing_line(self) -> bytes | None:
        """The next line of a chunked body's framing; None when it has not come, or when there is too much of it."""
        room = min(MAX_CHUNK_LINE, self._framing_room)
        end = self._buffer.find(b"\n", self._searched, room)
        if end < 0:
            self._searched = len(self._buffer)
            if self._searched >= room:
                self._end()
            return None
        self._framing_room -= end + 1
        return self._take_line(end)

    def _read_chunk_size(self) -> bool:
        line = self._framing_line()
        if line is None:
            return False
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            self._end()
            return False
        self._remaining = int(match[1], 16)
        self._state = _State.CHUNK if self._remaining else _State.TRAILERS
        return True

    def _read_chunk(self) -> bool:
        self._keep(self._remaining)
        if self._remaining == 0:
            self._state = _State.CHUNK_END
            return True
        if self._is_full():
            self._end()
        return False

    def _read_chunk_end(self) -> bool:
        line = self._framing_line()
        if line is None:
            return False
        if line or self._is_full():
            self._end()
            return False
        self._state = _State.CHUNK_SIZE
        return True

    def _read_trailer(self) -> bool:
        line = self._framing_line()
        if line is None:
            return False
        if not line:
            self._end(complete=True)
            return False
        return True

    def _ended(self) -> bool:
        return False

    # Each continues in its state, and returns whether to continue with the buffered bytes.
    _steps: ClassVar[dict[_State, Callable[["ResponseReader"], bool]]] = {
        _State.STATUS_LINE: _read_status_line,
        _State.INTERIM_HEADERS: _read_interim_header,
        _State.HEADERS: _read_header,
        _State.SIZED_BODY: _read_sized_body,
        _State.BODY_UNTIL_CLOSE: _read_body_until_close,
        _State.CHUNK_SIZE: _read_chunk_size,
        _State.CHUNK: _read_chunk,
        _State.CHUNK_END: _read_chunk_end,
        _State.TRAILERS: _read_trailer,
        _State.ENDED: _ended,
    }


def _tokens(values: "list[bytes] | tuple[()]") -> list[bytes]:
    """The elements of a header that lists tokens, in lower case."""
    return [token.strip().lower() for value in values for token in value.split(b",")]

"""A client that speaks HTTP/2 frame by frame, to do what no gRPC library does: stop halfway, flood, never read."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW = 4  # the setting
CANCEL = 8  # the error code
FRAME = 16_384  # bytes of payload that every peer accepts


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame with its header."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header(name: str, value: str) -> bytes:
    """One header field as an HPACK literal that enters no table. A character from U+DC80 on stands for a byte."""
    return b"\0" + _text(name) + _text(value)


def message(length: int, body: bytes = b"") -> bytes:
    """The beginning of a gRPC message that announces `length` bytes."""
    return struct.pack(">BI", 0, length) + body


def block(path: str, authorization: str | None = None) -> bytes:
    """The header block of a gRPC call."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
    fields += [("te", "trailers"), ("content-type", "application/grpc")]
    if authorization is not None:
        fields.append(("authorization", authorization))
    return b"".join(header(name, value) for name, value in fields)


class RawConnection:
    """One connection. It acknowledges settings and pings, and leaves everything else to the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = True) -> None:
        """`answers` false leaves settings and pings without an acknowledgement."""
        self._answers = answers
        self._reader, self._writer = reader, writer
        self._next_stream = 1
        self._news = asyncio.Condition()
        self._windows = {0: 65_535}
        self._initial = 65_535
        self.ended: dict[int, bytes] = {}  # stream to the last frame's payload: trailers, or a reset's code
        self.received: dict[int, bytes] = {}  # stream to the DATA so far
        self.going_away = b""
        self.closed = False

    async def settle(self, seconds: float = 10.0, until: Callable[[], bool] = lambda: False) -> bool:
        """Waits until `until` is true or the time is over; returns whether it is true."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._news:
                await self._news.wait_for(until)
        return until()

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self._writer.write(data)

    async def flush(self) -> None:
        """Waits until the kernel accepted the sent bytes; the server may have closed the connection."""
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def call(self, path: str, authorization: str | None = None) -> int:
        """Sends the headers of a call; returns its stream."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._windows[stream] = self._initial
        self.send(frame(HEADERS, END_HEADERS, stream, block(path, authorization)))
        return stream

    def reset(self, stream: int) -> None:
        """Cancels a call."""
        self.send(frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL)))

    async def data(self, stream: int, payload: bytes, *, end: bool = False) -> int:
        """Sends as much of `payload` as the server's windows allow before the stream ends; returns the number."""
        sent = 0
        while sent < len(payload) or end:
            await self.settle(60.0, lambda: self._over(stream) or len(payload) == 0 or self._room(stream) > 0)
            if self._over(stream):
                break
            size = min(FRAME, len(payload) - sent, self._room(stream))
            last = end and sent + size == len(payload)
            self.send(frame(DATA, END_STREAM if last else 0, stream, payload[sent : sent + size]))
            self._windows[0] -= size
            self._windows[stream] -= size
            sent += size
            await self.flush()
            if last:
                break
        return sent

    def _room(self, stream: int) -> int:
        return min(self._windows[0], self._windows[stream])

    def _over(self, stream: int) -> bool:
        return self.closed or stream in self.ended

    async def follow(self) -> None:
        """Reads frames until the connection ends."""
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                self._take(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
                async with self._news:
                    self._news.notify_all()
        except (asyncio.IncompleteReadError, OSError):
            self.closed = True
            async with self._news:
                self._news.notify_all()

    def _answer(self, data: bytes) -> None:
        if self._answers:
            self.send(data)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack(">HI", payload[at : at + 6])
                if name == INITIAL_WINDOW:
                    for known in self._windows:
                        self._windows[known] += value - self._initial if known else 0
                    self._initial = value
            self._answer(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self._answer(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            if stream in self._windows:
                self._windows[stream] += int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            self.going_away = payload
        elif kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
            self.ended.setdefault(stream, payload)
        elif kind == DATA:
            self.received[stream] = self.received.get(stream, b"") + payload


@asynccontextmanager
async def raw(port: int, *, window: int = 65_535, speaking: bool = True) -> AsyncIterator[RawConnection]:
    """A connection to a server on loopback, closed at the end; `speaking` false sends no preface.

    `window` is how many bytes of each answer the server may send; the client never extends it.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connection = RawConnection(reader, writer, answers=speaking)
    if speaking:
        connection.send(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, window)))
    following = asyncio.create_task(connection.follow())
    try:
        yield connection
    finally:
        writer.transport.abort()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def _text(text: str) -> bytes:
    data = text.encode(errors="surrogateescape")
    return _integer(len(data)) + data


def _integer(value: int) -> bytes:
    # HPACK, RFC 7541 section 5.1, with a prefix of 7 bits.
    if value < 127:
        return bytes([value])
    encoded, value = b"\x7f", value - 127
    while value >= 128:
        encoded += bytes([value % 128 + 128])
        value //= 128
    return encoded + bytes([value])

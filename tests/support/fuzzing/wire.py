"""Bytes that are no HTTP/2, no TLS, or bad HTTP/2: one connection with them, and what the server sends back."""

import asyncio
import contextlib
import random
import ssl
import struct
from collections.abc import Callable, Sequence

from tests.support.server import raw_http2
from tests.support.server.raw_http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)

PRIORITY = 2
FLOOD = 200  # frames
LISTENING = 0.05  # seconds in which the answer to bad bytes is read
MOST_READ = 65_536  # bytes

_HELLO = PREFACE + frame(SETTINGS, 0, 0)


def bad_bytes(paths: Sequence[str], draw: random.Random) -> bytes:
    """What one connection without TLS sends."""
    return draw.choice(_KINDS)(paths, draw)


def _nonsense(paths: Sequence[str], draw: random.Random) -> bytes:
    return draw.choice(
        (
            draw.randbytes(draw.randint(1, 2_000)),
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"\x16\x03\x01" + draw.randbytes(300),  # the beginning of a TLS handshake
            PREFACE[: draw.randrange(len(PREFACE))],
            PREFACE + draw.randbytes(draw.randint(1, 500)),
        )
    )


def _frames(paths: Sequence[str], draw: random.Random) -> bytes:
    """Frames of any kind in any order."""
    sent = [_HELLO]
    for _ in range(draw.randint(1, 30)):
        kind = draw.choice((*range(10), draw.randrange(256)))
        payload = draw.randbytes(draw.choice((0, 4, 5, 6, 8, 9, 100, 16_384)))
        sent.append(frame(kind, draw.randrange(256), draw.choice((0, 1, 2, 3, 5, 2**31 - 1)), payload))
    return b"".join(sent)


def _headers(paths: Sequence[str], draw: random.Random) -> bytes:
    """A call whose header block has changed bytes, or is cut over several frames."""
    block = bytearray(raw_http2.block(draw.choice(paths), draw.choice((None, "Bearer tmk_x", "\xff" * 40))))
    for _ in range(draw.randint(1, 6)):
        block[draw.randrange(len(block))] = draw.randrange(256)
    if draw.random() < 0.5:
        block += draw.randbytes(draw.randint(1, 40))
    cut = draw.randrange(len(block))
    if draw.random() < 0.5:
        return _HELLO + frame(HEADERS, END_HEADERS | draw.choice((0, END_STREAM)), 1, bytes(block))
    more = frame(CONTINUATION, draw.choice((0, END_HEADERS)), draw.choice((1, 3)), bytes(block[cut:]))
    return _HELLO + frame(HEADERS, 0, 1, bytes(block[:cut])) + more


def _large_headers(paths: Sequence[str], draw: random.Random) -> bytes:
    block = raw_http2.block(draw.choice(paths))
    many = b"".join(raw_http2.header(f"x-{number}", "v" * 100) for number in range(draw.choice((20, 100))))
    large = raw_http2.header("x-large", "v" * draw.choice((9_000, 15_000)))
    # An entry of the table that is used very often: few bytes that stand for many.
    bomb = b"\x40" + raw_http2.header("x-bomb", "b" * 2_000)[1:] + b"\xbe" * draw.choice((10, 4_000))
    block += draw.choice((many, large, bomb))
    sent = [_HELLO, frame(HEADERS, 0, 1, block[:16_000])]
    rest = [block[at : at + 16_000] for at in range(16_000, len(block), 16_000)]
    sent += [frame(CONTINUATION, 0, 1, part) for part in rest]
    return b"".join([*sent, frame(CONTINUATION, END_HEADERS, 1)])


def _flood(paths: Sequence[str], draw: random.Random) -> bytes:
    block = raw_http2.block(draw.choice(paths))
    kinds: tuple[Callable[[int], bytes], ...] = (
        lambda _: frame(
            SETTINGS, 0, 0, struct.pack(">HI", draw.randrange(8), draw.choice((0, 1, 2**31 - 1, 2**32 - 1)))
        ),
        lambda _: frame(PING, 0, 0, draw.randbytes(8)),
        lambda _: frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", draw.choice((0, 1, 2**31 - 1)))),
        lambda _: frame(DATA, 0, 1),
        lambda number: frame(PRIORITY, 0, 2 * number + 1, draw.randbytes(5)),
        # A call that is cancelled at once.
        lambda number: (
            frame(HEADERS, END_HEADERS, 2 * number + 1, block)
            + frame(RST_STREAM, 0, 2 * number + 1, struct.pack(">I", 8))
        ),
        lambda _: frame(CONTINUATION, 0, 1, b""),
        lambda _: frame(GOAWAY, 0, 0, draw.randbytes(8)),
    )
    kind = draw.choice(kinds)
    return _HELLO + b"".join(kind(number) for number in range(draw.randint(1, FLOOD)))


def _call(paths: Sequence[str], draw: random.Random) -> bytes:
    """A call whose message is no message: a wrong length, a wrong compression, or an end in the middle."""
    length, body = draw.choice((0, 1, 100, 5_000_000, 2**32 - 1)), draw.randbytes(draw.randint(0, 300))
    message = struct.pack(">BI", draw.choice((0, 0, 1, 7)), length) + body
    sent = _HELLO + frame(HEADERS, END_HEADERS, 1, raw_http2.block(draw.choice(paths)))
    cut = draw.randint(0, len(message))
    sent += frame(DATA, 0, 1, message[:cut]) + frame(DATA, draw.choice((0, END_STREAM)), 1, message[cut:])
    # Frames of a call that has ended, or was never begun.
    return sent + draw.choice(
        (b"", frame(DATA, 0, 1, b"x"), frame(HEADERS, END_HEADERS, 1, b"\x82"), frame(DATA, 0, 9))
    )


def _half(paths: Sequence[str], draw: random.Random) -> bytes:
    """A frame that is not complete: the connection stays half open until its client leaves."""
    whole = _HELLO + frame(HEADERS, END_HEADERS, 1, raw_http2.block(draw.choice(paths)))
    return whole[: draw.randint(1, len(whole) - 1)]


_KINDS = (_nonsense, _frames, _headers, _large_headers, _flood, _call, _half)


def bad_tls(name: str, draw: random.Random) -> bytes:
    """What one connection to a port with TLS sends: no TLS, or the beginning of a handshake with changed bytes."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = bytearray(outgoing.read())
    kind = draw.randrange(5)
    if kind == 0:
        return draw.randbytes(draw.randint(1, 2_000))
    if kind == 1:
        return _HELLO
    if kind == 2:
        return bytes(hello[: draw.randint(1, len(hello) - 1)])
    if kind == 3:
        records = (struct.pack(">BHH", draw.randrange(256), 0x0303, length) for length in (0, 1, 16_384, 65_535))
        return bytes(hello) + b"".join(record + draw.randbytes(30) for record in records)
    for _ in range(draw.randint(1, 8)):
        hello[draw.randrange(len(hello))] = draw.randrange(256)
    return bytes(hello)


async def send_bytes(port: int, data: bytes) -> bytes:
    """Sends the bytes on a connection of their own; returns what the server sends in the time that is given it."""
    answer = bytearray()
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(LISTENING):
                    writer.write(data)
                    await writer.drain()
                    while len(answer) < MOST_READ and (part := await reader.read(4_096)):
                        answer += part
        finally:
            writer.transport.abort()
    return bytes(answer)

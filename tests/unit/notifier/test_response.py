"""What is read of a response, whatever it is and however it is spread over packets."""

import asyncio
import itertools
import multiprocessing
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.response import MAX_HEAD, MAX_INTERIM, MalformedResponse, ResponseReader

PATIENCE = 60.0  # seconds for what takes milliseconds
LIMIT = 64  # bytes of the excerpt in these tests

# What was read: the status (or None), whether it was refused as malformed, the excerpt, and whether the connection
# may carry another request.
Read = tuple[int | None, bool, bytes, bool]


def read(packets: Iterable[bytes], *, closes: bool = False) -> Read:
    """What a reader makes of those packets, and of the end of the connection if it closes."""
    loop = asyncio.new_event_loop()
    try:
        reader = ResponseReader(loop, LIMIT, 1.0)
        for packet in packets:
            assert reader.feed_data(packet) == (False, b"")
        if closes:
            reader.feed_eof()
            assert reader.ended.done()
        assert len(reader.excerpt) <= LIMIT
        assert len(reader._buffer) <= MAX_HEAD
        malformed = isinstance(reader.error, MalformedResponse)
        return reader.status, malformed, bytes(reader.excerpt), reader.reusable and reader.ended.done()
    finally:
        loop.close()


def bytewise(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

RESPONSES: dict[str, tuple[bytes, Read]] = {
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", (204, False, b"", True)),
    "sized": (OK + b"Content-Length: 5\r\n\r\nhello", (200, False, b"hello", True)),
    "empty": (OK + b"Content-Length: 0\r\n\r\n", (200, False, b"", True)),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", (200, False, b"", True)),
    "chunked": (CHUNKED + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", (200, False, b"hello", True)),
    "chunked with trailers": (CHUNKED + b"2\r\nhi\r\n0\r\nA: b\r\n\r\n", (200, False, b"hi", True)),
    "interim": (CONTINUE + HINTS + OK + b"Content-Length: 0\r\n\r\n", (200, False, b"", True)),
    "empty lines before it": (b"\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n", (200, False, b"", True)),
    "not modified with a length": (b"HTTP/1.1 304 X\r\nContent-Length: 9\r\n\r\n", (304, False, b"", True)),
    "asks to close": (OK + b"Content-Length: 0\r\nConnection: Foo, Close\r\n\r\n", (200, False, b"", False)),
    "old version": (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", (200, False, b"", False)),
    "old version that keeps": (
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
        (200, False, b"", True),
    ),
    # Faulty after the status line: the status counts, and the connection is not used again.
    "no content with a body": (b"HTTP/1.1 204 No Content\r\n\r\n{}", (204, False, b"", False)),
    "no content with a length": (b"HTTP/1.1 204 X\r\nContent-Length: 2\r\n\r\n", (204, False, b"", False)),
    "a byte too many": (OK + b"Content-Length: 5\r\n\r\nhello!", (200, False, b"hello", False)),
    "another response": (b"HTTP/1.1 204 X\r\n\r\nHTTP/1.1 410 Gone\r\n\r\n", (204, False, b"", False)),
    "bad chunk": (CHUNKED + b"2\r\nhi\r\nzz\r\n", (200, False, b"hi", False)),
    "chunk too long": (CHUNKED + b"2\r\nhiho\r\n0\r\n\r\n", (200, False, b"hi", False)),
    "endless chunk size": (CHUNKED + b"2\r\nhi\r\n" + b"0" * 5_000, (200, False, b"hi", False)),
    "endless trailers": (CHUNKED + b"0\r\n" + b"A: b\r\n" * 9_000, (200, False, b"", False)),
    "endless empty-looking chunks": (CHUNKED + b"1;" + b"x" * 900 + b"\r\n", (200, False, b"", False)),
    "length twice": (OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", (200, False, b"hi", False)),
    "two lengths": (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", (200, False, b"hi", False)),
    "length and chunks": (
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        (200, False, b"hi", False),
    ),
    "no length": (OK + b"Content-Length: many\r\n\r\nhi", (200, False, b"hi", False)),
    "negative length": (OK + b"Content-Length: -1\r\n\r\nhi", (200, False, b"hi", False)),
    "until the end": (OK + b"\r\nhi", (200, False, b"hi", False)),
    "another coding": (OK + b"Transfer-Encoding: gzip\r\n\r\nhi", (200, False, b"hi", False)),
    "no header": (OK + b"no colon here\r\nContent-Length: 2\r\n\r\nhi", (200, False, b"hi", False)),
    "folded header": (OK + b"A: b\r\n c\r\nContent-Length: 2\r\n\r\nhi", (200, False, b"hi", False)),
    "bare line ends": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", (200, False, b"hi", False)),
    "long header": (OK + b"A: " + b"a" * 9_000 + b"\r\nContent-Length: 0\r\n\r\n", (200, False, b"", True)),
    "150 headers": (OK + b"A: b\r\n" * 150 + b"Content-Length: 0\r\n\r\n", (200, False, b"", True)),
    "endless header": (OK + b"A: " + b"a" * 100_000, (200, False, b"", False)),
    "endless headers": (OK + b"A: b\r\n" * 20_000, (200, False, b"", False)),
    "endless body": (OK + b"\r\n" + b"a" * 100, (200, False, b"a" * LIMIT, False)),
    "large sized body": (OK + b"Content-Length: 100\r\n\r\n" + b"a" * 100, (200, False, b"a" * LIMIT, False)),
    "large chunk": (CHUNKED + b"64\r\n" + b"a" * 100 + b"\r\n0\r\n\r\n", (200, False, b"a" * LIMIT, False)),
    "busy and a bad chunk": (
        b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        (503, False, b"", False),
    ),
    "another protocol": (b"HTTP/1.1 101 Switching\r\nUpgrade: smtp\r\n\r\n220 ", (101, False, b"", False)),
    "head cut": (OK + b"A: b", (200, False, b"", False)),
    # No final status.
    "nothing": (b"", (None, False, b"", False)),
    "status line cut": (b"HTTP/1.1 200 OK\r", (None, False, b"", False)),
    "interim only": (CONTINUE, (None, False, b"", False)),
    "ssh": (b"SSH-2.0-OpenSSH_9.6\r\n", (None, True, b"", False)),
    "no number": (b"HTTP/1.1 abc\r\n\r\n", (None, True, b"", False)),
    "short number": (b"HTTP/1.1 20 OK\r\n\r\n", (None, True, b"", False)),
    "long number": (b"HTTP/1.1 2000 OK\r\n\r\n", (None, True, b"", False)),
    "http/2": (b"HTTP/2 200 OK\r\n\r\n", (None, True, b"", False)),
    "endless status line": (b"HTTP/1.1 200 " + b"a" * 70_000, (None, True, b"", False)),
    "endless empty lines": (b"\r\n" * 40_000 + OK, (None, True, b"", False)),
    "too many interim responses": (CONTINUE * (MAX_INTERIM + 1) + OK, (None, True, b"", False)),
    "endless interim headers": (
        b"HTTP/1.1 103 X\r\n" + b"A: b\r\n" * 20_000 + b"\r\n" + OK,
        (None, True, b"", False),
    ),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_a_response_is_read_alike_in_one_packet_and_byte_by_byte(name: str) -> None:
    data, expected = RESPONSES[name]
    for packets in ([data], bytewise(data)):
        assert read(packets) == expected
        assert read(packets, closes=True) == (*expected[:3], False)


@settings(deadline=None)
@given(st.sampled_from(sorted(RESPONSES)), st.lists(st.integers(0, 400), max_size=6))
def test_where_packets_begin_changes_nothing(name: str, cuts: list[int]) -> None:
    data, expected = RESPONSES[name]
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    packets = [data[a:b] for a, b in itertools.pairwise(places) if b > a]
    assert read(packets) == expected


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(200, 299), st.booleans())
def test_whatever_follows_the_status_line_of_a_success_changes_nothing(rest: bytes, code: int, closes: bool) -> None:
    data = f"HTTP/1.1 {code} \r\n".encode() + rest
    for packets in ([data], bytewise(data)):
        assert read(packets, closes=closes)[:2] == (code, False)
    assert read([data]) == read(bytewise(data))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    assert read([data], closes=True) == read(bytewise(data), closes=True)


def test_headers_are_kept_in_their_order_whatever_their_case() -> None:
    loop = asyncio.new_event_loop()
    reader = ResponseReader(loop, LIMIT, 1.0)
    reader.feed_data(b"HTTP/1.1 503 Busy\r\nRETRY-AFTER:  5 \r\nRetry-After: soon\r\nX-Own: 1\r\n\r\n")
    assert reader.fields("Retry-After") == ["5", "soon"]
    assert reader.fields("Date") == []
    loop.close()


def test_headers_of_interim_responses_are_not_those_of_the_answer() -> None:
    loop = asyncio.new_event_loop()
    reader = ResponseReader(loop, LIMIT, 1.0)
    reader.feed_data(b"HTTP/1.1 103 X\r\nRetry-After: 5\r\nContent-Length: 4\r\n\r\n")
    reader.feed_data(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nhi")
    assert reader.fields("Retry-After") == []
    assert bytes(reader.excerpt) == b"hi"
    assert reader.reusable
    loop.close()


def test_bytes_after_a_response_close_its_connection() -> None:
    loop = asyncio.new_event_loop()
    reader = ResponseReader(loop, LIMIT, 1.0)
    reader.feed_data(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert reader.reusable
    reader.feed_data(b"{}")
    assert not reader.reusable
    assert reader.status == 204
    loop.close()


@pytest.mark.parametrize(
    "endless",
    [
        CHUNKED + b"0\r\n" + b"A: b\r\n" * 9_000,
        CHUNKED + b"0\r\n" + b"A: " + b"b" * 2_000,
        CHUNKED + b"1;" + b"x" * 2_000,
        OK + b"A: b\r\n" * 20_000,
        OK + b"\r\n" + b"a" * 2 * LIMIT,
        OK + b"Content-Length: 1000000\r\n\r\n" + b"a" * 2 * LIMIT,
        CONTINUE * 2 * MAX_INTERIM,
    ],
    ids=["trailers", "trailer", "chunk size", "headers", "body", "sized body", "interim responses"],
)
def test_an_endless_response_ends_the_reading(endless: bytes) -> None:
    for packets in ([endless], bytewise(endless)):
        loop = asyncio.new_event_loop()
        reader = ResponseReader(loop, LIMIT, 1.0)
        for packet in packets:
            reader.feed_data(packet)
        assert reader.ended.done()
        loop.close()


def test_headers_of_blanks_are_read_once() -> None:
    # An expression that divides the blanks in every way takes minutes to years over these, in the event loop. No
    # thread of the same process could stop it, so another process reads them.
    blanks = b" \t" * 10_000
    headers = [b"A: x" + blanks + b"y", b"B:" + blanks + b"\0", b"C:" + blanks + b"x" + blanks + b"\rx"]
    answers = [OK + header + b"\r\nContent-Length: 0\r\n\r\n" for header in headers]
    process = multiprocessing.get_context("spawn").Process(target=_read_all, args=(answers,), daemon=True)
    process.start()
    process.join(PATIENCE)
    ended = process.exitcode
    process.kill()
    assert ended == 0


def _read_all(answers: list[bytes]) -> None:
    assert [read([answer])[0] for answer in answers] == [200] * len(answers)

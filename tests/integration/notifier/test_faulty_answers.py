"""Answers that are faulty after their status line, or endless before it, as a receiver on a socket gives them."""

import asyncio
from datetime import timedelta

import pytest

from notifier.response import MAX_HEAD, MAX_INTERIM
from notifier.sending import Sender, Timeouts
from runtime.clock import SystemClock
from tests.support.notifier.wire import BODY, ON_THIS_MACHINE, PATIENT, post, server
from webhooks.deliveries import AttemptOutcome

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
FAULTY = {
    "204 with a body": b'HTTP/1.1 204 No Content\r\n\r\n{"ok": true}',
    "a byte beyond the length": OK + b"Content-Length: 2\r\n\r\nok!",
    "a bad chunk": OK + CHUNKED + b"2\r\nok\r\nzz\r\n",
    "length twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\nok",
    "no number": OK + b"Content-Length: many\r\n\r\nok",
    "a long header": OK + b"X-Long: " + b"a" * 9_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "a very long header": OK + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n",
    "150 headers": OK + b"X-Many: 1\r\n" * 150 + b"Content-Length: 0\r\n\r\n",
    "no colon": OK + b"no colon here\r\n\r\n",
    "garbage": OK + bytes(range(256)),
    "the end": OK,
}


async def requested(reader: asyncio.StreamReader) -> bool:
    """Reads a request; False when the connection ends instead."""
    try:
        await reader.readuntil(BODY)
    except asyncio.IncompleteReadError:
        return False
    return True


@pytest.mark.parametrize("pieces", [1, 2, 3_000], ids=["at once", "in two", "in small pieces"])
@pytest.mark.parametrize("name", FAULTY)
async def test_bytes_after_the_status_of_a_success_do_not_change_the_outcome(name: str, pieces: int) -> None:
    data = FAULTY[name]
    size = max(len(data) // pieces, 1)
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await requested(reader):
            for place in range(0, len(data), size):
                writer.write(data[place : place + size])
                await writer.drain()
                await asyncio.sleep(0)
            if name in ("the end", "two lengths"):
                return

    framed = name in ("a long header", "150 headers")
    # Some of the others have no length, so that the reading ends when its time is over.
    timeouts = PATIENT if framed else Timeouts(connect=10, headers=10, body=0.2)
    async with server(talk) as port, Sender(ON_THIS_MACHINE, timeouts, SystemClock()) as sender:
        answers = [await sender.post(f"http://127.0.0.1:{port}/", {}, BODY) for _ in range(3)]
    expected = 204 if name.startswith("204") else 200
    assert [(answer.outcome, answer.http_status) for answer in answers] == [(AttemptOutcome.DELIVERED, expected)] * 3
    assert connections == (1 if framed else 3)


@pytest.mark.parametrize(
    "rest", [CHUNKED + b"zz\r\n", b"no colon\r\nContent-Length: 1\r\n\r\n12", b"X: " + b"a" * 9_000]
)
async def test_bytes_after_another_status_do_not_change_the_outcome(rest: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 30\r\nRetry-After: 90\r\n" + rest)
        await writer.drain()

    async with server(talk) as port:
        answer = await post(f"http://127.0.0.1:{port}/")
    assert (answer.outcome, answer.http_status) == (AttemptOutcome.SERVER_ERROR, 503)
    assert answer.back_pressure
    assert answer.retry_after == timedelta(seconds=90)


async def test_bytes_that_come_late_are_not_the_next_answer() -> None:
    connections = 0
    said_more = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(BODY)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        if connections == 1:
            await answered.wait()
            writer.write(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            said_more.set()
        await reader.read()

    answered = asyncio.Event()
    async with server(talk) as port, Sender(ON_THIS_MACHINE, PATIENT, SystemClock()) as sender:
        url = f"http://127.0.0.1:{port}/"
        assert (await sender.post(url, {}, BODY)).http_status == 204
        answered.set()
        await said_more.wait()
        [idle] = [handler for handlers in sender._connector._conns.values() for handler, _ in handlers]
        async with asyncio.timeout(30):
            while True:
                if idle.should_close:  # the bytes have come
                    break
                await asyncio.sleep(0.01)
        assert (await sender.post(url, {}, BODY)).http_status == 204
    assert connections == 2


async def test_what_is_left_of_an_answer_and_meets_the_next_request_costs_no_attempt() -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(BODY)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.readuntil(BODY)
        writer.write(b"\n!\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read()

    async with server(talk) as port, Sender(ON_THIS_MACHINE, PATIENT, SystemClock()) as sender:
        answers = [await sender.post(f"http://127.0.0.1:{port}/", {}, BODY) for _ in range(2)]
    assert [answer.outcome for answer in answers] == [AttemptOutcome.DELIVERED] * 2
    assert connections == 2


ENDLESS = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "102": b"HTTP/1.1 102 Processing\r\n\r\n",
    "103 with headers": b"HTTP/1.1 103 Early Hints\r\nLink: </" + b"a" * 4_000 + b">\r\n\r\n",
    "empty lines": b"\r\n" * 4_000,
    "a status line": b"HTTP/1.1 200",
    "headers of a 103": b"HTTP/1.1 103 Early Hints\r\n" + b"X: y\r\n" * 40_000,
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_what_comes_before_the_status_without_end_is_cut_off_early(name: str) -> None:
    sent = 0
    cut = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(BODY)
        try:
            while True:
                writer.write(ENDLESS[name])
                sent += len(ENDLESS[name])
                await writer.drain()
                await asyncio.sleep(0)
        finally:
            cut.set()

    async with server(talk) as port:
        # An hour: it is the bytes and their number that end it, not the time.
        timeouts = Timeouts(connect=10, headers=3_600, body=10)
        async with asyncio.timeout(30):
            answer = await post(f"http://127.0.0.1:{port}/", timeouts=timeouts)
            await cut.wait()
    assert answer.outcome is AttemptOutcome.RESPONSE_MALFORMED
    assert answer.http_status is None
    assert sent < 16 * 1024 * 1024  # what the sockets' buffers take


async def test_as_many_interim_answers_as_are_allowed_are_passed_over() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * MAX_INTERIM
    assert len(interim) < MAX_HEAD

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(interim + b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()

    async with server(talk) as port:
        answer = await post(f"http://127.0.0.1:{port}/")
    assert answer.outcome is AttemptOutcome.DELIVERED


async def test_an_answer_that_comes_before_the_request_was_sent_closes_the_connection() -> None:
    heads: list[bytes] = []
    finished = asyncio.Event()
    large = b"a" * 64 * 1024 * 1024  # far more than the sockets' buffers take

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        await finished.wait()

    async with server(talk) as port, Sender(ON_THIS_MACHINE, PATIENT, SystemClock()) as sender:
        for body in (large, BODY):
            answer = await sender.post(f"http://127.0.0.1:{port}/", {}, body)
            assert answer.outcome is AttemptOutcome.DELIVERED
        finished.set()
    assert len(heads) == 2

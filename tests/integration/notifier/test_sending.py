"""One attempt against receivers of every kind: how it ends, in what time and with how much memory."""

import asyncio
import contextlib
import gzip
import socket
from datetime import timedelta

import pytest
from aiohttp import web

from notifier.request_headers import HEADERS
from notifier.sending import MAX_EXCERPT, Answer, Sender, Timeouts, printable
from runtime.clock import SystemClock
from tests.support.notifier.receiver import Arrival, Receiver, status
from tests.support.notifier.wire import (
    BODY,
    IMPATIENT,
    ON_THIS_MACHINE,
    PATIENT,
    after_request,
    never_answers,
    post,
    server,
)
from webhooks.deliveries import AttemptOutcome


async def test_the_request_carries_what_a_receiver_needs_and_nothing_of_this_machine(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    answer = await post(receiver.url)
    assert answer == Answer(AttemptOutcome.DELIVERED, 204, remote_address="127.0.0.1")
    [arrival] = receiver.arrivals
    assert arrival.body == BODY
    host = receiver.url.removeprefix("http://").removesuffix("/hook")
    assert arrival.headers == {
        "host": host,
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(BODY)),
        "user-agent": "Tidemark-Webhooks/1",
        "webhook-id": "ntf_1",
    }


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (200, AttemptOutcome.DELIVERED),
        (202, AttemptOutcome.DELIVERED),
        (299, AttemptOutcome.DELIVERED),
        (300, AttemptOutcome.REDIRECTED),
        (301, AttemptOutcome.REDIRECTED),
        (302, AttemptOutcome.REDIRECTED),
        (303, AttemptOutcome.REDIRECTED),
        (304, AttemptOutcome.REDIRECTED),
        (307, AttemptOutcome.REDIRECTED),
        (308, AttemptOutcome.REDIRECTED),
        (400, AttemptOutcome.REJECTED),
        (404, AttemptOutcome.REJECTED),
        (410, AttemptOutcome.GONE),
        (429, AttemptOutcome.THROTTLED),
        (500, AttemptOutcome.SERVER_ERROR),
        (503, AttemptOutcome.SERVER_ERROR),
        (999, AttemptOutcome.SERVER_ERROR),
    ],
)
async def test_status_code_decides_the_outcome_of_an_attempt(
    receiver: Receiver, code: int, outcome: AttemptOutcome
) -> None:
    receiver.answer(status(code, headers={"Location": receiver.url + "/elsewhere"}))
    answer = await post(receiver.url)
    assert (answer.outcome, answer.http_status) == (outcome, code)
    assert bool(answer.error) == (outcome is not AttemptOutcome.DELIVERED)
    assert [arrival.path for arrival in receiver.arrivals] == ["/hook"]


async def test_retry_after_is_read(receiver: Receiver) -> None:
    receiver.answer(status(503, headers={"Retry-After": "90"}))
    assert (await post(receiver.url)).retry_after == timedelta(seconds=90)


async def test_a_date_to_retry_after_is_read_by_the_receivers_own_clock() -> None:
    wrong = b"Date: Sun, 15 Mar 2020 12:00:00 GMT\r\nRetry-After: Sun, 15 Mar 2020 12:01:30 GMT\r\n"
    async with server(after_request(b"HTTP/1.1 503 Busy\r\n" + wrong + b"Content-Length: 0\r\n\r\n")) as port:
        answer = await post(f"http://127.0.0.1:{port}/")
    assert answer.retry_after == timedelta(seconds=90)


async def test_no_cookie_is_kept(receiver: Receiver) -> None:
    receiver.answer(status(204, headers={"Set-Cookie": "session=1"}))
    async with Sender(ON_THIS_MACHINE, PATIENT, SystemClock()) as sender:
        for _ in range(2):
            await sender.post(receiver.url, {}, BODY)
    assert "cookie" not in receiver.arrivals[1].headers


async def test_a_connection_serves_several_attempts(receiver: Receiver) -> None:
    async with Sender(ON_THIS_MACHINE, PATIENT, SystemClock()) as sender:
        for _ in range(3):
            await sender.post(receiver.url, {}, BODY)
    assert len({arrival.peer for arrival in receiver.arrivals}) == 1


async def test_a_receiver_that_never_answers() -> None:
    async with server(never_answers) as port:
        answer = await post(f"http://127.0.0.1:{port}/", timeouts=IMPATIENT)
    assert answer.outcome is AttemptOutcome.RESPONSE_TIMED_OUT
    assert answer.error == "no answer in time"


async def test_an_attempt_that_fails_over_a_kept_connection_has_its_address() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await asyncio.Event().wait()

    async with server(talk) as port, Sender(ON_THIS_MACHINE, IMPATIENT, SystemClock()) as sender:
        answers = [await sender.post(f"http://127.0.0.1:{port}/", {}, BODY) for _ in range(2)]
    assert [answer.outcome for answer in answers] == [AttemptOutcome.DELIVERED, AttemptOutcome.RESPONSE_TIMED_OUT]
    assert [answer.remote_address for answer in answers] == ["127.0.0.1", "127.0.0.1"]


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(200, AttemptOutcome.DELIVERED), (503, AttemptOutcome.SERVER_ERROR), (410, AttemptOutcome.GONE)],
)
async def test_a_receiver_that_sends_its_headers_a_drop_at_a_time_has_said_its_status(
    code: int, outcome: AttemptOutcome
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(b"HTTP/1.1 %d OK\r\n" % code)
        while True:
            writer.write(b"X-Drop: 1\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with server(talk) as port:
        answer = await post(f"http://127.0.0.1:{port}/", timeouts=IMPATIENT)
    assert (answer.outcome, answer.http_status) == (outcome, code)


async def test_the_status_of_a_success_ends_the_wait_for_the_headers() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(b"HTTP/1.1 200 OK\r\n")
        await reader.read()

    timeouts = Timeouts(connect=10, headers=3_600, body=0.2)
    async with asyncio.timeout(30), server(talk) as port:
        answer = await post(f"http://127.0.0.1:{port}/", timeouts=timeouts)
    assert answer.outcome is AttemptOutcome.DELIVERED


async def test_a_receiver_that_sends_interim_responses_only_times_out() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        while True:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with server(talk) as port:
        answer = await post(f"http://127.0.0.1:{port}/", timeouts=IMPATIENT)
    assert answer.outcome is AttemptOutcome.RESPONSE_TIMED_OUT


async def test_an_interim_response_is_not_the_answer() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    async with server(after_request(interim + b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")) as port:
        answer = await post(f"http://127.0.0.1:{port}/")
    assert (answer.http_status, answer.response_excerpt) == (503, "busy")


async def test_a_receiver_that_wants_another_protocol_gets_none() -> None:
    async with server(after_request(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: smtp\r\n\r\n220 ")) as port:
        answer = await post(f"http://127.0.0.1:{port}/")
    assert (answer.outcome, answer.http_status) == (AttemptOutcome.SERVER_ERROR, 101)


async def test_what_a_receiver_says_beyond_its_answer_is_not_the_next_ones_answer() -> None:
    served = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        while True:
            await reader.readuntil(BODY)
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")

    async with server(talk) as port, Sender(ON_THIS_MACHINE, PATIENT, SystemClock()) as sender:
        answers = [await sender.post(f"http://127.0.0.1:{port}/", HEADERS, BODY) for _ in range(3)]
    assert [answer.http_status for answer in answers] == [204, 204, 204]
    assert served == 3


@pytest.mark.parametrize("value", ["a\r\nHost: b", "a\nb", "a\rb", "a\0b", "a\x7fb"])
async def test_no_header_can_begin_another_one(receiver: Receiver, value: str) -> None:
    async with Sender(ON_THIS_MACHINE, PATIENT, SystemClock()) as sender:
        for headers in ({"X-Own": value}, {value: "own"}):
            answer = await sender.post(receiver.url, headers, BODY)
            assert answer.outcome is AttemptOutcome.CONNECTION_FAILED
            assert answer.error == "a header holds a control character"
    assert receiver.arrivals == []


async def test_a_receiver_that_does_not_even_read_is_cut_off() -> None:
    received = 0
    end = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal received
        await timed_out.wait()
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65_536):
                received += len(chunk)
        end.set()

    timed_out = asyncio.Event()
    body = b"a" * 64 * 1024 * 1024  # far more than the sockets' buffers take
    async with server(talk) as port, Sender(ON_THIS_MACHINE, IMPATIENT, SystemClock()) as sender:
        answer = await sender.post(f"http://127.0.0.1:{port}/", HEADERS, body)
        timed_out.set()
        await end.wait()
    assert answer.outcome is AttemptOutcome.RESPONSE_TIMED_OUT
    assert received < len(body)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 20", b"HTTP/1.1 100 Continue\r\n\r\n", b"no HTTP\r\n"])
async def test_an_attempt_that_fails_on_a_new_connection_is_posted_once(answer: bytes) -> None:
    served = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await after_request(answer)(reader, writer)

    async with server(talk) as port:
        got = await post(f"http://127.0.0.1:{port}/")
    malformed = answer.startswith(b"no")
    assert got.outcome is (AttemptOutcome.RESPONSE_MALFORMED if malformed else AttemptOutcome.CONNECTION_LOST)
    assert served == 1


async def test_a_kept_connection_that_is_lost_within_an_answer_is_posted_once() -> None:
    requests = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        for answer in (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n"):
            await reader.readuntil(BODY)
            requests += 1
            writer.write(answer)

    async with server(talk) as port, Sender(ON_THIS_MACHINE, PATIENT, SystemClock()) as sender:
        answers = [await sender.post(f"http://127.0.0.1:{port}/", {}, BODY) for _ in range(2)]
    assert [answer.outcome for answer in answers] == [AttemptOutcome.DELIVERED, AttemptOutcome.CONNECTION_LOST]
    assert requests == 2


async def test_a_receiver_that_loses_each_connection_gets_a_post_twice_at_the_most() -> None:
    requests = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(BODY)
        requests += 1
        if requests == 1:
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await reader.readuntil(BODY)
            requests += 1

    async with server(talk) as port, Sender(ON_THIS_MACHINE, PATIENT, SystemClock()) as sender:
        answers = [await sender.post(f"http://127.0.0.1:{port}/", {}, BODY) for _ in range(2)]
    assert [answer.outcome for answer in answers] == [AttemptOutcome.DELIVERED, AttemptOutcome.CONNECTION_LOST]
    assert requests == 3


async def test_a_connection_reset_before_the_answer() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async with server(talk) as port:
        answer = await post(f"http://127.0.0.1:{port}/")
    assert answer.outcome is AttemptOutcome.CONNECTION_LOST


async def test_an_idle_connection_that_the_receiver_closes_costs_no_attempt() -> None:
    served = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await reader.readuntil(BODY)
        served += 1
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.readuntil(BODY)  # the second request comes over the kept connection, and gets no answer

    async with server(talk) as port, Sender(ON_THIS_MACHINE, PATIENT, SystemClock()) as sender:
        answers = [await sender.post(f"http://127.0.0.1:{port}/", {}, BODY) for _ in range(2)]
    assert [answer.outcome for answer in answers] == [AttemptOutcome.DELIVERED, AttemptOutcome.DELIVERED]
    assert served == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 " + b"a" * 100_000,
        b"\r\n" * 100_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
    ],
    ids=["ssh", "status", "long status", "empty lines", "interim"],
)
async def test_an_answer_that_is_not_http(answer: bytes) -> None:
    async with server(after_request(answer)) as port:
        got = await post(f"http://127.0.0.1:{port}/")
    assert got.outcome is AttemptOutcome.RESPONSE_MALFORMED
    assert 0 < len(got.error) <= 500


async def test_an_endless_body_is_cut() -> None:
    sent = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(BODY)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b"a" * 65_536)
            sent += 65_536
            await writer.drain()

    async with server(talk) as port:
        answer = await post(f"http://127.0.0.1:{port}/")
    assert answer.outcome is AttemptOutcome.DELIVERED
    assert answer.response_excerpt == "a" * MAX_EXCERPT
    assert sent < 64 * 1024 * 1024  # what the sockets' buffers take


async def test_a_body_that_never_ends_in_coming_does_not_undo_the_success() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await asyncio.Event().wait()

    async with server(talk) as port:
        answer = await post(f"http://127.0.0.1:{port}/", timeouts=IMPATIENT)
    assert (answer.outcome, answer.response_excerpt) == (AttemptOutcome.DELIVERED, "half")


async def test_a_connection_lost_in_the_body_does_not_undo_the_success() -> None:
    async with server(after_request(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")) as port:
        answer = await post(f"http://127.0.0.1:{port}/")
    assert answer.outcome is AttemptOutcome.DELIVERED


async def test_a_compressed_body_is_not_unpacked(receiver: Receiver) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)

    async def answer(_: Arrival) -> web.StreamResponse:
        return web.Response(status=500, body=bomb, headers={"Content-Encoding": "gzip"})

    receiver.answer(answer)
    got = await post(receiver.url)
    assert got.outcome is AttemptOutcome.SERVER_ERROR
    assert len(got.response_excerpt.encode()) <= MAX_EXCERPT
    assert got.response_excerpt.startswith("\x1f�")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"plain", "plain"),
        ("größe".encode(), "größe"),
        (b"a\0b", "a�b"),
        (b"\xff\xfe", "��"),
        (b"\xed\xa0\x80", "���"),
        (b"\xe2\x82", "�"),
    ],
)
def test_the_stored_excerpt_is_always_text(data: bytes, text: str) -> None:
    assert printable(data) == text


def test_replaced_bytes_do_not_exceed_the_limit() -> None:
    text = printable(b"\xff" * MAX_EXCERPT)
    assert MAX_EXCERPT - 3 <= len(text.encode()) <= MAX_EXCERPT

"""One attempt against receivers of every kind: how it ends, in what time and with how much memory."""

import asyncio
import gzip
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from notifier.sending import MAX_EXCERPT, Answer, Sender, Timeouts, printable
from runtime.clock import SystemClock
from runtime.targets import TargetPolicy
from store.deliveries import Outcome
from tests.integration.notifier.receiver import Arrival, Receiver, status

ON_THIS_MACHINE = TargetPolicy(allow_http=True, allow_networks=(ipaddress.ip_network("127.0.0.0/8"),))
PATIENT = Timeouts(connect=10, headers=10, body=10)
IMPATIENT = Timeouts(connect=0.2, headers=0.2, body=0.2)
BODY = b'{"id": "ntf_1"}'

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def post(url: str, *, policy: TargetPolicy = ON_THIS_MACHINE, timeouts: Timeouts = PATIENT) -> Answer:
    async with Sender(policy, timeouts, SystemClock()) as sender:
        return await sender.post(url, {"webhook-id": "ntf_1"}, BODY)


@asynccontextmanager
async def server(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A TCP server on 127.0.0.1 that speaks whatever `talk` writes; yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


def after_request(answer: bytes) -> Talk:
    """Reads the request, writes `answer` and closes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(answer)
        await writer.drain()

    return talk


async def never_answers(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.readuntil(BODY)
    await asyncio.Event().wait()


async def test_the_request_carries_what_a_receiver_needs_and_nothing_of_this_machine(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    answer = await post(receiver.url)
    assert answer == Answer(Outcome.DELIVERED, 204)
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
        (200, Outcome.DELIVERED),
        (202, Outcome.DELIVERED),
        (299, Outcome.DELIVERED),
        (300, Outcome.REDIRECTED),
        (301, Outcome.REDIRECTED),
        (302, Outcome.REDIRECTED),
        (303, Outcome.REDIRECTED),
        (304, Outcome.REDIRECTED),
        (307, Outcome.REDIRECTED),
        (308, Outcome.REDIRECTED),
        (400, Outcome.REJECTED),
        (404, Outcome.REJECTED),
        (410, Outcome.GONE),
        (429, Outcome.THROTTLED),
        (500, Outcome.SERVER_ERROR),
        (503, Outcome.SERVER_ERROR),
        (999, Outcome.SERVER_ERROR),
    ],
)
async def test_the_status_decides(receiver: Receiver, code: int, outcome: Outcome) -> None:
    receiver.answer(status(code, headers={"Location": receiver.url + "/elsewhere"}))
    answer = await post(receiver.url)
    assert (answer.outcome, answer.http_status) == (outcome, code)
    assert bool(answer.error) == (outcome is not Outcome.DELIVERED)
    assert [arrival.path for arrival in receiver.arrivals] == ["/hook"]


async def test_retry_after_is_read(receiver: Receiver) -> None:
    receiver.answer(status(503, headers={"Retry-After": "90"}))
    assert (await post(receiver.url)).retry_after == timedelta(seconds=90)


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


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://0x7f.1:{port}/",
        "http://①②⑦.0.0.1:{port}/",
    ],
)
async def test_a_private_address_is_refused_however_it_is_written(receiver: Receiver, url: str) -> None:
    port = receiver.url.split(":")[2].removesuffix("/hook")
    answer = await post(url.format(port=port), policy=TargetPolicy(allow_http=True))
    assert answer.outcome is Outcome.ADDRESS_REFUSED
    assert "is not a public address" in answer.error
    assert receiver.arrivals == []


async def test_a_name_with_a_private_and_a_reachable_answer_uses_the_reachable_one(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers_with(monkeypatch, "10.0.0.1", "127.0.0.1")
    answer = await post(receiver.url.replace("127.0.0.1", "hooks.example.com"))
    assert answer.outcome is Outcome.DELIVERED


async def test_a_name_with_only_private_answers_is_refused(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers_with(monkeypatch, "10.0.0.1", "192.168.0.1")
    answer = await post(receiver.url.replace("127.0.0.1", "hooks.example.com"))
    assert answer.outcome is Outcome.ADDRESS_REFUSED
    assert "10.0.0.1 is not" in answer.error
    assert "192.168.0.1 is not" in answer.error


async def test_a_name_that_moves_to_a_private_address_is_refused_then(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.always_answer(status(204, headers={"Connection": "close"}))
    url = receiver.url.replace("127.0.0.1", "hooks.example.com")
    answers_with(monkeypatch, "127.0.0.1")
    assert (await post(url)).outcome is Outcome.DELIVERED
    answers_with(monkeypatch, "10.0.0.1")
    assert (await post(url)).outcome is Outcome.ADDRESS_REFUSED


def answers_with(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Makes hooks.example.com resolve to `addresses`."""

    async def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        # uvloop asks once more for the address that it is told to connect to.
        found = addresses if host == "hooks.example.com" else (host,)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)


async def test_a_name_that_does_not_exist() -> None:
    answer = await post("http://nowhere.invalid/")
    assert answer.outcome is Outcome.NAME_NOT_RESOLVED


async def test_a_name_that_cannot_exist() -> None:
    answer = await post(f"http://{'a' * 64}.example/")
    assert answer.outcome is Outcome.NAME_NOT_RESOLVED


async def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answer = await post(f"http://127.0.0.1:{port}/")
    assert answer.outcome is Outcome.CONNECTION_FAILED


async def test_a_host_that_does_not_take_the_connection() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        async with asyncio.timeout(30):
            # The backlog takes a connection or two; after that the handshake gets no answer.
            waiting = [asyncio.create_task(asyncio.open_connection("127.0.0.1", port)) for _ in range(3)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            answer = await post(f"http://127.0.0.1:{port}/", timeouts=IMPATIENT)
            for task in waiting:
                task.cancel()
            for result in await asyncio.gather(*waiting, return_exceptions=True):
                if not isinstance(result, BaseException):
                    result[1].close()
    assert answer.outcome is Outcome.CONNECTION_TIMED_OUT
    assert answer.error == "no connection in time"


async def test_a_receiver_that_never_answers() -> None:
    async with server(never_answers) as port:
        answer = await post(f"http://127.0.0.1:{port}/", timeouts=IMPATIENT)
    assert answer.outcome is Outcome.RESPONSE_TIMED_OUT
    assert answer.error == "no answer in time"


async def test_a_receiver_that_sends_its_headers_a_drop_at_a_time() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-Drop: 1\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with server(talk) as port:
        answer = await post(f"http://127.0.0.1:{port}/", timeouts=IMPATIENT)
    assert answer.outcome is Outcome.RESPONSE_TIMED_OUT


async def test_a_receiver_that_only_ever_says_continue() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        while True:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with server(talk) as port:
        answer = await post(f"http://127.0.0.1:{port}/", timeouts=IMPATIENT)
    assert answer.outcome is Outcome.RESPONSE_TIMED_OUT


async def test_a_connection_closed_before_the_answer() -> None:
    async with server(after_request(b"")) as port:
        answer = await post(f"http://127.0.0.1:{port}/")
    assert answer.outcome is Outcome.CONNECTION_LOST


async def test_a_connection_reset_before_the_answer() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async with server(talk) as port:
        answer = await post(f"http://127.0.0.1:{port}/")
    assert answer.outcome is Outcome.CONNECTION_LOST


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
    assert [answer.outcome for answer in answers] == [Outcome.DELIVERED, Outcome.DELIVERED]
    assert served == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    ],
    ids=["ssh", "status", "header", "long header", "length"],
)
async def test_an_answer_that_is_not_http(answer: bytes) -> None:
    async with server(after_request(answer)) as port:
        got = await post(f"http://127.0.0.1:{port}/")
    assert got.outcome is Outcome.RESPONSE_MALFORMED
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
    assert answer.outcome is Outcome.DELIVERED
    assert answer.response_excerpt == "a" * MAX_EXCERPT
    assert sent < 64 * 1024 * 1024  # what the sockets' buffers take


async def test_a_body_that_never_ends_in_coming_does_not_undo_the_success() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await asyncio.Event().wait()

    async with server(talk) as port:
        answer = await post(f"http://127.0.0.1:{port}/", timeouts=IMPATIENT)
    assert (answer.outcome, answer.response_excerpt) == (Outcome.DELIVERED, "half")


async def test_a_connection_lost_in_the_body_does_not_undo_the_success() -> None:
    async with server(after_request(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")) as port:
        answer = await post(f"http://127.0.0.1:{port}/")
    assert answer.outcome is Outcome.DELIVERED


async def test_a_compressed_body_is_not_unpacked(receiver: Receiver) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)

    async def answer(_: Arrival) -> web.StreamResponse:
        return web.Response(status=500, body=bomb, headers={"Content-Encoding": "gzip"})

    receiver.answer(answer)
    got = await post(receiver.url)
    assert got.outcome is Outcome.SERVER_ERROR
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
def test_what_is_stored_is_always_text(data: bytes, text: str) -> None:
    assert printable(data) == text


def test_replaced_bytes_do_not_exceed_the_limit() -> None:
    text = printable(b"\xff" * MAX_EXCERPT)
    assert MAX_EXCERPT - 3 <= len(text.encode()) <= MAX_EXCERPT


async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    async with server(after_request(b"HTTP/1.1 204 No Content\r\n\r\n"), self_signed(tmp_path)) as port:
        answer = await post(f"https://127.0.0.1:{port}/")
    assert answer.outcome is Outcome.TLS_FAILED
    assert "certificate" in answer.error.lower()


async def test_a_receiver_that_speaks_no_tls() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with server(talk) as port:
        answer = await post(f"https://127.0.0.1:{port}/")
    assert answer.outcome is Outcome.TLS_FAILED


async def test_a_tls_handshake_that_gets_no_answer() -> None:
    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await asyncio.Event().wait()

    async with server(talk) as port:
        answer = await post(f"https://127.0.0.1:{port}/", timeouts=IMPATIENT)
    assert answer.outcome is Outcome.CONNECTION_TIMED_OUT


def self_signed(directory: Path) -> ssl.SSLContext:
    """TLS with a certificate for 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "certificate.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context

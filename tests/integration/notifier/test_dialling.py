"""The way to a receiver: addresses that are refused, names, connections and TLS."""

import asyncio
import ipaddress
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.notifier.receiver import Receiver, status
from tests.support.notifier.wire import IMPATIENT, after_request, post, server
from webhooks.deliveries import AttemptOutcome
from webhooks.url_policy import UrlPolicy


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
    answer = await post(url.format(port=port), policy=UrlPolicy(allow_http=True))
    assert answer.outcome is AttemptOutcome.ADDRESS_REFUSED
    assert "is not a public address" in answer.error
    assert receiver.arrivals == []


async def test_a_name_with_a_private_and_a_reachable_answer_uses_the_reachable_one(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers_with(monkeypatch, "10.0.0.1", "127.0.0.1")
    answer = await post(receiver.url.replace("127.0.0.1", "hooks.example.com"))
    assert answer.outcome is AttemptOutcome.DELIVERED


async def test_a_name_with_only_private_answers_is_refused(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers_with(monkeypatch, "10.0.0.1", "192.168.0.1")
    answer = await post(receiver.url.replace("127.0.0.1", "hooks.example.com"))
    assert answer.outcome is AttemptOutcome.ADDRESS_REFUSED
    assert "10.0.0.1 is not" in answer.error
    assert "192.168.0.1 is not" in answer.error


async def test_a_name_that_moves_to_a_private_address_is_refused_then(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.always_answer(status(204, headers={"Connection": "close"}))
    url = receiver.url.replace("127.0.0.1", "hooks.example.com")
    answers_with(monkeypatch, "127.0.0.1")
    assert (await post(url)).outcome is AttemptOutcome.DELIVERED
    answers_with(monkeypatch, "10.0.0.1")
    assert (await post(url)).outcome is AttemptOutcome.ADDRESS_REFUSED


def answers_with(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Makes hooks.example.com resolve to `addresses`."""

    async def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        # uvloop resolves the address again that it is given to connect to.
        found = addresses if host == "hooks.example.com" else (host,)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)


async def test_a_name_that_does_not_exist() -> None:
    answer = await post("http://nowhere.invalid/")
    assert answer.outcome is AttemptOutcome.NAME_NOT_RESOLVED


async def test_a_name_that_cannot_exist() -> None:
    answer = await post(f"http://{'a' * 64}.example/")
    assert answer.outcome is AttemptOutcome.NAME_NOT_RESOLVED


async def test_a_closed_port_fails_the_attempt() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answer = await post(f"http://127.0.0.1:{port}/")
    assert answer.outcome is AttemptOutcome.CONNECTION_FAILED


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
    assert answer.outcome is AttemptOutcome.CONNECTION_TIMED_OUT
    assert answer.error == "no connection in time"


async def test_an_untrusted_certificate_fails_the_attempt(tmp_path: Path) -> None:
    async with server(after_request(b"HTTP/1.1 204 No Content\r\n\r\n"), self_signed(tmp_path)) as port:
        answer = await post(f"https://127.0.0.1:{port}/")
    assert answer.outcome is AttemptOutcome.TLS_FAILED
    assert "certificate" in answer.error.lower()


async def test_a_receiver_that_speaks_no_tls() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with server(talk) as port:
        answer = await post(f"https://127.0.0.1:{port}/")
    assert answer.outcome is AttemptOutcome.TLS_FAILED


async def test_a_tls_handshake_that_gets_no_answer() -> None:
    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await asyncio.Event().wait()

    async with server(talk) as port:
        answer = await post(f"https://127.0.0.1:{port}/", timeouts=IMPATIENT)
    assert answer.outcome is AttemptOutcome.CONNECTION_TIMED_OUT


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

"""The connections of the console: many that say nothing, forms that do not end, bytes that are no HTTP."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from console.process import Listening, Server, running
from runtime import http_listening
from runtime.clock import SystemClock
from runtime.http_connections import ConnectionLimits
from tests.support.console.fake_server import EXPLAIN, KEY, one_key
from tests.support.console.stage import Visitor
from tests.support.server.certificates import Authority

MOST = 6
FORM = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n"
HEADERS = ("content-security-policy", "x-content-type-options", "x-frame-options", "cache-control", "referrer-policy")


@pytest.fixture
async def target() -> AsyncIterator[str]:
    """The target of a server."""
    async with one_key(KEY) as found:
        yield found


async def signed_in(port: int, session: aiohttp.ClientSession, scheme: str = "http") -> Visitor:
    """Somebody who has signed in."""
    visitor = Visitor(f"{scheme}://localhost:{port}", session)
    assert (await visitor.sign_in(KEY)).status == 303
    return visitor


@pytest.mark.parametrize("ending", [b"", b"\r\n"], ids=["slow heads", "slow forms"])
async def test_who_is_signed_in_gets_pages_while_many_others_are_slow(target: str, ending: bytes) -> None:
    listening = Listening("127.0.0.1", 0)
    async with (
        running(Server(target), listening, SystemClock(), most=MOST) as port,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
    ):
        visitor = await signed_in(port, session)
        cookie = next(iter(session.cookie_jar))
        head = f"POST /signin HTTP/1.1\r\nHost: localhost:{port}\r\nCookie: {cookie.key}={cookie.value}\r\n".encode()
        slow = []
        for _ in range(4):
            for _ in range(MOST):
                slow.append(await asyncio.open_connection("127.0.0.1", port))
                slow[-1][1].write(head + FORM + ending)
            assert (await visitor.get(EXPLAIN)).status == 200
        for _, writer in slow:
            writer.transport.abort()


async def test_with_tls_many_handshakes_that_do_not_end_keep_nobody_out(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_listening, "HANDSHAKES", MOST)
    authority = Authority()
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    authority.server().write(certificate, key)
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=authority.pem.decode()))
    async with (
        running(Server(target), Listening("127.0.0.1", 0, certificate, key), SystemClock()) as port,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), connector=connector) as session,
    ):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2 * MOST)]
        visitor = await signed_in(port, session, "https")
        assert (await visitor.get(EXPLAIN)).status == 200
        for reader, writer in silent[:MOST]:
            assert await reader.read() == b"", "the oldest ones have ended"
            writer.close()
        silent[-1][1].write(b"no handshake\r\n\r\n")
        await silent[-1][0].read()
        for _, writer in silent[MOST:]:
            writer.transport.abort()


async def test_a_form_that_does_not_end_is_answered(target: str) -> None:
    limits = ConnectionLimits(body=0.2, linger=0.1)
    async with (
        running(Server(target), Listening("127.0.0.1", 0), SystemClock(), limits=limits) as port,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
    ):
        await signed_in(port, session)
        cookie = next(iter(session.cookie_jar))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"POST /signin HTTP/1.1\r\nHost: localhost:{port}\r\nCookie: {cookie.key}={cookie.value}\r\n".encode()
            + FORM
            + b"\r\ncsrf=a"
        )
        answer = (await reader.read()).decode()
        assert answer.startswith("HTTP/1.1 408 ")
        assert "The form came too slowly" in answer
        writer.close()


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\nhidden\r\n", 400),
        (b"Content-Encoding: gzip\r\nContent-Length: 6\r\n\r\nhidden", 403),
        (b"Content-Length: 100\r\n\r\nhidden", None),
    ],
    ids=["no chunks", "not compressed", "left"],
)
async def test_a_body_that_is_broken_is_no_fault_of_the_console(
    target: str, rest: bytes, status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        running(Server(target), Listening("127.0.0.1", 0), SystemClock()) as port,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
    ):
        await signed_in(port, session)
        cookie = next(iter(session.cookie_jar))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /signin HTTP/1.1\r\nHost: localhost:{port}\r\nCookie: {cookie.key}={cookie.value}\r\n"
        writer.write(head.encode() + FORM.partition(b"\r\n")[0] + b"\r\n" + rest)
        if status is not None:
            assert f" {status} ".encode() in await reader.readline()
        writer.close()
    assert "hidden" not in caplog.text
    assert not [one for one in caplog.records if one.levelname in ("WARNING", "ERROR")], caplog.text


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\r\n\r\n", 400),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"TRACE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 303),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 303),
        (b"GET /x HTTP/1.1\r\nHost: localhost\r\nExpect: more\r\nConnection: close\r\n\r\n", 417),
        (b"GET /signin HTTP/1.0\r\n\r\n", 200),
        (b"GET /static/x/y HTTP/1.0\r\n\r\n", 404),
    ],
)
async def test_every_answer_has_the_headers_and_none_names_its_library(target: str, said: bytes, status: int) -> None:
    async with running(Server(target), Listening("127.0.0.1", 0), SystemClock()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        head = (await reader.read()).partition(b"\r\n\r\n")[0].decode().lower()
        writer.close()
    assert head[len("http/1.1 ") :].startswith(f"{status} "), head
    assert "\r\nserver: tidemark\r\n" in f"{head}\r\n"
    for name in HEADERS:
        assert f"\r\n{name}: " in head, name
    assert "aiohttp" not in head

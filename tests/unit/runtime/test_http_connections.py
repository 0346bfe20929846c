"""The connections of an HTTP port: clients that are slow, silent or many, and bytes that are no HTTP."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from runtime.http_connections import BoundedServer, ConnectionLimits, bounded
from runtime.http_listening import listen
from tests.support.waiting import within

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LARGE = 30_000_000  # bytes; more than the buffers of sockets take
MOST = 4


@dataclass
class Port:
    """A port with a page. held: requests that wait until `go` is set."""

    server: BoundedServer
    port: int
    held: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    go: asyncio.Event = field(default_factory=asyncio.Event)
    clients: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self, said: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that has said this, when the server knows it."""
        before = self.server.number_open
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.clients.append(writer)
        writer.write(said)
        async with within("the connection"):
            while self.server.number_open == before < MOST:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        return reader, writer

    async def get(self) -> bytes:
        """The status of the page for a new client."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(GET)
        try:
            return await reader.readline()
        finally:
            writer.close()

    async def number_is(self, number: int) -> None:
        """Waits until so many connections are open."""
        async with within(f"{number} connections"):
            while self.server.number_open != number:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@asynccontextmanager
async def opened(limits: ConnectionLimits, most: int = MOST) -> AsyncIterator[Port]:
    """A port with these limits."""

    async def page(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text="here")

    async def hold(request: web.Request) -> web.Response:
        found.held.release()
        await found.go.wait()
        return web.Response(text="at last")

    async def large(request: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE))

    async def fail(request: web.Request) -> web.Response:
        raise ZeroDivisionError

    application = web.Application()
    for path, handler in (("/", page), ("/hold", hold), ("/large", large), ("/fail", fail)):
        application.router.add_route("*", path, handler)
    logger = logging.getLogger("tests.http_connections")
    async with bounded(application, limits, most=most, logger=logger, shutdown_timeout=1.0) as server:
        listening = await listen(server, "127.0.0.1", 0)
        found = Port(server, listening.port)
        try:
            yield found
        finally:
            found.go.set()
            for writer in found.clients:
                writer.transport.abort()
            listening.close()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: loc",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
        b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["silent", "slow head", "slow body", "does not read"],
)
async def test_many_clients_that_wait_keep_nobody_out(said: bytes) -> None:
    async with opened(ConnectionLimits()) as port:
        for _ in range(5 * MOST):
            await port.connect(said)
        assert port.server.number_open <= MOST
        async with within("the page"):
            assert await port.get() == b"HTTP/1.1 200 OK\r\n"


async def test_who_waits_for_the_server_keeps_the_place_and_one_more_is_refused() -> None:
    async with opened(ConnectionLimits()) as port:
        served = [await port.connect(GET.replace(b"/", b"/hold", 1)) for _ in range(MOST)]
        async with within("the requests"):
            for _ in range(MOST):
                await port.held.acquire()
        with contextlib.suppress(ConnectionResetError):
            assert await port.get() == b""
        port.go.set()
        for reader, writer in served:
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            writer.close()
        await port.number_is(0)
        assert await port.get() == b"HTTP/1.1 200 OK\r\n"


async def test_of_clients_that_wait_the_one_that_waits_longest_loses_its_place() -> None:
    async with opened(ConnectionLimits()) as port:
        clients = [await port.connect() for _ in range(MOST)]
        clients[0][1].write(GET)  # it waits since its answer, which is later than that of the others
        assert await clients[0][0].readline() == b"HTTP/1.1 200 OK\r\n"
        for _ in range(MOST - 1):
            await port.connect()
        clients[0][1].write(GET)
        rest = await clients[0][0].readuntil(b"here")
        assert b"200 OK" not in rest
        assert await clients[0][0].readline() == b"HTTP/1.1 200 OK\r\n"
        with contextlib.suppress(ConnectionResetError):
            assert await clients[1][0].read() == b""


async def test_a_client_that_is_too_slow_loses_its_connection() -> None:
    async with opened(ConnectionLimits(idle=0.2, linger=0.1)) as port:
        for said in (b"", b"GET / HTTP/1.1\r\nHost: loc"):
            reader, _ = await port.connect(said)
            async with within("the end of the connection"):
                assert await reader.read() == b""


async def test_an_answer_that_is_not_taken_does_not_keep_its_connection() -> None:
    """Also one that fits into the buffers, of a connection that the server has closed: nothing else would end it."""
    for path, limits in (
        (b"/large", ConnectionLimits(write=0.2, linger=0.1)),
        (b"/", ConnectionLimits(idle=0.2, linger=0.1)),
    ):
        async with opened(limits) as port:
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                client.connect(("127.0.0.1", port.port))
                client.sendall(GET.replace(b"/", path, 1))
                await port.number_is(1)
                await port.number_is(0)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nCookie: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /fail HTTP/1.1\r\nHost: localhost\r\n\r\n", 500),
    ],
)
async def test_what_is_no_request_is_answered_with_the_headers_of_all_answers_and_not_logged(
    said: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(ConnectionLimits()) as port:
        reader, _ = await port.connect(said)
        async with within("the answer"):
            answer = (await reader.read()).decode()
        assert answer[len("HTTP/1.1 ") :].startswith(f"{status} ")
        assert "\r\nServer: tidemark\r\n" in answer
        assert "\r\nX-Content-Type-Options: nosniff\r\n" in answer
        assert "\r\nContent-Security-Policy: default-src 'none'" in answer
        assert "aaaa" not in answer
        assert "Python" not in answer
    assert bool(caplog.records) is (status == 500), caplog.text

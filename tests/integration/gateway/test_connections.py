"""What one connection to the HTTP port may hold, and for how long."""

import asyncio
import contextlib
import socket
from typing import Any

import aiohttp
import pytest

from gateway.application import Settings
from gateway.cloudevents.mapping import default_mapping
from gateway.limits import HttpLimits
from gateway.listening import HttpFront
from generated.tidemark.v1 import alert_service_pb2
from runtime.forwarding import CannotListenFront
from tests.support.gateway.echo import ALERTS, EMPTY, HEAD, echoing_front, raw
from tests.support.waiting import within

LIMIT = 30.0  # seconds


async def test_slow_requests_are_closed() -> None:
    limits = HttpLimits(idle=0.3, body=0.3, linger=0.1)
    async with echoing_front(limits) as (echo, serving, _):
        for beginning, ending in (
            (b"", b""),
            (b"GET /v1/alerts HTTP/1.1\r\nHost: loc", b""),
            (
                b"POST /v1/alerts/a:archive HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
                b"HTTP/1.1 408 ",
            ),
        ):
            async with within("the end of the connection"):
                answer = await raw(serving.port, beginning)
            assert answer.startswith(ending), answer
            assert ending or not answer
        assert echo.method == ""


async def test_a_head_that_drips_is_closed_in_time() -> None:
    async with echoing_front(HttpLimits(idle=0.4)) as (_, serving, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
        writer.write(b"GET / HTTP/1.1\r\nX: ")

        async def drip() -> None:
            with contextlib.suppress(OSError):
                while True:
                    writer.write(b"X")
                    await writer.drain()
                    await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        async with within("the end of the connection"):
            with contextlib.suppress(ConnectionResetError):
                assert not await reader.read()
        dripping.cancel()
        writer.close()


@pytest.mark.parametrize("target", [ALERTS, "/v1/notifications:watch"])
async def test_a_client_that_leaves_cancels_its_call(target: str) -> None:
    async with echoing_front() as (echo, serving, _):
        echo.holds = True
        _, writer = await asyncio.open_connection("127.0.0.1", serving.port)
        writer.write(b"GET " + target.encode() + b" HTTP/1.1\r\n" + HEAD + b"\r\n")
        async with within("the call"):
            await echo.held.wait()
        assert not echo.cancelled.is_set()
        writer.close()
        async with within("the end of the call"):
            await echo.cancelled.wait()


async def test_an_address_that_is_taken_is_named() -> None:
    async with echoing_front() as (echo, serving, _):
        taken = HttpFront("127.0.0.1", serving.port, Settings(1, (), default_mapping()), max_connections=1)
        with pytest.raises(CannotListenFront, match=f"cannot listen on 127.0.0.1 port {serving.port} for HTTP"):
            async with taken.serving(echo):
                pass


async def test_connections_have_a_limit_and_those_that_wait_for_their_clients_give_way() -> None:
    async with echoing_front(max_connections=3) as (echo, serving, http):
        echo.holds = True

        async def call() -> asyncio.Task[Any]:
            echo.held.clear()
            calling = asyncio.create_task(http.get(ALERTS))
            async with within("the call"):
                await echo.held.wait()
            return calling

        calls = [await call(), await call()]
        silent = [await asyncio.open_connection("127.0.0.1", serving.port) for _ in range(3)]
        async with within("the end of all but one of the silent connections"):
            for reader, _ in silent[:2]:
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
        assert serving.connections == 3
        calls.append(await call())
        async with within("the end of the last silent connection"):
            with contextlib.suppress(ConnectionResetError):
                assert await silent[2][0].read() == b""
        with pytest.raises(aiohttp.ClientError):
            await http.get(ALERTS)
        for one in calls:
            one.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        echo.holds, echo.answers = False, [EMPTY]
        async with within("a place"):
            while serving.connections == 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await http.get(ALERTS)).code == 200
        for _, writer in silent:
            writer.close()


async def test_a_client_that_does_not_read_loses_its_connection() -> None:
    async with echoing_front(HttpLimits(write=0.3, linger=0.1)) as (echo, serving, _):
        # Far more than the buffers of the sockets.
        echo.answers = [alert_service_pb2.WatchNotificationsResponse(resume_token="x" * 100_000)] * 200
        large = alert_service_pb2.ListAlertsResponse(next_page_token="x" * 20_000_000)
        for target, answers in (("/v1/notifications:watch", echo.answers), (ALERTS, [large])):
            echo.answers = answers
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", serving.port))
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await asyncio.sleep(0.8)
            with client:
                received = await asyncio.to_thread(everything, client)
            assert received < 19_000_000


def everything(client: socket.socket) -> int:
    """Reads until the end of the connection; returns the number of bytes."""
    client.settimeout(LIMIT)
    received = 0
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65_536):
            received += len(data)
    return received

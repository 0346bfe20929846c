"""The health that a parent shows for its child processes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import aiohttp
import pytest

from runtime.monitoring.combined import CombinedProcesses, Member
from runtime.monitoring.instruments import Instruments

LIMIT = 60.0  # seconds; a child that hangs would take an hour


@asynccontextmanager
async def children(codes: Sequence[int | None], *, needs_all: bool) -> AsyncIterator[CombinedProcesses]:
    """Children that answer with these codes; None: one that answers only after the block."""
    block_ended = asyncio.Event()

    async def answer(code: int | None, writer: asyncio.StreamWriter) -> None:
        if code is None:
            await block_ended.wait()
        else:
            writer.write(f"HTTP/1.1 {code} -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        writer.close()

    def child(code: int | None) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        return lambda _, writer: answer(code, writer)

    servers = [await asyncio.start_server(child(code), "127.0.0.1", 0) for code in codes]
    members = [
        Member("worker", str(index), server.sockets[0].getsockname()[1], lambda: True)
        for index, server in enumerate(servers, 1)
    ]
    async with aiohttp.ClientSession() as session:
        yield CombinedProcesses(members, session, Instruments(), needs_all=needs_all, timeout=3600.0)
    block_ended.set()
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("codes", "needs_all", "expected"),
    [
        ((None, 200), False, True),
        ((200, None), False, True),
        ((None, 503), True, False),
        ((503, 200), False, True),
        ((503, 503), False, False),
        ((200, 200), True, True),
        ((200, 503), True, False),
    ],
)
async def test_readiness_is_answered_as_soon_as_it_is_certain_while_a_child_hangs(
    codes: Sequence[int | None], needs_all: bool, expected: bool
) -> None:
    async with children(codes, needs_all=needs_all) as combined, asyncio.timeout(LIMIT):
        assert await combined.is_ready() is expected

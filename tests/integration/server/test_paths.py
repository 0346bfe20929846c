"""A call whose path is no UTF-8 is refused, and no other call notices it."""

import asyncio

import pytest

from server.accepting import can_read_paths
from tests.support.server.odd_service import NAME, OddClient
from tests.support.server.raw_http2 import raw
from tests.support.server.running import Running

BYTE = "\udc9a"  # a byte that begins no character
REFUSED = b"the path of the call is no UTF-8"
LONG = "x" * 4_000


def test_the_installed_grpc_keeps_paths_where_they_are_read() -> None:
    # After another version of gRPC is installed: find out where it keeps the path, and whether it decodes it before
    # it calls a handler. Servers of that version do not refuse these paths until `server.accepting` knows it.
    assert can_read_paths()


@pytest.mark.parametrize(
    "path",
    [
        f"/{BYTE}",
        BYTE,
        f"/a/{'x' * 18}{BYTE}",
        f"/a/{'x' * 19}{BYTE}",
        f"/a/{'x' * 20}{BYTE}",
        f"/{NAME}/{LONG}{BYTE}",
    ],
    ids=["short", "without slash", "22 bytes", "23 bytes", "24 bytes", "long"],
)
async def test_a_path_that_is_no_text_is_refused(odd_server: Running, path: str) -> None:
    async with raw(odd_server.port) as client:
        stream = client.call(path)
        assert await client.settle(until=lambda: stream in client.ended)
        assert REFUSED in client.ended[stream]
        assert client.going_away == b""


@pytest.mark.parametrize("path", ["/é/ü", f"/{NAME}/Größe", f"/{NAME}/{LONG}é"])
async def test_other_unknown_paths_are_answered_as_ever(odd_server: Running, path: str) -> None:
    async with raw(odd_server.port) as client:
        stream = client.call(path)
        assert await client.settle(until=lambda: stream in client.ended)
        assert b"grpc-status" in client.ended[stream]
        assert REFUSED not in client.ended[stream]


async def test_many_such_calls_delay_no_other(odd_server: Running, odd: OddClient) -> None:
    async with raw(odd_server.port) as client, raw(odd_server.port, window=0) as leaving:
        streams = [client.call(f"/{number}/{BYTE}") for number in range(500)]
        for number in range(500):
            leaving.reset(leaving.call(f"/{number}/{BYTE}"))
        answers = await asyncio.gather(*(odd.unary("WhoAmI")("", timeout=30.0) for _ in range(20)))
        assert all(answer.startswith("default ") for answer in answers)
        assert await client.settle(until=lambda: len(client.ended) == len(streams))
        assert all(REFUSED in ended for ended in client.ended.values())

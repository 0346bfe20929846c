"""Large messages that arrive together are decoded one in a pass of the event loop."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from engine.quotas.organization_quotas import OrganizationQuotas
from server.calls import current_call
from server.interceptors.errors import LARGE_MESSAGE, _Decoder
from store.postgres.database import Database


@pytest.mark.parametrize(("size", "together"), [(LARGE_MESSAGE + 1, 1), (LARGE_MESSAGE, 5)])
async def test_messages_of_many_streams_are_decoded_in_turns_when_they_are_large(size: int, together: int) -> None:
    number, passes = 0, list[int]()

    async def messages() -> AsyncIterator[bytes]:
        yield b"x" * size

    def decode(message: bytes) -> int:
        passes.append(number)
        return len(message)

    async def stream() -> list[int]:
        current_call.begin(current_call.Call("/x/Y", "r"))
        decoder = _Decoder(decode, 1_000_000, "/x/Y", OrganizationQuotas(Database("postgresql://"), {}, interval=1.0))
        return [decoded async for decoded in decoder.stream(messages())]

    streams = [asyncio.create_task(stream()) for _ in range(5)]
    async with asyncio.timeout(30):
        while not all(task.done() for task in streams):
            await asyncio.sleep(0)
            number += 1
    assert [await task for task in streams] == [[size]] * 5
    assert max(passes.count(one) for one in passes) == together

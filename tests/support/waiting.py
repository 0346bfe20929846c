"""Waiting in tests: with a limit to the whole of it, and a word about what was missing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

DEADLINE = 30.0  # seconds that anything may take that a test waits for


@asynccontextmanager
async def within(missing: str, seconds: float = DEADLINE) -> AsyncIterator[None]:
    """Fails with what was `missing` when the block lasts longer.

    For a whole loop and not for each of its reads: one that passes over heartbeats would otherwise never end.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise AssertionError(f"{missing}: not within {seconds:g} seconds") from None


async def until_said(output: asyncio.StreamReader | None, text: bytes, seconds: float = DEADLINE) -> None:
    """Reads lines of a process until one has the text; fails when its output ends before, or that takes too long."""
    assert output is not None
    said = b""
    async with within(f"a line with {text.decode()!r}", seconds):
        while text not in (line := await output.readline()):
            # At its end a stream gives empty lines without ever waiting, which no timeout interrupts.
            assert line, f"the output ended without {text.decode()!r}:\n{said.decode(errors='replace')}"
            said += line

"""Waiting in tests: with a total limit, and a message that names what was missing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

DEADLINE = 30.0  # seconds that a test waits for one thing


@asynccontextmanager
async def within(missing: str, seconds: float = DEADLINE) -> AsyncIterator[None]:
    """Fails with what was `missing` when the block lasts longer.

    The limit is for a whole loop and not for each read: a loop that skips heartbeats would otherwise never end.
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
    """Reads lines of a process until one contains the text; fails when the output ends before, or at the limit."""
    assert output is not None
    said = b""
    async with within(f"a line with {text.decode()!r}", seconds):
        while text not in (line := await output.readline()):
            # A stream at its end returns empty lines without waiting, and no timeout interrupts that loop.
            assert line, f"the output ended without {text.decode()!r}:\n{said.decode(errors='replace')}"
            said += line

"""A child process that does not outlive its parent, however the parent ended."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click

INTERVAL = 1.0  # seconds between two looks

Command = TypeVar("Command", bound=Callable[..., Any])


def option(command: Command) -> Command:
    """Adds the hidden option --with-parent, which `tidemark up` gives to what it starts."""
    return click.option("--with-parent", type=int, hidden=True)(command)


@asynccontextmanager
async def followed(parent: int | None) -> AsyncIterator[None]:
    """Within the block, this process asks itself to stop once `parent` is gone; None: it has none to follow.

    The parent gives its own number: it may have been killed before this process could ask for it.
    """
    if parent is None:
        yield
        return
    watching = asyncio.create_task(_watch(parent), name="parent")
    try:
        yield
    finally:
        watching.cancel()


async def _watch(parent: int) -> None:
    # A killed parent closes nothing and says nothing; but its children get another one.
    while os.getppid() == parent:  # noqa: ASYNC110 – no event tells of it
        await asyncio.sleep(INTERVAL)
    os.kill(os.getpid(), signal.SIGTERM)

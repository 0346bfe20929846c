"""A child process that stops when its parent ends, also when the parent was killed."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click

CHECK_INTERVAL = 1.0  # seconds

Command = TypeVar("Command", bound=Callable[..., Any])


def parent_option(command: Command) -> Command:
    """Adds the hidden option --with-parent, which a process passes to its child processes."""
    return click.option("--with-parent", type=int, hidden=True)(command)


@asynccontextmanager
async def stopping_with(parent: int | None) -> AsyncIterator[None]:
    """Within the block, this process sends itself SIGTERM once the process `parent` has ended. None: no parent.

    The parent passes its own process id: it may be killed before this process can ask for it.
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
    # A killed parent sends nothing. But the system gives its children another parent.
    while os.getppid() == parent:  # noqa: ASYNC110 – there is no event to wait for
        await asyncio.sleep(CHECK_INTERVAL)
    os.kill(os.getpid(), signal.SIGTERM)

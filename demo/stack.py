"""Everything that the demo starts and stops: a database of its own, a server, a notifier and a webhook receiver."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from cli.client.connection import Address
from cli.client.errors import CALL_ERRORS
from cli.console import Problem
from cli.rich_console import standard_error
from console.process import Listening, Server
from console.process import running as running_console
from demo.receiver import VerifiedWebhooks
from runtime.clock import SystemClock
from runtime.signals import on_stop
from tests.support.notifier.receiver import running_receiver
from tests.support.processes.programs import LOCAL_SETTINGS, CannotStart, Programs, last_lines
from tests.support.webhooks.endpoints import create_endpoint


@dataclass
class Stack:
    """What runs. folder: logs and data. keep: whether the folder stays when everything has stopped.

    console_url: of the console, for a browser.
    """

    address: Address
    channel: grpc.aio.Channel
    webhooks: VerifiedWebhooks
    webhook_url: str
    folder: Path
    console_url: str
    keep: bool = False

    async def stay(self) -> None:
        """Waits for Ctrl-C, so that somebody can look at the console."""
        stopped = asyncio.Event()
        unfollow = on_stop(stopped.set)
        try:
            await stopped.wait()
        finally:
            unfollow()


@asynccontextmanager
async def running() -> AsyncIterator[Stack]:
    """Starts everything in a temporary folder; stops it and removes the folder at the end.

    Raises Problem with the last lines of a log when a process cannot start, and when the block lost the server.
    """
    folder = Path(tempfile.mkdtemp(prefix="tidemark-demo-"))
    stack: Stack | None = None
    async with contextlib.AsyncExitStack() as exits:
        exits.callback(lambda: _remove(folder, stack))
        receiver = await exits.enter_async_context(running_receiver())
        programs = Programs({**LOCAL_SETTINGS, "TIDEMARK_DATA_DIRECTORY": str(folder)}, folder, exits, drain=True)
        try:
            server, _ = await asyncio.gather(programs.serve(), programs.notify())
        except CannotStart as error:
            raise Problem(error.reason, error.last_lines) from None
        channel = await exits.enter_async_context(server.address.channel())
        listening = Listening("127.0.0.1", 0)
        pages = running_console(Server(server.address.server), listening, SystemClock())
        console_url = listening.url(await exits.enter_async_context(pages))
        stack = Stack(server.address, channel, VerifiedWebhooks(), receiver.url, folder, console_url)
        receiver.always_answer(stack.webhooks.answer)
        try:
            stack.webhooks.trust(await create_endpoint(channel, receiver.url))
            yield stack
        except CALL_ERRORS as error:
            stack.keep = True
            reason = error.details()
            raise Problem(f"the demo broke off: {reason}", last_lines(folder / "server.log")) from None
        finally:
            if stack.keep:
                standard_error().print(f"[quiet]the logs are kept in {folder}[/]")


def _remove(folder: Path, stack: Stack | None) -> None:
    if stack is None or not stack.keep:
        shutil.rmtree(folder, ignore_errors=True)

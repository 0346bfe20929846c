"""Everything that the demo starts: a database of its own, a server, a notifier, a receiver; and takes down again."""

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
from cli.client.usage_stream import ConnectionLost
from cli.console import Problem
from cli.notify import RUNNING
from cli.processes import Child, NotStarted, child_environment
from cli.rich_console import standard_error
from cli.serve import LISTENING
from demo.contract import create_endpoint
from demo.receiver import Receiver

LOG_LINES = 15  # of a log that are shown when something fails

# The receiver is on this machine, which a webhook may only reach when its operator says so.
SETTINGS = {
    "TIDEMARK_LISTEN": "127.0.0.1:0",
    "TIDEMARK_WEBHOOK_ALLOW_HTTP": "true",
    "TIDEMARK_WEBHOOK_ALLOW_CIDRS": "127.0.0.0/8",
    "TIDEMARK_PROPAGATION_DELAY_SECONDS": "0",
    "TIDEMARK_LOG_FORMAT": "text",
}


@dataclass
class Stack:
    """What runs. folder: logs and data; keep: whether it stays when everything has stopped."""

    address: Address
    channel: grpc.aio.Channel
    receiver: Receiver
    folder: Path
    keep: bool = False


@asynccontextmanager
async def running() -> AsyncIterator[Stack]:
    """Starts everything in a temporary folder; stops it and removes the folder at the end.

    Raises Problem with the last words of whatever could not be started, and when the block lost the server.
    """
    folder = Path(tempfile.mkdtemp(prefix="tidemark-demo-"))
    stack: Stack | None = None
    async with contextlib.AsyncExitStack() as exits:
        exits.callback(lambda: _remove(folder, stack))
        receiver = Receiver()
        await receiver.start()
        exits.push_async_callback(receiver.stop)
        server = _child(exits, folder, "server", "serve", LISTENING)
        notifier = _child(exits, folder, "notifier", "notify", RUNNING)
        try:
            await asyncio.gather(server.start(), notifier.start())
        except NotStarted as error:
            raise Problem(str(error), _last_words(folder, error.name)) from None
        address = Address(server.ready_value)
        channel = await exits.enter_async_context(address.channel())
        stack = Stack(address, channel, receiver, folder)
        try:
            receiver.trust(await create_endpoint(channel, receiver.url))
            yield stack
        except (grpc.aio.AioRpcError, ConnectionLost) as error:
            stack.keep = True
            said = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
            raise Problem(f"the demo broke off: {said}", _last_words(folder, "server")) from None
        finally:
            if stack.keep:
                standard_error().print(f"[quiet]the logs are kept in {folder}[/]")


def _child(exits: contextlib.AsyncExitStack, folder: Path, name: str, command: str, ready: str) -> Child:
    settings = child_environment({**SETTINGS, "TIDEMARK_DATA_DIRECTORY": str(folder)}, inherit=False)
    log = exits.enter_context((folder / f"{name}.log").open("wb"))
    child = Child(name, [command], settings, ready, log)
    exits.push_async_callback(child.stop)
    return child


def _last_words(folder: Path, name: str) -> list[str]:
    return (folder / f"{name}.log").read_text(errors="replace").splitlines()[-LOG_LINES:]


def _remove(folder: Path, stack: Stack | None) -> None:
    if stack is None or not stack.keep:
        shutil.rmtree(folder, ignore_errors=True)

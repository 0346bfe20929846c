"""A receiver in a process of its own that does as little as it can: notes arrivals; answers 204, 500 or never.

It is not the receiver of tests and demo: that one runs in aiohttp, in the caller's process, and would be slower than
the notifier that is measured.
"""

import asyncio
import contextlib
import multiprocessing
import random
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self, cast

import uvloop

HANGING = "/hang"  # requests to paths that begin so are never answered
FAILING = "/fail"  # half of the requests to paths that begin so are answered with 500

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_FAILURE = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"


@dataclass(frozen=True)
class Arrival:
    """One request. time: seconds of time.monotonic(), which all processes of a machine share.

    accepted: it was answered with 204.
    """

    path: str
    webhook_id: str
    time: float
    accepted: bool


class FastReceiver:
    """The other end of the receiver's process; a context manager. url: its address, without a path."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs,), name="bench receiver", daemon=True)
        self._asking = threading.Lock()
        self.url = ""

    def __enter__(self) -> Self:
        self._process.start()
        self.url = f"http://127.0.0.1:{self._connection.recv()}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.join()

    async def number(self) -> int:
        """How many requests have arrived since the last take."""
        number: int = await self._ask("number")
        return number

    async def take(self) -> list[Arrival]:
        """The requests that have arrived since the last take."""
        return [Arrival(*found) for found in await self._ask("take")]

    async def arrived(self, number: int, timeout: float) -> list[Arrival]:
        """Waits until so many requests have arrived; takes them. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while True:
                if await self.number() >= number:
                    return await self.take()
                await asyncio.sleep(0.05)

    async def _ask(self, question: str) -> Any:
        return await asyncio.to_thread(self._ask_now, question)

    def _ask_now(self, question: str) -> Any:
        # Both in the thread: a caller that gives up waiting must not leave its answer for the next question.
        with self._asking:
            self._connection.send(question)
            return self._connection.recv()


def _main(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the parent, which ends us
    with contextlib.suppress(EOFError):  # the parent is gone
        uvloop.run(_serve(connection))


async def _serve(connection: Connection) -> None:
    arrivals: list[tuple[str, str, float, bool]] = []
    server = await asyncio.get_running_loop().create_server(lambda: _Exchange(arrivals), "127.0.0.1", 0)
    connection.send(server.sockets[0].getsockname()[1])
    while True:
        question = await asyncio.to_thread(connection.recv)
        if question == "number":
            connection.send(len(arrivals))
        else:
            connection.send(list(arrivals))
            arrivals.clear()


class _Exchange(asyncio.Protocol):
    """One connection. It reads what aiohttp's client writes, and nothing more general."""

    def __init__(self, arrivals: list[tuple[str, str, float, bool]]) -> None:
        self._arrivals = arrivals
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not of asyncio's class

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            lines = self._data[:end].decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:])
            after = end + 4 + int(headers.get("content-length", 0))
            if len(self._data) < after:
                return
            self._data = self._data[after:]
            path = lines[0].split(" ")[1]
            hangs = path.startswith(HANGING)
            fails = path.startswith(FAILING) and random.random() < 0.5
            self._arrivals.append((path, headers.get("webhook-id", ""), time.monotonic(), not (hangs or fails)))
            if self._transport is not None and not hangs:
                self._transport.write(_FAILURE if fails else _ANSWER)

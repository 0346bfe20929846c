"""One attempt, and servers that speak whatever a test wants to hear."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from notifier.request_headers import HEADERS
from notifier.sending import Answer, Sender, Timeouts
from runtime.clock import SystemClock
from webhooks.url_policy import UrlPolicy

ON_THIS_MACHINE = UrlPolicy(allow_http=True, allow_networks=(ipaddress.ip_network("127.0.0.0/8"),))
PATIENT = Timeouts(connect=10, headers=10, body=10)
IMPATIENT = Timeouts(connect=0.2, headers=0.2, body=0.2)
BODY = b'{"id": "ntf_1"}'

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def post(url: str, *, policy: UrlPolicy = ON_THIS_MACHINE, timeouts: Timeouts = PATIENT) -> Answer:
    async with asyncio.timeout(60), Sender(policy, timeouts, SystemClock()) as sender:
        return await sender.post(url, HEADERS | {"webhook-id": "ntf_1"}, BODY)


@asynccontextmanager
async def server(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A TCP server on 127.0.0.1 that speaks whatever `talk` writes; yields its port. Ends with its conversations."""
    talking = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except RuntimeError:
            if not writer.is_closing():  # uvloop refuses to write to a connection that the client has closed
                raise
        finally:
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        talking.add(task)
        task.add_done_callback(talking.discard)

    listener = await asyncio.start_server(begin, "127.0.0.1", 0, ssl=tls)
    async with listener:
        yield listener.sockets[0].getsockname()[1]
        for task in talking:
            task.cancel()
        if talking:
            await asyncio.wait(talking)


def after_request(answer: bytes) -> Talk:
    """Reads the request, writes `answer` and closes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(answer)
        await writer.drain()

    return talk


async def never_answers(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.readuntil(BODY)
    await asyncio.Event().wait()

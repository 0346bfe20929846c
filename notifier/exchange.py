"""One HTTP/1.1 exchange over a connection of aiohttp's pool: a POST goes out, the head of its answer comes back.

aiohttp resolves, dials, shakes hands, keeps connections and parses answers. Its session is left out: for each request
it makes a request, a writer, a task and an answer that can do what a webhook never does (redirects, cookies, proxies,
uploads in parts), and that takes longer than all the rest of an attempt.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from aiohttp.streams import EofStream, StreamReader
from yarl import URL

# In a header it would begin another one, or another request.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, eq=False, slots=True)
class Destination:
    """Where a URL leads."""

    request: ClientRequest  # names host, port and TLS to aiohttp's connector; it is never sent
    start: str  # the first two lines of each request

    @staticmethod
    def of(text: str) -> "Destination":
        """Reads a URL. Raises aiohttp.InvalidURL or aiohttp.NonHttpUrlClientError."""
        try:
            url = URL(text)
        except ValueError as error:
            raise aiohttp.InvalidURL(text) from error
        if url.scheme not in ("http", "https"):
            raise aiohttp.NonHttpUrlClientError(text)
        request = ClientRequest("POST", url, loop=asyncio.get_running_loop())
        return Destination(request, f"POST {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\n")

    def post(self, headers: Mapping[str, str], body: bytes) -> bytes:
        """A request, ready to be written. Raises ValueError when a header holds a control character."""
        fields = [f"Content-Length: {len(body)}"]
        fields += [f"{name}: {value}" for name, value in headers.items()]
        if _CONTROL.search("".join(fields)):
            raise ValueError("a header holds a control character")
        return (self.start + "\r\n".join(fields) + "\r\n\r\n").encode() + body


async def exchange(
    connection: Connection, request: bytes, timeout: float, read_limit: int
) -> tuple[RawResponseMessage, StreamReader]:
    """Sends a request; returns the head of the answer and its body, of which about `read_limit` bytes are buffered.

    The head has to come within `timeout` seconds, however much of it comes in between. Raises TimeoutError,
    aiohttp.ClientError or OSError when the connection is lost, HttpProcessingError for what is not HTTP.
    """
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or transport.is_closing():
        raise aiohttp.ServerDisconnectedError
    protocol.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=read_limit)
    # Not asyncio.timeout, which costs several times as much.
    deadline = asyncio.get_running_loop().call_later(timeout, protocol.set_exception, TimeoutError())
    try:
        transport.write(request)
        while True:
            message, body = await protocol.read()
            if message.code == 101 or not 100 <= message.code <= 199:  # others announce the answer, and are none
                return message, body
    except EofStream as error:
        raise aiohttp.ServerDisconnectedError from error
    finally:
        deadline.cancel()


def end(connection: Connection, body: StreamReader | None) -> None:
    """Gives the connection back when its answer was read to the end; otherwise cuts it off, sent or not."""
    if body is not None and body.is_eof():
        connection.release()
        return
    if connection.protocol is not None:
        connection.protocol.abort()
    connection.close()

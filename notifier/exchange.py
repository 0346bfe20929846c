"""One HTTP/1.1 exchange over a connection of aiohttp's pool: sends a POST and reads the response.

aiohttp resolves, dials, shakes hands and keeps connections. Its session is not used: for each request it makes a
request, a writer, a task and an answer with features that webhooks never need (redirects, cookies, proxies, multipart
uploads), and that takes longer than the rest of an attempt. Its parser is not used either: see `notifier.response`.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from yarl import URL

from notifier.response import ResponseReader
from webhooks.url_policy import request_target

# In a header a control character would begin another header, or another request.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, eq=False, slots=True)
class Destination:
    """A parsed URL."""

    request: ClientRequest  # host, port and TLS for the connector of aiohttp; it is never sent
    start: str  # the first two lines of each request

    @staticmethod
    def of(text: str) -> "Destination":
        """Reads a URL. Raises aiohttp.InvalidURL or aiohttp.NonHttpUrlClientError."""
        try:
            url = URL(text)
            if url.scheme not in ("http", "https"):
                raise aiohttp.NonHttpUrlClientError(text)
            # Path and query are taken from the text. yarl decodes and resolves parts of them, and a receiver that
            # compares the URL with the one that it gave out would find another URL.
            origin, target = url.origin(), request_target(text)
        except ValueError as error:
            raise aiohttp.InvalidURL(text) from error
        request = ClientRequest("POST", origin, loop=asyncio.get_running_loop())
        return Destination(request, f"POST {target} HTTP/1.1\r\nHost: {origin.host_port_subcomponent}\r\n")

    def post(self, headers: Mapping[str, str], body: bytes) -> bytes:
        """A request, ready to be written. Raises ValueError when a header holds a control character."""
        fields = [f"Content-Length: {len(body)}"]
        fields += [f"{name}: {value}" for name, value in headers.items()]
        if _CONTROL.search("".join(fields)):
            raise ValueError("a header holds a control character")
        return (self.start + "\r\n".join(fields) + "\r\n\r\n").encode() + body


def is_stale(connection: Connection) -> bool:
    """Whether a kept connection cannot be used: it is closing, or has brought bytes without a request."""
    protocol, transport = connection.protocol, connection.transport
    return protocol is None or transport is None or transport.is_closing() or protocol.should_close


async def exchange(connection: Connection, request: bytes, reader: ResponseReader, timeout: float) -> None:
    """Sends a request and lets `reader` read the response; returns when that has a status.

    The status has to come within `timeout` seconds, interim responses included. Raises TimeoutError,
    aiohttp.ClientError or OSError when the connection is lost, MalformedResponse when the answer is not HTTP.
    """
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or transport.is_closing():
        raise aiohttp.ServerDisconnectedError
    reader.start(timeout)
    try:
        transport.write(request)
        protocol.set_parser(reader, None)  # also feeds the reader the bytes that have come already
        await reader.ended
    finally:
        reader.close()
    if reader.status is not None:
        return
    lost: BaseException | None = protocol.exception()
    raise reader.error or lost or aiohttp.ServerDisconnectedError()


def end(connection: Connection, reader: ResponseReader) -> None:
    """Returns the connection to the pool when its response allows it; otherwise closes it with unsent bytes."""
    protocol, transport = connection.protocol, connection.transport
    if protocol is None:
        connection.close()
    elif reader.reusable and transport is not None and not transport.get_write_buffer_size():
        protocol.set_parser(None, None)
        connection.release()
    else:
        protocol.abort()
        connection.close()

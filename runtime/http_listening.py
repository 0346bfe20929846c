"""The sockets of an HTTP port: where it listens, and its handshakes of TLS, of which too many are not kept."""

import asyncio
import logging
import socket
import ssl

from runtime.http_connections import BoundedServer

BACKLOG = 1_024  # connections that the system keeps until they are accepted; asyncio accepts as many in one turn
HANDSHAKE = 10.0  # seconds for the handshake of TLS
HANDSHAKES = 100  # at the same time
_PAUSE = 0.2  # seconds after an accept that failed, as it does when the process has no file descriptor left

logger = logging.getLogger(__name__)


class Listening:
    """Where a port listens. port: its number, of the first of its addresses."""

    def __init__(self, port: int, opened: "asyncio.Server | _TlsSockets") -> None:
        self.port = port
        self._opened = opened

    def close(self) -> None:
        """Accepts no more connections."""
        self._opened.close()


async def listen(
    server: BoundedServer,
    host: str,
    port: int,
    context: ssl.SSLContext | None = None,
    *,
    shares_port: bool = False,
    backlog: int = BACKLOG,
) -> Listening:
    """Listens on an address. context: of TLS. Raises OSError."""
    loop = asyncio.get_running_loop()
    if context is None:
        plain = await loop.create_server(server, host, port, backlog=backlog, reuse_port=shares_port or None)
        return Listening(int(plain.sockets[0].getsockname()[1]), plain)
    sockets: list[socket.socket] = []
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            sockets.append(_socket(family, address, shares_port=shares_port, backlog=backlog))
    except OSError:
        for one in sockets:
            one.close()
        raise
    return Listening(int(sockets[0].getsockname()[1]), _TlsSockets(server, context, sockets))


def _socket(
    family: int,
    address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes],
    *,
    shares_port: bool,
    backlog: int,
) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(backlog)
    except OSError:
        made.close()
        raise
    return made


class _TlsSockets:
    """Accepts connections, and makes their handshakes. Of too many, the oldest one ends.

    asyncio's server counts no handshakes, and does not say that one has begun.
    """

    def __init__(self, server: BoundedServer, context: ssl.SSLContext, sockets: list[socket.socket]) -> None:
        self._server = server
        self._context = context
        self._handshakes: dict[asyncio.Task[None], None] = {}
        self._accepting = [asyncio.create_task(self._accept(one)) for one in sockets]

    def close(self) -> None:
        """Accepts no more."""
        for task in (*self._accepting, *self._handshakes):
            task.cancel()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                try:
                    client, _ = await loop.sock_accept(listening)
                except OSError as error:  # also of a client that has gone already
                    logger.warning("a connection cannot be accepted: %s", error)
                    await asyncio.sleep(_PAUSE)
                    continue
                if len(self._handshakes) >= HANDSHAKES:
                    oldest = next(iter(self._handshakes))
                    del self._handshakes[oldest]
                    oldest.cancel()
                task = asyncio.create_task(self._shake_hands(client))
                self._handshakes[task] = None
                task.add_done_callback(self._handshakes_without)

    def _handshakes_without(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)

    async def _shake_hands(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._server, client, ssl=self._context, ssl_handshake_timeout=HANDSHAKE
            )
        except (OSError, TimeoutError, asyncio.CancelledError):
            client.close()  # what the client sent was no handshake, or came too late

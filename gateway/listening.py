"""The HTTP port: its connections, its TLS, its begin and its end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from gateway.answers import refusal_response
from gateway.application import Application, Settings
from gateway.calls import refusals
from gateway.calls.backend import Backend
from gateway.calls.callers import is_loopback
from gateway.limits import DEFAULT_HTTP_LIMITS, HttpLimits
from runtime.actions import LogAction
from runtime.forwarding import CannotListenFront
from runtime.http_heads import is_head_too_large

BACKLOG = 1_024  # connections that the system keeps until they are accepted
HANDSHAKE = 10.0  # seconds for the handshake of TLS
LAST_GRACE = 2.0  # seconds for the last bytes of answers whose calls have ended

logger = logging.getLogger(__name__)


class HttpFront:
    """HTTP and JSON in front of a server."""

    def __init__(
        self,
        host: str,
        port: int,
        settings: Settings,
        *,
        max_connections: int,
        on_listening: Callable[[str, int], None] = lambda host, port: None,
        limits: HttpLimits = DEFAULT_HTTP_LIMITS,
    ) -> None:
        """port: 0 takes a free one. on_listening: called with the host and the port."""
        self._host = host
        self._port = port
        self._settings = settings
        self._max_connections = max_connections
        self._on_listening = on_listening
        self._limits = limits

    @asynccontextmanager
    async def serving(self, backend: Backend) -> AsyncIterator["ServingHttp"]:
        """Listens while the block runs. Raises CannotListenFront."""
        application = Application(backend, self._settings, self._limits, is_local=is_loopback(self._host))
        server = _Server(application, self._max_connections, self._limits)
        runner = web.ServerRunner(server, shutdown_timeout=LAST_GRACE)
        await runner.setup()
        try:
            try:
                listening = await asyncio.get_running_loop().create_server(
                    server,
                    self._host,
                    self._port,
                    ssl=backend.tls,
                    backlog=BACKLOG,
                    reuse_port=backend.shares_port or None,
                    ssl_handshake_timeout=None if backend.tls is None else HANDSHAKE,
                )
            except OSError as error:
                raise CannotListenFront.on(self._host, self._port) from error
            port = int(listening.sockets[0].getsockname()[1])
            logger.info(
                "listening on %s port %d for HTTP",
                self._host,
                port,
                extra={"action": LogAction.LISTEN_HTTP, "host": self._host, "port": port},
            )
            self._on_listening(self._host, port)
            serving = ServingHttp(application, server, listening, port)
            try:
                yield serving
            finally:
                await serving.begin_drain()
        finally:
            await runner.cleanup()
            await application.close()


class ServingHttp:
    """An HTTP port that is open. port: its number."""

    def __init__(self, application: Application, server: "_Server", listening: asyncio.Server, port: int) -> None:
        self._application = application
        self._server = server
        self._listening = listening
        self.port = port

    async def begin_drain(self) -> None:
        """Accepts no more connections, closes those without a request, and the others after their answers."""
        self._application.is_draining = True
        self._listening.close()
        await asyncio.sleep(0)  # connections with a request that has just come begin to answer it
        self._server.pre_shutdown()

    @property
    def connections(self) -> int:
        """The open connections."""
        return len(self._server.connections)


class _Server(web.Server):
    """Makes the protocol of each connection, up to a limit."""

    def __init__(self, application: Application, max_connections: int, limits: HttpLimits) -> None:
        super().__init__(
            application.handle,
            handler_cancellation=True,  # a client that leaves cancels its call
            access_log=None,  # each call has a line of the server behind
            keepalive_timeout=limits.idle,
            lingering_time=limits.linger,
            max_line_size=limits.header_bytes,
            max_field_size=limits.header_bytes,
            max_headers=limits.headers,
            auto_decompress=False,
            logger=logger,
        )
        self._max_connections = max_connections

    def __call__(self) -> Any:
        if len(self.connections) >= self._max_connections:
            return _Refused()
        return _Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class _Refused(asyncio.Protocol):
    """A connection above the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Closes it."""
        transport.abort()  # type: ignore[attr-defined]


class _Connection(RequestHandler):
    """One connection. Bytes that are no HTTP are answered in the form of all errors, and not logged as faults."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers a request that cannot be parsed, and closes its connection."""
        if isinstance(exc, ConnectionError):  # the client has gone, or does not read
            raise exc
        if is_head_too_large(exc):
            refusal = refusals.malformed(
                "the request line or a header is too long, or there are too many headers: write it into the body",
                http_code=431,
            )
        elif isinstance(exc, HttpProcessingError) or status < 500:
            refusal = refusals.malformed("this is no request of HTTP/1.1")
        else:
            logger.error("a request failed", exc_info=exc, extra={"action": LogAction.INTERNAL_ERROR})
            refusal = refusals.malformed("internal error", http_code=500)
        response = refusal_response(refusal)
        response.force_close()
        return response

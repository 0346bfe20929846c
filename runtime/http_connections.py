"""The connections of an HTTP port: how many, how long each may take, and the answer to bytes that are no HTTP.

Clients that say nothing, or say it slowly, must not keep others out. So each part of a request and of its answer has
a time, and a port that is full closes the connection that has waited for its client the longest.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from runtime.actions import LogAction
from runtime.http_faults import Fault, is_head_too_large, plain_answer

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What one connection may take.

    header_bytes: of the request line, and of one header. headers: in one request. idle: seconds that a connection may
    take to send the head of a request, from its begin or from the end of the last answer. body: seconds that a body
    may take to arrive. write: seconds that a client may take to accept a part of an answer. linger: seconds in which
    the rest of a body is read that is not needed, so that its client gets the answer; and in which a client takes the
    last bytes of a connection that is closed.
    """

    header_bytes: int = 16_384
    headers: int = 100
    idle: float = 60.0
    body: float = 30.0
    write: float = 60.0
    linger: float = 2.0


DEFAULT_LIMITS = ConnectionLimits()


class BoundedServer(web.Server):
    """Makes the protocol of each connection, up to a number."""

    def __init__(
        self,
        handler: Handler,
        limits: ConnectionLimits,
        *,
        most: int,
        logger: logging.Logger,
        answer: Callable[[Fault], web.Response] = plain_answer,
        handler_cancellation: bool = False,
        request_factory: Any = None,
        **options: Any,
    ) -> None:
        """most: connections at the same time. answer: to a fault. options: more of aiohttp's RequestHandler."""
        super().__init__(self._handle, handler_cancellation=handler_cancellation, request_factory=request_factory)
        self.limits = limits
        self.logger = logger
        self.answer = answer
        self._handler = handler
        self._most = most
        self._open: set[_Connection] = set()
        # Those that wait for their clients, the longest first. One whose body has come since is still here.
        self._waiting: dict[_Connection, None] = {}
        self._options = {"access_log": None, "logger": logger, **options}

    def __call__(self) -> Any:
        return _Connection(self, asyncio.get_running_loop(), self._options)

    @property
    def number_open(self) -> int:
        """The open connections."""
        return len(self._open)

    def admit(self, connection: "_Connection") -> bool:
        """Counts a new connection. False: all places are taken by clients that wait for this server."""
        if len(self._open) >= self._most and not self._evict():
            return False
        self._open.add(connection)
        self._waiting[connection] = None
        return True

    def forget(self, connection: "_Connection") -> None:
        """A connection has ended."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def _evict(self) -> bool:
        for connection in list(self._waiting):
            del self._waiting[connection]
            if connection.waits_for_client:
                self._open.discard(connection)
                connection.abort()
                return True
        return False

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, _Connection)
        connection.content = request.content
        if request.content.is_eof():
            self._waiting.pop(connection, None)
        try:
            return await self._handler(request)
        finally:
            connection.content = None
            if connection in self._open:  # it waits for its client from now on, which takes the answer first
                self._waiting.pop(connection, None)
                self._waiting[connection] = None


class _Connection(web.RequestHandler):
    """One connection. Bytes that are no HTTP are not logged: a line of them can contain a key or a session."""

    __slots__ = ("_server", "_to_client", "content")

    def __init__(self, server: BoundedServer, loop: asyncio.AbstractEventLoop, options: dict[str, Any]) -> None:
        limits = server.limits
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.idle,
            lingering_time=limits.linger,
            max_line_size=limits.header_bytes,
            max_field_size=limits.header_bytes,
            max_headers=limits.headers,
            auto_decompress=False,  # who reads bodies does that, within bounds
            **options,
        )
        self._server = server
        self._to_client: asyncio.Transport | None = None
        self.content: Any = None  # the body of the request whose handler runs

    @property
    def waits_for_client(self) -> bool:
        """Whether the client has to send something, or to take an answer, before this server has work to do."""
        return self.content is None or not self.content.is_eof()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins, or ends at once when the port is full."""
        self._to_client = cast(asyncio.Transport, transport)
        if self._server.admit(self):
            super().connection_made(transport)
        else:
            self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends."""
        self._to_client = None
        self._server.forget(self)
        super().connection_lost(exc)

    def abort(self) -> None:
        """Ends at once, with what has not been sent."""
        if self._to_client is not None:
            self._to_client.abort()

    async def start(self) -> None:
        """Answers requests until the connection ends."""
        try:
            await super().start()
        finally:
            # A transport that is closed waits for the client to take the rest, without an end of its own.
            asyncio.get_running_loop().call_later(self._server.limits.linger, self.abort)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends an answer. Raises ConnectionResetError when the client does not take it in time."""
        async with in_time(request, self._server.limits.write):
            return await super().finish_response(request, resp, start_time)

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
            fault = Fault.TOO_LONG
        elif isinstance(exc, HttpProcessingError) or status < 500:
            fault = Fault.NOT_HTTP
        else:
            self._server.logger.error("a request failed", exc_info=exc, extra={"action": LogAction.INTERNAL_ERROR})
            fault = Fault.INTERNAL
        response = self._server.answer(fault)
        response.force_close()
        return response


@asynccontextmanager
async def in_time(request: web.BaseRequest, seconds: float) -> AsyncIterator[None]:
    """Ends the connection of a client that does not accept in `seconds` what the block sends.

    Raises ConnectionResetError then: otherwise the answer would stay in memory.
    """
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            yield
    except TimeoutError:
        if not timeout.expired():
            raise
        if (transport := request.transport) is not None:
            transport.abort()
        raise ConnectionResetError("the client does not read") from None


@asynccontextmanager
async def bounded(
    application: web.Application,
    limits: ConnectionLimits,
    *,
    most: int,
    logger: logging.Logger,
    shutdown_timeout: float,
    answer: Callable[[Fault], web.Response] = plain_answer,
    **options: Any,
) -> AsyncIterator[BoundedServer]:
    """An application behind a BoundedServer, while the block runs. shutdown_timeout: seconds for its last answers."""
    inner = web.AppRunner(application, access_log=None)
    await inner.setup()
    try:
        made = inner.server
        assert made is not None, "it is set up"
        server = BoundedServer(
            made.request_handler,
            limits,
            most=most,
            logger=logger,
            answer=answer,
            request_factory=made.request_factory,
            **options,
        )
        runner = web.ServerRunner(server, shutdown_timeout=shutdown_timeout)
        await runner.setup()
        try:
            yield server
        finally:
            await runner.cleanup()
    finally:
        await inner.cleanup()

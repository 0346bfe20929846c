"""The HTTP port: its connections, its TLS, its begin and its end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from gateway.answers import refusal_response
from gateway.application import Application, Settings
from gateway.calls import refusals
from gateway.calls.backend import Backend
from gateway.calls.callers import is_loopback
from gateway.limits import DEFAULT_HTTP_LIMITS, HttpLimits
from runtime.actions import LogAction
from runtime.forwarding import CannotListenFront
from runtime.http_connections import BoundedServer
from runtime.http_faults import Fault
from runtime.http_listening import Listening, listen

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
        server = BoundedServer(
            application.handle,
            self._limits,
            most=self._max_connections,
            logger=logger,
            answer=_answer,
            handler_cancellation=True,  # a client that leaves cancels its call
        )
        runner = web.ServerRunner(server, shutdown_timeout=LAST_GRACE)
        await runner.setup()
        try:
            try:
                listening = await listen(server, self._host, self._port, backend.tls, shares_port=backend.shares_port)
            except OSError as error:
                raise CannotListenFront.on(self._host, self._port) from error
            port = listening.port
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

    def __init__(self, application: Application, server: BoundedServer, listening: Listening, port: int) -> None:
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
        return self._server.number_open


def _answer(fault: Fault) -> web.Response:
    """The answer to a request that cannot be read, in the form of all errors."""
    text = f"{fault.text}: write it into the body" if fault is Fault.TOO_LONG else fault.text
    return refusal_response(refusals.malformed(text, http_code=fault.status))

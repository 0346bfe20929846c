"""The process of the console: its connection to the server, its port, its end."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from cryptography import x509

from console.access.api import OPTIONS, Api
from console.access.attempts import Network
from console.access.headers import fault_answer
from console.access.origins import is_loopback
from console.access.sessions import Sessions
from console.application import Console, Settings
from runtime.actions import LogAction
from runtime.clock import Clock
from runtime.http_connections import DEFAULT_LIMITS, ConnectionLimits, bounded
from runtime.http_listening import listen

SHUTDOWN_TIMEOUT = 5.0  # seconds for pages that are being made
# At the same time. A process may often have no more than 1,024 files and sockets, and those that are accepted in one
# turn of the event loop are above the number for a moment.
CONNECTIONS, BACKLOG = 500, 128

logger = logging.getLogger(__name__)


class CannotListen(Exception):
    """The console cannot listen on its address; the message says why."""


@dataclass(frozen=True)
class Server:
    """The server whose API the console shows.

    authorities: of the server's certificate, in PEM. trusts_files: they are the certificate itself, so its own name
    is expected. certificate, key: of the console, where the server asks for one.
    """

    address: str
    tls: bool = False
    authorities: bytes | None = None
    trusts_files: bool = False
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)

    def channel(self) -> grpc.aio.Channel:
        """A channel to it."""
        if not self.tls:
            return grpc.aio.insecure_channel(self.address, options=OPTIONS)
        options = list(OPTIONS)
        if self.trusts_files and self.authorities is not None:
            options.append(("grpc.ssl_target_name_override", name_of(self.authorities)))
        credentials = grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)
        return grpc.aio.secure_channel(self.address, credentials, options=options)


@dataclass(frozen=True)
class Listening:
    """Where the console listens. port 0: any free one. certificate, key: files in PEM; None: it has no TLS."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext | None:
        """The context of TLS. Raises CannotListen when the files cannot be used."""
        if self.certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise CannotListen(f"the certificate {self.certificate} and its key cannot be used: {error}") from None
        return context

    def url(self, port: int) -> str:
        """The address for a browser."""
        scheme = "http" if self.certificate is None else "https"
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"


def name_of(chain: bytes) -> str:
    """The first name in the first certificate of a chain in PEM."""
    certificate = x509.load_pem_x509_certificates(chain)[0]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = None
    if names is not None:
        found = [str(one) for one in names.get_values_for_type(x509.DNSName)]
        found += [str(one) for one in names.get_values_for_type(x509.IPAddress)]
        if found:
            return found[0].replace("*", "any", 1)
    return str(certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


@asynccontextmanager
async def running(
    server: Server,
    listening: Listening,
    clock: Clock,
    secret: bytes | None = None,
    proxies: Sequence[Network] = (),
    *,
    limits: ConnectionLimits = DEFAULT_LIMITS,
    most: int = CONNECTIONS,
) -> AsyncIterator[int]:
    """Serves the pages while the block runs; yields the port. Raises CannotListen.

    secret: see `Sessions`. proxies: see `Settings`. limits, most: of connections.
    """
    context = listening.context()
    allows_no_key = is_loopback(listening.host) and server.certificate is None
    if not is_loopback(listening.host) and context is None:
        logger.warning(
            "the console listens on %s without TLS: API keys cross the network in clear text, unless a proxy before"
            " it has TLS",
            listening.host,
            extra={"action": LogAction.CONSOLE},
        )
    async with server.channel() as channel:
        settings = Settings(Sessions(secret), clock, allows_no_key, proxies, limits.body)
        async with bounded(
            Console(Api(channel), settings).application,
            limits,
            most=most,
            logger=logger,
            shutdown_timeout=SHUTDOWN_TIMEOUT,
            answer=fault_answer,
            access_log=logger,
            access_log_class=_AccessLog,
        ) as server_of_pages:
            try:
                opened = await listen(server_of_pages, listening.host, listening.port, context, backlog=BACKLOG)
            except OSError as error:
                raise CannotListen(
                    f"cannot listen on {listening.host} port {listening.port} for the console:"
                    f" {error.strerror or error}"
                ) from None
            try:
                yield opened.port
            finally:
                opened.close()


async def serve(
    server: Server,
    listening: Listening,
    clock: Clock,
    on_listening: Callable[[str], None],
    stop: asyncio.Event,
    secret: bytes | None = None,
    proxies: Sequence[Network] = (),
) -> None:
    """Serves until `stop` is set. on_listening: called with the address for a browser. Raises CannotListen."""
    async with running(server, listening, clock, secret, proxies) as port:
        on_listening(listening.url(port))
        await stop.wait()


class _AccessLog(AbstractAccessLogger):
    """One line for each request, at the level DEBUG: without its query, which can name customers."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Writes the line."""
        self.logger.debug(
            "%s %s %d",
            request.method,
            request.path,
            response.status,
            extra={"action": LogAction.CONSOLE, "milliseconds": round(time * 1000, 1)},
        )

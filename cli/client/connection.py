"""The connection to a server: its address, the caller's credential and the channel."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from runtime.configuration import DEFAULT_MAX_MESSAGE_BYTES

UNARY_TIMEOUT = 10.0  # seconds
FIRST_PAUSE = 0.25  # seconds before a broken stream is opened again; doubled after each failure
LONGEST_PAUSE = 5.0  # seconds

Metadata = tuple[tuple[str, str], ...]

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", 4 * DEFAULT_MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # The streams have a back-off of their own. With gRPC's default of up to 120 seconds, a channel would still be
    # waiting when a stream is opened again.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


@dataclass(frozen=True)
class ClientTls:
    """TLS to a server, in PEM. authorities: of the server's certificate; None: those of the system.

    certificate, key: of the client, where the server asks for one.
    """

    authorities: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Address:
    """The address of a server, and the API key with which to call it.

    server: `HOST:PORT`, or another address that gRPC accepts. key: None while the server has no keys. tls: None: the
    connection has none.
    """

    server: str
    key: str | None = None
    tls: ClientTls | None = None

    @property
    def metadata(self) -> Metadata:
        """The metadata of every call: the API key, if there is one."""
        return () if self.key is None else (("authorization", f"Bearer {self.key}"),)

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        """A channel to the server, open within the block."""
        async with self._channel() as channel:
            yield channel

    def _channel(self) -> grpc.aio.Channel:
        if self.tls is None:
            return grpc.aio.insecure_channel(self.server, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(self.tls.authorities, self.tls.key, self.tls.certificate)
        return grpc.aio.secure_channel(self.server, credentials, options=_OPTIONS)

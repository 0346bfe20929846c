"""Where a server is and how to reach it: address, TLS and API key, from arguments or from the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from tidemark_client.connection.options import channel_options

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_TIMEOUT = 10.0  # seconds of a unary call without a timeout of its own
ADDRESS_VARIABLE = "TIDEMARK_SERVER"
KEY_VARIABLES = ("TIDEMARK_API_KEY", "TIDEMARK_KEY")  # the first that is set; the second is that of the commands
_SCHEMES = ("dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds")  # of addresses of gRPC

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tls:
    """TLS to a server. Each is the content of a PEM file, or the path of one.

    authorities: of the server's certificate; None: those of the system. certificate, key: of the client, for a server
    that asks for one. server_name: the name in the server's certificate, if it is not that of the address.
    """

    authorities: bytes | str | os.PathLike[str] | None = None
    certificate: bytes | str | os.PathLike[str] | None = None
    key: bytes | str | os.PathLike[str] | None = field(default=None, repr=False)
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """The credentials of a channel. Raises OSError when a file cannot be read, ValueError for half a pair."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key of the client belong together: give both or none")
        return grpc.ssl_channel_credentials(_pem(self.authorities), _pem(self.key), _pem(self.certificate))

    @property
    def options(self) -> Sequence[tuple[str, str]]:
        """The options of a channel."""
        return () if self.server_name is None else (("grpc.ssl_target_name_override", self.server_name),)


def _pem(source: bytes | str | os.PathLike[str] | None) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    if isinstance(source, str) and source.lstrip().startswith("-----BEGIN"):
        return source.encode()
    return Path(source).read_bytes()


@dataclass(frozen=True)
class Target:
    """A server, and what each call to it carries.

    address: `HOST:PORT`, or another address that gRPC accepts. tls: None: the connection has none. api_key: None
    while the server has no keys. timeout: seconds of a unary call without a timeout of its own. metadata: of each
    call, beside the key. options: of the channel.
    """

    address: str
    tls: Tls | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = DEFAULT_TIMEOUT
    metadata: Metadata = ()
    options: tuple[tuple[str, object], ...] = ()

    @classmethod
    def of(
        cls,
        address: str | None = None,
        *,
        tls: bool | Tls | None = None,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        metadata: Sequence[tuple[str, str]] = (),
        options: Sequence[tuple[str, object]] = (),
        user_agent: str = "",
    ) -> Target:
        """The target of the arguments of a client; see `Client`. Raises ValueError."""
        address = address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
        if "://" in address:
            raise ValueError(f"{address!r} is not an address of gRPC: write HOST:PORT, without a scheme")
        if not _has_port(address):
            raise ValueError(f"{address!r} has no port: write HOST:PORT, such as {DEFAULT_ADDRESS}")
        secure = (Tls() if tls else None) if isinstance(tls, bool) or tls is None else tls
        names = () if secure is None else secure.options
        return cls(
            address,
            secure,
            _checked_key(api_key) if api_key is not None else _key_of_environment(),
            timeout,
            tuple(metadata),
            (*channel_options(user_agent), *names, *options),
        )

    @property
    def call_metadata(self) -> Metadata:
        """The metadata of every call: the API key, if there is one, and the target's own."""
        key = () if self.api_key is None else (("authorization", f"Bearer {self.api_key}"),)
        return (*key, *self.metadata)

    def channel(self) -> grpc.Channel:
        """A channel for threads. Close it after use."""
        if self.tls is None:
            return grpc.insecure_channel(self.address, options=self.options)
        return grpc.secure_channel(self.address, self.tls.credentials(), options=self.options)

    def async_channel(self) -> grpc.aio.Channel:
        """A channel for the running event loop. Close it after use."""
        if self.tls is None:
            return grpc.aio.insecure_channel(self.address, options=self.options)
        return grpc.aio.secure_channel(self.address, self.tls.credentials(), options=self.options)


def _has_port(address: str) -> bool:
    """Whether an address ends with a port; also true for one with a scheme of gRPC, such as unix:PATH or dns:NAME."""
    scheme, colon, rest = address.partition(":")
    if colon and scheme in _SCHEMES:
        return bool(rest)
    host, colon, port = address.rpartition(":")
    # Of an IPv6 address without brackets, the last part is no port.
    return bool(host) and (":" not in host or host.endswith("]")) and port.isdecimal() and int(port) < 1 << 16


def _key_of_environment() -> str | None:
    for name in KEY_VARIABLES:
        if key := os.environ.get(name, "").strip():
            return _checked_key(key)
    return None


def _checked_key(key: str) -> str | None:
    """The key; None for an empty one. A key with other characters would fail in gRPC, with an unclear message."""
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("this is not an API key: a key is tmk_ and letters, digits, - and _, without blanks")
    return key or None

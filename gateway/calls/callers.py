"""Who calls over HTTP: what of a request goes on to the server behind as metadata."""

import ipaddress
import ssl
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from gateway.calls.backend import Metadata
from runtime.forwarding import CERTIFICATE_KEY, MAX_USER_AGENT, PEER_KEY, SECRET_KEY, USER_AGENT_KEY

# The headers of a request that go on. All others stay here: a caller cannot invent what only this front says.
_PASSED = {"x-request-id", "traceparent", "tracestate", "x-forwarded-client-cert"}
MAX_VALUE = 4_096  # characters of a header that goes on


def metadata_of(request: web.BaseRequest, secret: str) -> Metadata:
    """The metadata of the call of a request: its credentials, and where it comes from."""
    found: list[tuple[str, str | bytes]] = [(SECRET_KEY, secret), (PEER_KEY, peer_of(request.transport))]
    for name, value in request.headers.items():
        key = name.lower()
        if key == "authorization":
            # One that gRPC cannot send is as good as an empty one, which is refused.
            found.append((key, value if _is_sendable(value) else ""))
        elif key == "user-agent":
            found.append((USER_AGENT_KEY, _printable(value)[:MAX_USER_AGENT]))
        elif key in _PASSED and _is_sendable(value):
            found.append((key, value))
    certificate = certificate_of(request.transport)
    if certificate is not None:
        found.append((CERTIFICATE_KEY, certificate))
    return tuple(found)


def peer_of(transport: Any) -> str:
    """The address of the client, as gRPC names a peer."""
    name = None if transport is None else transport.get_extra_info("peername")
    if not isinstance(name, tuple) or len(name) < 2:
        return "unknown:"
    host, port = str(name[0]), name[1]
    return f"ipv6:%5B{host.replace('%', '%25')}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"


def certificate_of(transport: Any) -> bytes | None:
    """The client's certificate in DER, which TLS has checked; None without one."""
    connection = None if transport is None else transport.get_extra_info("ssl_object")
    if not isinstance(connection, ssl.SSLObject | ssl.SSLSocket):
        return None
    return connection.getpeercert(binary_form=True)


def is_anonymous(request: web.BaseRequest) -> bool:
    """Whether nothing in a request says who calls."""
    return "Authorization" not in request.headers and certificate_of(request.transport) is None


def is_loopback(host: str) -> bool:
    """Whether only callers on this machine reach a port on this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_this_machine(headers: Mapping[str, str]) -> bool:
    """Whether the header Host is an address or localhost, and no name that a web page could have."""
    host = headers.get("Host", "")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _is_sendable(value: str) -> bool:
    return len(value) <= MAX_VALUE and value.isascii() and value.isprintable()


def _printable(value: str) -> str:
    return "".join(character if character.isascii() and character.isprintable() else "?" for character in value)

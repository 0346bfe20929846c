"""From where a request comes: whether its host is this machine, and whether a post comes from a page of ours."""

import hmac
import ipaddress

from aiohttp import hdrs, web
from yarl import URL

_SAME_SITE = {"same-origin", "none"}  # of Sec-Fetch-Site; none: the address bar


def is_loopback_host(request: web.Request) -> bool:
    """Whether the Host header names this machine.

    A page of another site can let its own name resolve to 127.0.0.1, and is then of the same origin as this server.
    Its requests still have that name as their host.
    """
    try:
        host = URL(f"http://{request.host}").host or ""
    except ValueError:
        return False
    return is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether a host, as it is listened on or named in a header, is this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_of_this_site(request: web.Request) -> bool:
    """Whether the browser says that the request was caused by a page of this console, or by the visitor directly."""
    if request.headers.get("Sec-Fetch-Site", "none") not in _SAME_SITE:
        return False
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None:
        return True
    try:
        return URL(origin).authority == request.host or _without_port(URL(origin)) == request.host
    except ValueError:
        return False


def _without_port(url: URL) -> str:
    return url.host or ""


def is_token(sent: str, expected: str) -> bool:
    """Whether the token of a form is that of the session."""
    return hmac.compare_digest(sent.encode(), expected.encode())

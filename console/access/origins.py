"""From where a request comes: from this machine, from a page of this console, from a page of another site."""

import hmac
import ipaddress

from aiohttp import hdrs, web
from yarl import URL

_FORWARDED = {"forwarded", "x-real-ip", "via"}
_SAME_SITE = {"same-origin", "none"}  # of Sec-Fetch-Site; none: the address bar


def host_of(request: web.Request) -> str:
    """The Host header; empty without one, for which aiohttp's `host` would wait for an answer of DNS."""
    return request.headers.get(hdrs.HOST, "")


def is_loopback_host(request: web.Request) -> bool:
    """Whether the Host header names this machine.

    A page of another site can let its own name resolve to 127.0.0.1, and is then of the same origin as this server.
    Its requests still have that name as their host.
    """
    try:
        host = URL(f"http://{host_of(request)}").host or ""
    except ValueError:
        return False
    return is_loopback(host)


def is_forwarded(request: web.Request) -> bool:
    """Whether a proxy says that it has the request from another client, which can be on any machine."""
    return any(name.lower() in _FORWARDED or name.lower().startswith("x-forwarded-") for name in request.headers)


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
        return host_of(request) in (URL(origin).authority, URL(origin).host)
    except ValueError:
        return False


def is_part_of_another_site(request: web.Request) -> bool:
    """Whether a page of another site has loaded this in itself: as a frame, a picture, a script, or by a script.

    It cannot read the answer. But it could ask often, and conclude from the time of the answer what exists. A link to
    a page of this console is no such request.
    """
    if request.headers.get("Sec-Fetch-Site", "none") in _SAME_SITE:
        return False
    return request.headers.get("Sec-Fetch-Mode") != "navigate" or request.headers.get("Sec-Fetch-Dest") != "document"


def is_token(sent: str, expected: str) -> bool:
    """Whether the token of a form is that of the session."""
    return hmac.compare_digest(sent.encode(), expected.encode())

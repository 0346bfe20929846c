"""The cookie of a session: its name, its flags."""

from aiohttp import web
from yarl import URL

from console.access.origins import host_of
from console.access.sessions import LIFETIME

COOKIE = "tidemark_console"


def is_secure(request: web.Request) -> bool:
    """Whether the browser speaks HTTPS, to this console or to a proxy before it."""
    return request.secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https"


def name(request: web.Request) -> str:
    """The name of the cookie. It has the port that the browser sees, except the default one of its scheme.

    Browsers send a cookie to all ports of a host, so two consoles of one host would end each other's sessions.
    """
    try:
        port = URL(f"//{host_of(request)}").explicit_port
    except ValueError:
        port = None
    own = f"{COOKIE}_{port}" if port is not None else COOKIE
    return f"__Host-{own}" if is_secure(request) else own


def read(request: web.Request) -> str | None:
    """The value that the browser has sent."""
    return request.cookies.get(name(request))


def write(request: web.Request, response: web.StreamResponse, value: str) -> None:
    """Adds the cookie to an answer."""
    response.set_cookie(
        name(request),
        value,
        max_age=int(LIFETIME.total_seconds()),
        path="/",
        httponly=True,
        secure=is_secure(request),
        samesite="Strict",
    )


def remove(request: web.Request, response: web.StreamResponse) -> None:
    """Takes the cookie from the browser."""
    response.del_cookie(name(request), path="/", secure=is_secure(request), httponly=True, samesite="Strict")

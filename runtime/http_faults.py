"""What an HTTP port answers without its handlers, and the headers that none of its plain answers lacks."""

import enum

from aiohttp import hdrs, web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

SERVER_NAME = "tidemark"  # of the header Server: without one, aiohttp writes its version and that of Python

_TOO_MANY = "Too many headers"  # how aiohttp begins the message about them

_PLAIN_HEADERS = {
    hdrs.SERVER: SERVER_NAME,
    hdrs.CACHE_CONTROL: "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class Fault(enum.Enum):
    """Why a request is answered without a handler: the status, and what is wrong."""

    NOT_HTTP = 400, "this is no request of HTTP/1.1"
    TOO_LONG = 431, "the request line or a header is too long, or there are too many headers"
    INTERNAL = 500, "internal error"

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self.value[0]

    @property
    def text(self) -> str:
        """What is wrong."""
        return self.value[1]


def is_head_too_large(error: BaseException | None) -> bool:
    """Whether a request cannot be read because a line of its head is too long, or it has too many headers.

    For the number of headers aiohttp has no exception of its own.
    """
    return isinstance(error, LineTooLong) or (
        isinstance(error, BadHttpMessage) and error.message.startswith(_TOO_MANY)
    )


def plain_answer(fault: Fault) -> web.Response:
    """The answer to a fault as a line of text."""
    return web.Response(status=fault.status, text=f"{fault.text}\n", headers=_PLAIN_HEADERS)


async def add_plain_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Adds the headers to an answer that is not made for browsers."""
    response.headers.update(_PLAIN_HEADERS)

"""What an HTTP port answers without its handlers, and the headers that none of its plain answers lacks."""

import enum

from aiohttp import hdrs, web

SERVER_NAME = "tidemark"  # of the header Server: without one, aiohttp writes its version and that of Python

_PLAIN_HEADERS = {
    hdrs.SERVER: SERVER_NAME,
    hdrs.CACHE_CONTROL: "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class Fault(enum.Enum):
    """Why a request is answered without a handler: the status, and what is wrong."""

    NOT_HTTP = 400, "this is no request of HTTP/1.1"
    TOO_LONG = 431, "the request line or a header is too long"
    INTERNAL = 500, "internal error"

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self.value[0]

    @property
    def text(self) -> str:
        """What is wrong."""
        return self.value[1]


def plain_answer(fault: Fault) -> web.Response:
    """The answer to a fault as a line of text."""
    return web.Response(status=fault.status, text=f"{fault.text}\n", headers=_PLAIN_HEADERS)


async def add_plain_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Adds the headers to an answer that is not made for browsers."""
    response.headers.update(_PLAIN_HEADERS)

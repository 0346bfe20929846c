"""Heads of HTTP requests that are too large, as aiohttp reports them."""

from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

_TOO_MANY = "Too many headers"


def is_head_too_large(error: BaseException | None) -> bool:
    """Whether a request cannot be read because a line of its head is too long, or it has too many headers.

    For the number of headers aiohttp has no exception of its own.
    """
    return isinstance(error, LineTooLong) or (
        isinstance(error, BadHttpMessage) and error.message.startswith(_TOO_MANY)
    )

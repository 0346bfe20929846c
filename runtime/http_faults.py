"""The log of HTTP servers, without requests that cannot be parsed."""

import logging

from aiohttp.http_exceptions import HttpProcessingError


def _is_fault(record: logging.LogRecord) -> bool:
    """Whether the fault is the server's own.

    The exception of a request that cannot be parsed quotes a line of it, which can contain a key or a session. And
    any client could fill the log with such requests. The client gets the answer 400.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


http_logger = logging.getLogger(__name__)
http_logger.addFilter(_is_fault)

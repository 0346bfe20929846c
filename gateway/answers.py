"""Answers over HTTP: JSON, its compression, and clients that take what they get too slowly."""

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import hdrs, web

from gateway.bodies import JSON
from gateway.calls import refusals
from gateway.limits import HttpLimits
from runtime.http_connections import in_time
from runtime.http_faults import SERVER_NAME

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
EVENT_STREAM = "text/event-stream"
LINES = "application/x-ndjson"


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None, content_type: str = JSON
) -> web.Response:
    """An answer with a JSON value."""
    return bytes_response(orjson.dumps(value), status, headers, content_type)


def bytes_response(
    body: bytes, status: int = 200, headers: Mapping[str, str] | None = None, content_type: str = JSON
) -> web.Response:
    """An answer with JSON that is encoded already."""
    return web.Response(body=body, status=status, headers={**_HEADERS, **(headers or {})}, content_type=content_type)


def refusal_response(refusal: refusals.Refusal) -> web.Response:
    """The answer that refuses a request."""
    # Some refusals are sent without `send`. Otherwise aiohttp would name its version and that of Python.
    headers = {**refusal.all_headers(), hdrs.SERVER: "tidemark"}
    return bytes_response(refusal.body(), refusal.http_code, headers)


def stream_response(content_type: str) -> web.StreamResponse:
    """An answer whose parts are sent one by one. Proxies are asked not to keep them back."""
    headers = {"Content-Type": content_type, "X-Accel-Buffering": "no", "Server": SERVER_NAME}
    return web.StreamResponse(headers={**_HEADERS, **headers})


async def send(request: web.BaseRequest, response: web.StreamResponse, limits: HttpLimits) -> web.StreamResponse:
    """Sends an answer, compressed where the client understands that.

    A client that does not take it in time loses its connection: otherwise the answer would stay in memory.
    """
    if (
        isinstance(response, web.Response)
        and isinstance(response.body, bytes)
        and len(response.body) >= limits.gzip_from
        and hdrs.CONTENT_ENCODING not in response.headers
        and request.method != hdrs.METH_HEAD
    ):
        response.headers[hdrs.VARY] = "Accept-Encoding" + (
            f", {response.headers[hdrs.VARY]}" if hdrs.VARY in response.headers else ""
        )
        if accepts_coding(request.headers.get(hdrs.ACCEPT_ENCODING, ""), "gzip"):
            response.enable_compression(web.ContentCoding.gzip)
    response.headers.setdefault(hdrs.SERVER, SERVER_NAME)
    async with in_time(request, limits.write):
        await response.prepare(request)
        await response.write_eof()
    return response


def accepts_coding(header: str, coding: str) -> bool:
    """Whether Accept-Encoding allows a coding."""
    weights = _weights(header)
    return weights.get(coding, weights.get("*", 0.0)) > 0


def chosen_type(accept: str, offered: tuple[str, ...]) -> str | None:
    """The first of the offered types that the header Accept likes best; None if it allows none."""
    if not accept.strip():
        return offered[0]
    weights = _weights(accept)

    def weight(kind: str) -> float:
        for pattern in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
            if pattern in weights:
                return weights[pattern]
        return 0.0

    best = max(offered, key=weight)
    return best if weight(best) > 0 else None


def _weights(header: str) -> dict[str, float]:
    """The values of a header such as Accept, each with its weight."""
    found = {}
    for part in header.split(","):
        value, *parameters = (one.strip() for one in part.split(";"))
        if value:
            found[value.lower()] = min(
                (_weight(one) for one in parameters if one.lower().startswith("q=")), default=1.0
            )
    return found


def _weight(parameter: str) -> float:
    try:
        return float(parameter[2:])
    except ValueError:
        return 0.0

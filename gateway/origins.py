"""Web pages in browsers: which may call (CORS), and that no other page uses a browser on this machine."""

from collections.abc import Collection
from urllib.parse import urlsplit

from aiohttp import web
from google.rpc import code_pb2

from gateway.calls import refusals
from gateway.calls.callers import is_anonymous, names_this_machine
from generated.tidemark.v1 import error_reason_pb2

ALLOWED_HEADERS = (
    "authorization, content-type, if-match, last-event-id, request-timeout, traceparent, tracestate, x-request-id"
)
EXPOSED_HEADERS = "etag, retry-after, x-request-id"
MAX_AGE = 600  # seconds that a browser remembers what is allowed


def check_origin(request: web.BaseRequest, allowed: Collection[str]) -> dict[str, str]:
    """The headers of the answer for a page of this origin. Raises Refusal for a page that may not call.

    A browser sends some requests of any page without a question before, and only keeps the answer from the page. So
    such requests are refused here.
    """
    origin = request.headers.get("Origin")
    if origin is None or (origin not in allowed and "*" not in allowed and _is_own(request, origin)):
        return {}
    if origin not in allowed and "*" not in allowed:
        raise refusals.refusal(
            code_pb2.UNAUTHENTICATED,
            error_reason_pb2.ERROR_REASON_UNAUTHENTICATED,
            f"pages of {origin[:100]} may not call: name the origin in TIDEMARK_HTTP_ALLOW_ORIGINS",
            http_code=403,
            headers={"Vary": "Origin"},
        )
    return {
        "Access-Control-Allow-Origin": "*" if "*" in allowed else origin,
        "Access-Control-Expose-Headers": EXPOSED_HEADERS,
        "Vary": "Origin",
    }


def preflight_headers(methods: Collection[str]) -> dict[str, str]:
    """What the answer to a browser's question says beside the origin."""
    return {
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": ALLOWED_HEADERS,
        "Access-Control-Max-Age": str(MAX_AGE),
    }


def check_host(request: web.BaseRequest) -> None:
    """Raises Refusal for a request without credentials that reaches this machine by a name.

    Without a key, callers on this machine are served as long as no key exists. The browser on it is one of them, and
    a page can give its own name the address of this machine.
    """
    if is_anonymous(request) and not names_this_machine(request.headers):
        raise refusals.refusal(
            code_pb2.UNAUTHENTICATED,
            error_reason_pb2.ERROR_REASON_UNAUTHENTICATED,
            "the request has no API key: send the header Authorization: Bearer KEY"
            " (without a key, a request must name this machine as localhost or by its address)",
        )


def _is_own(request: web.BaseRequest, origin: str) -> bool:
    return urlsplit(origin).netloc.lower() == request.headers.get("Host", "").lower()

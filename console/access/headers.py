"""The headers of every answer: what the browser may load, that no site may frame a page, and what it may keep."""

from aiohttp import hdrs, web

from console.access.origins import is_loopback_host
from runtime.http_faults import SERVER_NAME, Fault, plain_answer

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_ALWAYS = {
    hdrs.SERVER: SERVER_NAME,
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Ids of customers are in the addresses of pages: other sites must not see them.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_ONE_YEAR = 31_536_000  # seconds


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Adds them to an answer before it is sent. Pages are not stored anywhere; static files say so themselves."""
    response.headers.update(_ALWAYS)
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    if request.secure and not is_loopback_host(request):  # of this machine, it would cut off other programs' pages
        response.headers["Strict-Transport-Security"] = f"max-age={_ONE_YEAR}"


def fault_answer(fault: Fault) -> web.Response:
    """The answer to a request that cannot be read, with the same headers."""
    answer = plain_answer(fault)
    answer.headers.update(_ALWAYS)
    return answer

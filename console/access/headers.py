"""The headers of every answer: what the browser may load, that nobody may frame a page, and what it may keep."""

from aiohttp import hdrs, web

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
    response.headers.pop(hdrs.SERVER, None)
    if request.secure:
        response.headers["Strict-Transport-Security"] = f"max-age={_ONE_YEAR}"

"""What the port says about itself: a landing answer, the OpenAPI document, and its health."""

import gzip
from functools import cache
from importlib.metadata import version
from importlib.resources import files

from aiohttp import web

from gateway.answers import accepts_coding, json_response

JSON_OF_OPENAPI = "application/json"


def landing() -> web.Response:
    """What is here."""
    return json_response(
        {
            "name": "Tidemark",
            "version": version("tidemark"),
            "description": "HTTP and JSON in front of the gRPC API tidemark.v1: alerts, usage, balances, webhooks.",
            "openapi": "/openapi.json",
            "health": ["/healthz", "/readyz"],
            "authentication": "Authorization: Bearer KEY",
        }
    )


@cache
def _document() -> tuple[bytes, bytes]:
    """The OpenAPI document, and the same compressed."""
    document = (files("gateway") / "openapi.json").read_bytes()
    return document, gzip.compress(document)


def openapi(request: web.BaseRequest) -> web.Response:
    """The OpenAPI document of the contract, as in docs/openapi.json."""
    plain, compressed = _document()
    headers = {"Cache-Control": "max-age=3600", "Vary": "Accept-Encoding"}
    if accepts_coding(request.headers.get("Accept-Encoding", ""), "gzip"):
        return web.Response(
            body=compressed, headers={**headers, "Content-Encoding": "gzip"}, content_type=JSON_OF_OPENAPI
        )
    return web.Response(body=plain, headers=headers, content_type=JSON_OF_OPENAPI)


def health(holds: bool, word: str) -> web.Response:
    """The answer to a probe."""
    return web.Response(
        status=200 if holds else 503,
        text=f"{word}\n" if holds else f"not {word}\n",
        headers={"Cache-Control": "no-store"},
    )

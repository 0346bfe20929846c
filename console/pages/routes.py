"""Which page has which address."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from console.access.visit import Visit
from console.pages import customers, overview

Page = Callable[[Visit], Awaitable[web.StreamResponse]]


def routes() -> list[tuple[str, str, Page]]:
    """Method, path and page of each."""
    return [
        ("GET", "/", overview.page),
        ("GET", "/overview/live", overview.live),
        ("GET", "/customers", customers.listed),
        ("GET", "/customer", customers.one),
    ]

"""Fixtures of the HTTP port."""

from collections.abc import AsyncIterator

import pytest

from gateway.limits import HttpLimits
from tests.support.gateway.echo import Echo, echoing
from tests.support.gateway.http import HttpClient


@pytest.fixture(scope="module")
async def echo_and_client() -> AsyncIterator[tuple[Echo, HttpClient]]:
    """A server that notes what it gets, and a client of the HTTP port in front of it; of the whole module."""
    async with echoing(HttpLimits(linger=0.1)) as both:
        yield both


@pytest.fixture
def echo(echo_and_client: tuple[Echo, HttpClient]) -> Echo:
    """The server."""
    server, _ = echo_and_client
    server.answers, server.refused = (), None
    return server


@pytest.fixture
def http(echo_and_client: tuple[Echo, HttpClient]) -> HttpClient:
    """The client."""
    return echo_and_client[1]

"""Fixtures of the HTTP port."""

from collections.abc import AsyncIterator

import pytest

from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.databases import NOON
from tests.support.gateway.http import HttpServer, serving_http
from tests.support.server.sharing import StandingClock
from tests.support.usage.fixtures import shared_database_url, shared_pool
from tests.support.usage.organizations import create_organization

__all__ = ["shared_database_url", "shared_pool"]

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


@pytest.fixture(scope="module")
async def http_server(shared_pool: Database) -> AsyncIterator[HttpServer]:
    """A real server, of the whole module. Its clock stands still."""
    async with serving_http(shared_pool, StandingClock(NOON)) as server:
        yield server


@pytest.fixture
async def client(http_server: HttpServer, shared_pool: Database) -> HttpClient:
    """A client of the module's server, as an organization of this test's own."""
    _, key = await create_organization(shared_pool, ManualClock(NOON))
    return http_server.client.with_key(key)

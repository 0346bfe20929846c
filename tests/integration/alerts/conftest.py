"""Fixtures: a server and clients of two organizations; the caller of usage tests; an organization in the store."""

from collections.abc import AsyncIterator

import pytest

from runtime.clock import ManualClock
from server.limits import DEFAULT_SERVER_LIMITS, ServerLimits
from store.identity import keys
from store.postgres.database import Database
from tests.support.alerts.client import Client
from tests.support.alerts.stored import organization_id
from tests.support.server.running import Running, running
from tests.support.server.sharing import is_shared
from tests.support.usage.fixtures import (
    caller,
    caller_of_own_server,
    caller_of_shared_server,
    own_pool,
    shared_database_url,
    shared_pool,
    shared_server,
)
from tests.support.usage.organizations import create_organization

__all__ = [
    "api_keys",
    "caller",
    "caller_of_own_server",
    "caller_of_shared_server",
    "clients",
    "keys_of_shared_server",
    "organization_id",
    "ours",
    "own_pool",
    "server",
    "shared_database_url",
    "shared_pool",
    "shared_server",
    "theirs",
]

for _module in ("answers", "clients", "story"):
    pytest.register_assert_rewrite(f"tests.support.story.{_module}")


@pytest.fixture
async def api_keys(database: Database, clock: ManualClock) -> tuple[str, str]:
    """The keys of the organizations `ours` and `theirs`."""
    async with database.transaction() as connection:
        ours = await keys.create_key(connection, "ours", clock.now())
        theirs = await keys.create_key(connection, "theirs", clock.now())
    return ours.key, theirs.key


@pytest.fixture
async def server(
    database: Database, clock: ManualClock, api_keys: tuple[str, str], server_limits: ServerLimits
) -> AsyncIterator[Running]:
    """A server of this test's own; calls without a key are refused."""
    async with running(database, clock, server_limits=server_limits) as server:
        yield server


@pytest.fixture
async def keys_of_shared_server(shared_server: tuple[Running, Database], clock: ManualClock) -> tuple[str, str]:
    """The keys of two organizations of this test's own."""
    _, database = shared_server
    _, ours = await create_organization(database, clock)
    _, theirs = await create_organization(database, clock)
    return ours, theirs


@pytest.fixture
def clients(request: pytest.FixtureRequest, server_limits: ServerLimits) -> tuple[Client, Client]:
    """Clients of two organizations; see `shares_server` for whose server it is, which else gets the limits."""
    if is_shared(request):
        assert server_limits == DEFAULT_SERVER_LIMITS, "see `own_server`"
        server, _ = request.getfixturevalue("shared_server")
        ours, theirs = request.getfixturevalue("keys_of_shared_server")
    else:
        server = request.getfixturevalue("server")
        ours, theirs = request.getfixturevalue("api_keys")
    return Client(server.channel, ours), Client(server.channel, theirs)


@pytest.fixture
def ours(clients: tuple[Client, Client]) -> Client:
    """A client of the organization under test, whose name is `ours` on a server of the test's own."""
    return clients[0]


@pytest.fixture
def theirs(clients: tuple[Client, Client]) -> Client:
    """A client of another organization."""
    return clients[1]

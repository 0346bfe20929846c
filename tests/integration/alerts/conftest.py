"""Fixtures: a server and clients of two organizations; the caller of usage tests; an organization in the store."""

from collections.abc import AsyncIterator

import pytest

from runtime.clock import ManualClock
from store.identity import keys
from store.postgres.database import Database
from tests.support.alerts.client import Client
from tests.support.alerts.stored import organization_id
from tests.support.server.running import Running, running
from tests.support.usage.fixtures import caller, shared_database_url

__all__ = ["api_keys", "caller", "organization_id", "ours", "server", "shared_database_url", "theirs"]

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
async def server(database: Database, clock: ManualClock, api_keys: tuple[str, str]) -> AsyncIterator[Running]:
    """A server of this test's own; calls without a key are refused."""
    async with running(database, clock) as server:
        yield server


@pytest.fixture
def ours(server: Running, api_keys: tuple[str, str]) -> Client:
    """A client of the organization `ours`."""
    return Client(server.channel, api_keys[0])


@pytest.fixture
def theirs(server: Running, api_keys: tuple[str, str]) -> Client:
    """A client of another organization."""
    return Client(server.channel, api_keys[1])

"""Fixtures for tests of what customers hold and owe."""

from collections.abc import AsyncIterator

import pytest

from generated.tidemark.v1 import account_service_pb2_grpc
from runtime.clock import ManualClock
from store import organizations
from store.database import Database
from tests.integration.server.running import Running, running


@pytest.fixture
async def api(database: Database, clock: ManualClock) -> AsyncIterator[Running]:
    """A server with the services of the API."""
    async with running(database, clock) as server:
        yield server


@pytest.fixture
def accounts(api: Running) -> account_service_pb2_grpc.AccountServiceStub:
    """A stub of AccountService."""
    return account_service_pb2_grpc.AccountServiceStub(api.channel)


@pytest.fixture
async def org(database: Database, clock: ManualClock) -> int:
    """The id of an organization, for tests that go to the store itself."""
    async with database.transaction() as connection:
        return await organizations.get_or_create(connection, "acme", clock.now())

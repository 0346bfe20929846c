"""Fixtures for tests that talk to a running server."""

from collections.abc import AsyncIterator

import pytest

from runtime.clock import ManualClock
from server.limits import ServerLimits
from store.postgres.database import Database
from tests.support.server.odd_service import OddClient, OddService
from tests.support.server.running import Running, running


@pytest.fixture
def odd_service() -> OddService:
    """The handlers of the odd service."""
    return OddService()


@pytest.fixture
async def odd_server(
    database: Database, clock: ManualClock, odd_service: OddService, server_limits: ServerLimits
) -> AsyncIterator[Running]:
    """A server with the odd service only."""
    async with running(database, clock, odd_service.register, server_limits=server_limits) as server:
        yield server


@pytest.fixture
def odd(odd_server: Running) -> OddClient:
    """A client of the odd service."""
    return OddClient(odd_server.channel)


@pytest.fixture
async def api(database: Database, clock: ManualClock, server_limits: ServerLimits) -> AsyncIterator[Running]:
    """A server with the services of the API."""
    async with running(database, clock, server_limits=server_limits) as server:
        yield server

"""A server of the API for the tests of the audit log."""

from collections.abc import AsyncIterator

import pytest

from engine.limits import DEFAULT_LIMITS, EngineLimits
from runtime.clock import ManualClock, SystemClock
from server.limits import ServerLimits
from store.postgres.database import Database
from tests.support.audit.api import AuditedApi
from tests.support.notifier.house import House
from tests.support.server.running import running


@pytest.fixture
def engine_limits() -> EngineLimits:
    """The limits of the server's engine; a test may override them."""
    return DEFAULT_LIMITS


@pytest.fixture
async def api(database: Database, clock: ManualClock, engine_limits: EngineLimits) -> AsyncIterator[AuditedApi]:
    """A server that polls for new entries often, and callers of two organizations."""
    limits = ServerLimits(audit_poll_interval=0.02, revocation_interval=0.02)
    async with running(database, clock, engine_limits=engine_limits, server_limits=limits) as server:
        yield await AuditedApi.open(server, database, clock)


@pytest.fixture
async def house(database: Database) -> House:
    """What surrounds a notifier."""
    return await House.build(database, SystemClock())

"""Fixtures of the integration ring: a real PostgreSQL, and a fresh, migrated database for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest

from engine.limits import DEFAULT_LIMITS, EngineLimits
from runtime.clock import ManualClock
from server.limits import DEFAULT_SERVER_LIMITS, ServerLimits
from store.postgres.database import Database
from tests.support.databases import NOON, Template
from tests.support.server.sharing import StandingClock, is_shared

# Here, because folders before usage/ import it, too.
pytest.register_assert_rewrite(
    "tests.support.usage.comparison", "tests.support.usage.twins", "tests.support.usage.twin_stories"
)


@pytest.fixture
def database_url(template: Template) -> Iterator[str]:
    """The URL of a migrated database of this test's own."""
    with template.lent_database() as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on a migrated database of this test's own."""
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
def clock(request: pytest.FixtureRequest) -> ManualClock:
    """A clock that stands at noon in the middle of a month; a test that shares its server cannot move it."""
    return StandingClock(NOON) if is_shared(request) else ManualClock(NOON)


@pytest.fixture
def engine_limits() -> EngineLimits:
    """The limits of the server of `caller`; a test that needs others gives them with `parametrize`."""
    return DEFAULT_LIMITS


@pytest.fixture
def server_limits() -> ServerLimits:
    """The limits of the servers that fixtures start. A module, or the mark `with_server_limits`, overrides them."""
    return DEFAULT_SERVER_LIMITS

"""Fixtures of the integration ring: a real PostgreSQL, and a migrated, empty database for each test."""

from collections.abc import Iterator

import pytest

from engine.limits import DEFAULT_LIMITS, EngineLimits
from runtime.clock import ManualClock
from server.limits import DEFAULT_SERVER_LIMITS, ServerLimits
from tests.support.databases import NOON, Template
from tests.support.emptied import (
    database,
    database_url,
    emptied_database,
    pool_of_emptied_database,
    pool_of_own_database,
)
from tests.support.server.sharing import StandingClock, is_shared

__all__ = [
    "clock",
    "database",
    "database_url",
    "emptied_database",
    "engine_limits",
    "pool_of_emptied_database",
    "pool_of_own_database",
    "server_limits",
]

# Here, because folders before usage/ import it, too.
pytest.register_assert_rewrite(
    "tests.support.usage.comparison", "tests.support.usage.twins", "tests.support.usage.twin_stories"
)


@pytest.fixture
def clock(request: pytest.FixtureRequest) -> ManualClock:
    """A clock that stands at noon in the middle of a month; a test that shares its server cannot move it."""
    return StandingClock(NOON) if is_shared(request) else ManualClock(NOON)


@pytest.fixture
def empty_url(template: Template) -> Iterator[str]:
    """The URL of a database without tables."""
    with template.empty_database() as url:
        yield url


@pytest.fixture
def engine_limits() -> EngineLimits:
    """The limits of the server of `caller`; a test that needs others gives them with `parametrize`."""
    return DEFAULT_LIMITS


@pytest.fixture(scope="module")
def native_decoder() -> bool:
    """Whether the servers of `caller` decode usage natively, where that is compiled. A module overrides it."""
    return True


@pytest.fixture
def server_limits() -> ServerLimits:
    """The limits of the servers that fixtures start. A module, or the mark `with_server_limits`, overrides them."""
    return DEFAULT_SERVER_LIMITS

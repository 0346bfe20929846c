"""Fixtures of tests that use the service: a server in this process with a manual clock, and a caller of it.

The tests of one module share a database and the connections to it, and each test has an organization of its own. That
saves most of their time, and a leak from one organization into another fails an unrelated test. Tests with the mark
`shares_server` also share a server. The conftest.py of a folder imports these fixtures.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from engine.limits import DEFAULT_LIMITS, EngineLimits
from runtime.clock import ManualClock
from server.limits import DEFAULT_SERVER_LIMITS, ServerLimits
from store.postgres.database import Database
from tests.support.databases import NOON, Template
from tests.support.server.running import Running, running
from tests.support.server.sharing import StandingClock, has_own_connections, is_shared
from tests.support.usage.caller import Caller, settings
from tests.support.usage.organizations import create_organization


@pytest.fixture(scope="module")
def shared_database_url(template: Template) -> Iterator[str]:
    """The URL of the module's database."""
    with template.lent_database() as url:
        yield url


@pytest.fixture(scope="module")
async def shared_pool(shared_database_url: str) -> AsyncIterator[Database]:
    """The connections that the servers of the module's tests use one after another."""
    database = Database(shared_database_url)
    yield database
    await database.close()


@pytest.fixture(scope="module")
async def shared_server(shared_database_url: str, native_decoder: bool) -> AsyncIterator[tuple[Running, Database]]:
    """The server that tests of the module share, and its pool."""
    database = Database(shared_database_url)
    try:
        async with running(database, StandingClock(NOON), configuration=settings(native=native_decoder)) as server:
            yield server, database
    finally:
        await database.close()


@pytest.fixture
async def caller_of_shared_server(
    shared_server: tuple[Running, Database], shared_database_url: str, clock: ManualClock
) -> Caller:
    """A caller of the module's server, as an organization of this test's own."""
    server, database = shared_server
    name, key = await create_organization(database, clock)
    return Caller(server, clock, shared_database_url, name, key)


@pytest.fixture
async def own_pool(request: pytest.FixtureRequest, shared_pool: Database) -> AsyncIterator[Database]:
    """The connections of a server of this test's own; see `own_connections`."""
    if not has_own_connections(request):
        yield shared_pool
        return
    database = Database(shared_pool.url)
    yield database
    await database.close()
    await shared_pool.close()  # it opens new connections for the tests after this one


@pytest.fixture
async def caller_of_own_server(
    own_pool: Database,
    clock: ManualClock,
    engine_limits: EngineLimits,
    server_limits: ServerLimits,
    native_decoder: bool,
) -> AsyncIterator[Caller]:
    """A caller of a server of this test's own, as an organization of this test's own."""
    name, key = await create_organization(own_pool, clock)
    async with running(
        own_pool,
        clock,
        configuration=settings(native=native_decoder),
        engine_limits=engine_limits,
        server_limits=server_limits,
    ) as server:
        yield Caller(server, clock, own_pool.url, name, key)


@pytest.fixture
def caller(
    request: pytest.FixtureRequest, engine_limits: EngineLimits, server_limits: ServerLimits, native_decoder: bool
) -> Caller:
    """A caller of a server, as an organization of this test's own; see `shares_server` for whose server it is.

    The limits are those of a server of its own. native_decoder: named here, so that modules can parametrize it.
    """
    shared = is_shared(request)
    assert not shared or (engine_limits, server_limits) == (DEFAULT_LIMITS, DEFAULT_SERVER_LIMITS), "see `own_server`"
    found = request.getfixturevalue("caller_of_shared_server" if shared else "caller_of_own_server")
    assert isinstance(found, Caller)
    return found

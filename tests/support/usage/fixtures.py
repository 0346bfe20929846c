"""Fixtures of tests that use the service: a server in this process with a manual clock, and a caller of it.

The tests of one module share a database, and each test has an organization of its own in it. A shared database saves
most of their time, and a leak from one organization into another fails an unrelated test. The conftest.py of a folder
imports these fixtures.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from engine.limits import EngineLimits
from runtime.clock import ManualClock
from server.limits import ServerLimits
from store.postgres.database import Database
from tests.support.databases import Template
from tests.support.server.running import running
from tests.support.usage.caller import Caller
from tests.support.usage.organizations import create_organization


@pytest.fixture(scope="module")
def shared_database_url(template: Template) -> Iterator[str]:
    """The URL of the module's database."""
    with template.lent_database() as url:
        yield url


@pytest.fixture
async def caller(
    shared_database_url: str, clock: ManualClock, engine_limits: EngineLimits, server_limits: ServerLimits
) -> AsyncIterator[Caller]:
    """A caller of a server, as an organization of this test's own."""
    # The server's pool creates the key, too: a second pool would take a tenth of the time of a server's start.
    database = Database(shared_database_url)
    try:
        name, key = await create_organization(database, clock)
        async with running(database, clock, engine_limits=engine_limits, server_limits=server_limits) as server:
            yield Caller(server, clock, shared_database_url, name, key)
    finally:
        await database.close()

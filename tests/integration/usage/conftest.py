"""Fixtures of the usage tests: a server in this process with a manual clock, and a caller of it.

The tests of one module share a database, and each test has an organization of its own in it. A shared database saves
most of their time, and a leak from one organization into another fails an unrelated test.
"""

import itertools
from collections.abc import AsyncIterator

import pytest

from runtime.clock import ManualClock
from server.limits import ServerLimits
from store.identity import keys
from store.postgres.database import Database
from tests.support.databases import Template
from tests.support.server.running import running
from tests.support.usage.caller import Caller

pytest.register_assert_rewrite("tests.support.usage.comparison")

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared_database_url(template: Template) -> str:
    """The URL of the module's database."""
    return template.fresh_database()


@pytest.fixture
async def caller(shared_database_url: str, clock: ManualClock, server_limits: ServerLimits) -> AsyncIterator[Caller]:
    """A caller of a server, as an organization of this test's own."""
    # The server's pool creates the key, too: a second pool would take a tenth of the time of a server's start.
    database = Database(shared_database_url)
    try:
        name, key = await _organization(database, clock)
        async with running(database, clock, server_limits=server_limits) as server:
            yield Caller(server, clock, shared_database_url, name, key)
    finally:
        await database.close()


async def organization(database_url: str, clock: ManualClock) -> tuple[str, str]:
    """The name of a new organization, and a key to it."""
    database = Database(database_url, pool_size=1)
    try:
        return await _organization(database, clock)
    finally:
        await database.close()


async def _organization(database: Database, clock: ManualClock) -> tuple[str, str]:
    name = f"organization-{next(_numbers)}"
    async with database.transaction() as connection:
        created = await keys.create_key(connection, name, clock.now())
    return name, created.key

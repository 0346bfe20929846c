"""Fixtures of the hot path's tests: a server in this process on a clock that stands still, and a caller of it.

The tests of one module share a database, and each is an organization of its own there. It saves most of their time,
and whatever leaked from one organization into another would be found by tests that were not looking for it.
"""

import itertools
from collections.abc import AsyncIterator

import pytest

from runtime.clock import ManualClock
from store.identity import keys
from store.postgres.database import Database
from tests.support.databases import Template
from tests.support.usage.caller import Caller, calling

pytest.register_assert_rewrite("tests.support.usage.comparison")

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared_database_url(template: Template) -> str:
    """The URL of the module's database."""
    return template.fresh_database()


@pytest.fixture
async def caller(shared_database_url: str, clock: ManualClock) -> AsyncIterator[Caller]:
    """A caller of a server, as an organization of this test's own."""
    name, key = await organization(shared_database_url, clock)
    async with calling(shared_database_url, clock, name, key) as caller:
        yield caller


async def organization(database_url: str, clock: ManualClock) -> tuple[str, str]:
    """The name of a new organization, and a key to it."""
    name = f"organization-{next(_numbers)}"
    database = Database(database_url, pool_size=1)
    async with database.transaction() as connection:
        created = await keys.create_key(connection, name, clock.now())
    await database.close()
    return name, created.key

"""Fixtures of the recharge tests: those of the usage tests, and a database pool."""

from collections.abc import AsyncIterator

import pytest

from store.postgres.database import Database
from tests.support.usage.fixtures import (
    caller,
    caller_of_own_server,
    caller_of_shared_server,
    own_pool,
    shared_database_url,
    shared_pool,
    shared_server,
)

__all__ = [
    "caller",
    "caller_of_own_server",
    "caller_of_shared_server",
    "database",
    "own_pool",
    "shared_database_url",
    "shared_pool",
    "shared_server",
]


@pytest.fixture
async def database(shared_database_url: str) -> AsyncIterator[Database]:
    """A pool on the module's database."""
    database = Database(shared_database_url, pool_size=4)
    yield database
    await database.close()

"""Organizations of the tests that share a database, each with a name of its own and a key."""

import itertools

from runtime.clock import ManualClock
from store.identity import keys
from store.postgres.database import Database

_numbers = itertools.count(1)


async def organization(database_url: str, clock: ManualClock) -> tuple[str, str]:
    """The name of a new organization, and a key to it."""
    database = Database(database_url, pool_size=1)
    try:
        return await create_organization(database, clock)
    finally:
        await database.close()


async def create_organization(database: Database, clock: ManualClock) -> tuple[str, str]:
    """Creates an organization through that pool; returns its name, and a key to it."""
    name = f"organization-{next(_numbers)}"
    async with database.transaction() as connection:
        created = await keys.create_key(connection, name, clock.now())
    return name, created.key

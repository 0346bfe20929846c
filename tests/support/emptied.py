"""A database that the tests of a module use one after another: each finds it as empty as a new one.

A new database costs a test that starts a server 0.1 seconds of CPU time: files are copied, and each new connection
reads the catalog. To delete the few rows of a test takes a tenth of that.

A test with the mark `own_database` gets a new database.
"""

from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from sqlalchemy import make_url

from store.postgres.database import Database
from tests.support.databases import Template
from tests.support.server.sharing import has_own_database

# What migrations write. Tests only read it.
_KEPT = ("alembic_version", "schema_compatibility")
_LOCK_TIMEOUT = "30s"  # for a test that leaves a transaction open

# On the nodes of a cluster, Citus hides the tables of shards.
_EMPTY = f"""
DO $$
DECLARE name regclass;
BEGIN
    PERFORM set_config('citus.override_table_visibility', 'off', true);
    SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}';
    SET LOCAL session_replication_role = replica; -- the order of foreign keys does not matter
    FOR name IN
        SELECT oid FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname NOT IN {_KEPT}
        AND pg_relation_size(oid) > 0
    LOOP
        EXECUTE 'DELETE FROM ' || name;
    END LOOP;
    -- Not those of Citus: the numbers of shards are unique.
    PERFORM setval(seqrelid, seqstart, false) FROM pg_sequence JOIN pg_class ON oid = seqrelid
    WHERE relnamespace = 'public'::regnamespace;
END
$$
"""


class EmptiedDatabase:
    """A database, and connections to its nodes that empty it."""

    def __init__(self, urls: list[str]) -> None:
        """`urls`: of the database on each node; one if the tests run on one server."""
        self.url = urls[0]
        self._connections = [psycopg.connect(url, autocommit=True) for url in urls]

    def empty(self) -> None:
        """Deletes all rows, and sets the sequences back."""
        for connection in self._connections:
            connection.execute(_EMPTY)

    def close(self) -> None:
        """Closes the connections."""
        for connection in self._connections:
            connection.close()


@pytest.fixture(scope="module")
def emptied_database(template: Template) -> Iterator[EmptiedDatabase]:
    """The module's database, which `database_url` empties after each test."""
    with template.lent_database() as url:
        database = EmptiedDatabase(template.nodes.urls_of(str(make_url(url).database)))
        yield database
        database.close()


@pytest.fixture(scope="module")
async def pool_of_emptied_database(emptied_database: EmptiedDatabase) -> AsyncIterator[Database]:
    """The connections that the tests of the module use one after another."""
    database = Database(emptied_database.url)
    yield database
    await database.close()


@pytest.fixture
async def pool_of_own_database(database_url: str) -> AsyncIterator[Database]:
    """Connections of this test's own."""
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
def database_url(request: pytest.FixtureRequest, template: Template) -> Iterator[str]:
    """The URL of a migrated, empty database that no other test uses meanwhile."""
    if has_own_database(request):
        with template.lent_database() as url:
            yield url
        return
    emptied: EmptiedDatabase = request.getfixturevalue("emptied_database")
    yield emptied.url
    emptied.empty()


@pytest.fixture
def database(request: pytest.FixtureRequest, database_url: str) -> Database:
    """A pool on a migrated, empty database that no other test uses meanwhile."""
    found = request.getfixturevalue(
        "pool_of_own_database" if has_own_database(request) else "pool_of_emptied_database"
    )
    assert isinstance(found, Database)
    return found

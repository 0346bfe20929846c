"""The tables on a real cluster of Citus: how they get to their places, also with data and after a kill."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from store.citus.distribution import OLDEST_ON_CLUSTER, distribute, placed
from store.citus.errors import NotACluster, StillInUse
from store.citus.nodes import Node
from store.migrate import migrate
from store.postgres import partitions
from store.postgres.database import Database, sync_engine
from store.postgres.failures import DatabaseUnavailable
from store.tables.placement import Placement, placements
from tests.support.databases import Template
from tests.support.postgres.nodes import workers

pytestmark = pytest.mark.skipif(
    not workers(), reason="no cluster is named: set TIDEMARK_TEST_DATABASE_URL and TIDEMARK_TEST_CITUS_WORKERS"
)

_CUSTOMERS = 40
_OUTBOX_ROW = (
    "INSERT INTO outbox (organization_id, customer_id, notification_id, event_type, condition_type, create_time)"
    " VALUES (1, 'c1', 'n', 't', 't', now())"
)
_ORGANIZATION = "INSERT INTO organization (name, create_time) VALUES ('n-' || random(), now())"
_DATA = f"""
CREATE TABLE event_2026_03 (LIKE event);
CREATE UNIQUE INDEX event_2026_03_key ON event_2026_03 (
    (hashtextextended(customer_id, organization_id)), (hashtextextended(event_id, organization_id))
);
ALTER TABLE event ATTACH PARTITION event_2026_03 FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
INSERT INTO wallet (organization_id, customer_id) SELECT 1, 'c' || n FROM generate_series(1, {_CUSTOMERS}) AS n;
INSERT INTO event (organization_id, customer_id, event_id, event_time, ingest_time, quantity)
SELECT 1, 'c' || n, 'e', '2026-03-05', '2026-03-05', n FROM generate_series(1, {_CUSTOMERS}) AS n;
INSERT INTO fact_deletion VALUES (1, 'METRIC', '', 'm', 7);
{_OUTBOX_ROW};
{_ORGANIZATION};
"""
# As migrations before 0051 and their version left it.
_AS_BEFORE = (
    "DROP TABLE outbox",
    "CREATE TABLE outbox (outbox_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, organization_id bigint NOT NULL,"
    ' customer_id text COLLATE "C" NOT NULL, notification_id text COLLATE "C" NOT NULL,'
    ' event_type text COLLATE "C" NOT NULL, condition_type text COLLATE "C" NOT NULL,'
    " create_time timestamptz NOT NULL)",
    "SELECT citus_add_local_table_to_metadata('outbox')",
)
_HELD = (
    "SELECT (SELECT count(*) FROM wallet), (SELECT sum(quantity) FROM event), (SELECT count(*) FROM fact_deletion)"
)
_EXPECTED = (_CUSTOMERS, _CUSTOMERS * (_CUSTOMERS + 1) // 2, 1)
_SHARD_AND_TARGET = """
SELECT p.shardid, n.nodename, n.nodeport, other.nodename, other.nodeport
FROM pg_dist_placement p JOIN pg_dist_node n USING (groupid)
JOIN pg_dist_node other ON other.groupid NOT IN (0, p.groupid) AND other.noderole = 'primary'
WHERE p.shardid = get_shard_id_for_distribution_column('customer', 'c1') LIMIT 1
"""
_ON_COORDINATOR = "SELECT pg_relation_size('wallet') + pg_relation_size('event_2026_03')"


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    engine = sync_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def _found(url: str) -> dict[str, Placement | None]:
    with _connected(url) as connection:
        return dict(placed(connection))


def _value(url: str, statement: str) -> tuple[object, ...]:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
        assert row is not None
        return row


@pytest.fixture
def undistributed(template: Template) -> Iterator[str]:
    """The URL of a migrated database with data, on the coordinator alone, whose workers have an empty one."""
    name = "tidemark_test_undistributed"
    template.nodes.drop(name)
    template.nodes.execute(f"CREATE DATABASE {name}")
    for url in (urls := template.nodes.urls_of(name)):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION citus")
    template.nodes.execute(f"ALTER DATABASE {name} SET citus.shard_count = 4")
    migrate(urls[0])
    with psycopg.connect(urls[0], autocommit=True) as connection:
        connection.execute(_DATA.encode())
    yield urls[0]
    template.nodes.drop(name)


@pytest.mark.own_database
def test_each_table_lies_where_it_was_decided(database_url: str) -> None:
    known = {name: place for name, place in placements().items() if place is not Placement.COORDINATOR_ALONE}
    assert _found(database_url) == known


@pytest.mark.own_database
def test_a_second_distribution_changes_nothing(database_url: str) -> None:
    with _connected(database_url) as connection:
        assert distribute(connection) == []
    assert migrate(database_url, cluster=workers())


@pytest.mark.own_database
def test_servers_that_do_not_know_the_locks_at_nodes_are_refused(database_url: str) -> None:
    """Also after a migration that says of one PostgreSQL that they can run on its result."""
    oldest = "SELECT oldest_revision FROM schema_compatibility"
    assert _value(database_url, oldest) == (OLDEST_ON_CLUSTER,)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE schema_compatibility SET oldest_revision = '0027'")
    assert migrate(database_url)
    assert _value(database_url, oldest) == (OLDEST_ON_CLUSTER,)


@pytest.mark.own_database
def test_shards_of_each_month_move_while_they_are_written(database_url: str) -> None:
    """As Citus says: it knows how to name a row that is deleted meanwhile. Also of a month that is made later."""
    identities = "SELECT DISTINCT relreplident::text FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid"
    of_events = f"{identities} WHERE inhparent = 'event'::regclass"
    later = datetime(2031, 5, 1, tzinfo=UTC)

    async def make_month() -> None:
        database = Database(database_url, 1)
        async with database.transaction() as connection:
            await partitions.maintain(connection, later, later, datetime(1970, 1, 1, tzinfo=UTC))
        await database.close()

    asyncio.run(make_month())
    assert _value(database_url, of_events) == ("f",)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE event_2031_05 REPLICA IDENTITY DEFAULT")  # as an earlier version made it
    assert migrate(database_url)
    assert _value(database_url, of_events) == ("f",)
    with psycopg.connect(database_url, autocommit=True) as connection:
        found = connection.execute(_SHARD_AND_TARGET).fetchone()
        assert found is not None
        connection.execute("SELECT citus_move_shard_placement(%s, %s, %s, %s, %s, 'auto')", found)


@pytest.mark.own_database
def test_a_table_of_a_later_migration_is_moved_to_its_place(database_url: str) -> None:
    undistribute = (
        "SELECT undistribute_table('meter_minute')",
        "SELECT undistribute_table('usage_limit')",
        "SELECT undistribute_table('plan')",
    )
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement in undistribute:
            connection.execute(statement.encode())
    assert not {"meter_minute", "usage_limit", "plan"} & set(_found(database_url))
    assert migrate(database_url)
    test_each_table_lies_where_it_was_decided(database_url)


@pytest.mark.own_database
async def test_a_queue_that_an_earlier_version_had_on_the_coordinator_moves_with_its_rows(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement in _AS_BEFORE:
            connection.execute(statement.encode())
        connection.execute(_OUTBOX_ROW.encode())
    database = Database(database_url)
    async with database.raw_transaction():
        with pytest.raises(StillInUse, match="tidemark"):
            migrate(database_url)
    await database.close()
    assert migrate(database_url)
    test_each_table_lies_where_it_was_decided(database_url)
    assert _value(database_url, "SELECT outbox_id, customer_id FROM outbox") == (1, "c1")
    assert _value(database_url, f"{_OUTBOX_ROW} RETURNING outbox_id") == (2,)


def test_a_database_with_data_is_distributed_with_it(undistributed: str) -> None:
    assert migrate(undistributed, cluster=workers())
    assert _value(undistributed, _HELD) == _EXPECTED
    assert _value(undistributed, _ON_COORDINATOR) == (0,)
    assert _value(undistributed, f"{_OUTBOX_ROW} RETURNING outbox_id") == (2,)
    assert _value(undistributed, f"{_ORGANIZATION} RETURNING organization_id") == (2,)
    test_each_table_lies_where_it_was_decided(undistributed)


def test_a_distribution_that_is_killed_leaves_all_and_is_repeated(undistributed: str) -> None:
    """A row is locked, so that the distribution waits for its table, and is ended there."""
    with psycopg.connect(undistributed) as holder:
        holder.execute("SELECT FROM wallet WHERE customer_id = 'c1' FOR UPDATE")
        failures = list[BaseException]()

        def run() -> None:
            try:
                migrate(undistributed, cluster=workers())
            except DatabaseUnavailable as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        ended = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LOCK TABLE%'"
        )
        with psycopg.connect(undistributed, autocommit=True) as operator:
            while not operator.execute(ended.encode()).fetchall():
                time.sleep(0.01)
        thread.join()
    assert len(failures) == 1
    assert _found(undistributed) == {}
    assert _value(undistributed, _HELD) == _EXPECTED
    assert migrate(undistributed, cluster=[])
    assert _value(undistributed, _HELD) == _EXPECTED
    test_each_table_lies_where_it_was_decided(undistributed)


def test_a_distribution_that_fails_after_tables_were_moved_leaves_all_and_is_repeated(undistributed: str) -> None:
    """A trigger, which Citus refuses on a distributed table, lets it fail after others have moved."""
    with psycopg.connect(undistributed, autocommit=True) as operator:
        operator.execute("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
        operator.execute("CREATE TRIGGER odd BEFORE INSERT ON wallet FOR EACH ROW EXECUTE FUNCTION nothing()")
    with pytest.raises(DBAPIError, match="trigger"):
        migrate(undistributed, cluster=workers())
    assert _found(undistributed) == {}
    assert _value(undistributed, _HELD) == _EXPECTED
    with psycopg.connect(undistributed, autocommit=True) as operator:
        operator.execute("DROP TRIGGER odd ON wallet")
    assert migrate(undistributed, cluster=workers())
    assert _value(undistributed, _HELD) == _EXPECTED


async def test_a_database_in_use_is_not_distributed(undistributed: str) -> None:
    database = Database(undistributed)
    async with database.raw_transaction():
        with pytest.raises(StillInUse, match="tidemark"):
            migrate(undistributed, cluster=workers())
    await database.close()
    assert _found(undistributed) == {}


def test_a_worker_cannot_distribute(template: Template) -> None:
    with template.lent_database(months=False) as url:
        _, worker, *_ = template.nodes.urls_of(str(psycopg.conninfo.conninfo_to_dict(url)["dbname"]))
        with pytest.raises(NotACluster, match="not the coordinator"):
            migrate(worker, cluster=[])


def test_a_database_without_the_extension_and_a_wrong_worker_are_refused(
    template: Template, undistributed: str
) -> None:
    with pytest.raises(NotACluster, match="no extension Citus"):
        migrate(template.nodes.url, cluster=[])
    with pytest.raises(NotACluster, match="cannot be added"):
        migrate(undistributed, cluster=[Node("127.0.0.1", 1)])
    with pytest.raises(NotACluster, match="no worker"):
        migrate(undistributed, cluster=[])

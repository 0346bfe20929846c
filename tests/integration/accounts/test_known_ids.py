"""A check whether an id is known reads few rows, however many there are."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.accounts.known_ids import ASKED_AT_ONCE, ReferencedIds, unknown, unknown_of_each
from store.postgres.database import Database, sync_engine
from store.tables.accounts import organization
from tests.support.databases import Template
from tests.support.server.sharing import own_database

pytestmark = own_database

MANY = 20_000

_CUSTOMERS = """
INSERT INTO customer (organization_id, customer_id, plan_id, anchor_time, cadence, interval_count, time_zone,
                      create_time, update_time, changed_epoch)
SELECT :organization_id, 'customer-' || i, 'gold', now(), 'MONTH', 1, 'UTC', now(), now(), 0
FROM generate_series(1, :many) AS i
"""
_LIMITS = """
INSERT INTO usage_limit (organization_id, limit_id, customer_id, metric_id, groups, natural_key, amount, as_of_time,
                         create_time, update_time, changed_epoch)
SELECT :organization_id, 'limit-' || i, 'customer-' || i, 'calls', '[]', 'key-' || i, 1, now(), now(), now(), 0
FROM generate_series(1, :many) AS i
"""
_ROWS_READ = """
SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint FROM pg_stat_xact_user_tables
WHERE relname IN ('customer', 'usage_limit')
"""


@pytest.fixture(scope="module")
def filled_url(template: Template) -> str:
    """The URL of the module's database, with two organizations: `much` has many rows, `nothing` has none."""
    url = template.fresh_database()
    engine = sync_engine(url)
    with engine.begin() as connection:
        for name in ("much", "nothing"):
            connection.execute(
                text("INSERT INTO organization (name, create_time) VALUES (:name, now())"), {"name": name}
            )
        organization_id = connection.scalar(text("SELECT organization_id FROM organization WHERE name = 'much'"))
        for statement in (_CUSTOMERS, _LIMITS):
            connection.execute(text(statement), {"organization_id": organization_id, "many": MANY})
    # Not in the transaction: distributed tables refuse that.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE customer, usage_limit"))
    engine.dispose()
    return url


@pytest.fixture
async def database(filled_url: str) -> AsyncIterator[Database]:
    """A pool on the module's database."""
    database = Database(filled_url, pool_size=1)
    yield database
    await database.close()


async def id_of(connection: AsyncConnection, name: str) -> int:
    """The id of an organization."""
    found = await connection.scalar(select(organization.c.organization_id).where(organization.c.name == name))
    assert found is not None
    return int(found)


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        (ReferencedIds(plan_id="glod"), ReferencedIds(plan_id="glod")),
        (ReferencedIds(plan_id="gold"), ReferencedIds()),
        (ReferencedIds(plan_id="zinc"), ReferencedIds(plan_id="zinc")),
        (ReferencedIds(customer_id="customer-0"), ReferencedIds(customer_id="customer-0")),
        (ReferencedIds(customer_id=f"customer-{MANY}"), ReferencedIds()),
        (ReferencedIds(limited_metric_id="cals"), ReferencedIds(limited_metric_id="cals")),
        (ReferencedIds(limited_metric_id="calls"), ReferencedIds()),
        (ReferencedIds(limited_currency="USD"), ReferencedIds(limited_currency="USD")),
    ],
)
async def test_a_check_for_unknown_ids_reads_few_rows_of_many(
    database: Database, asked: ReferencedIds, missing: ReferencedIds
) -> None:
    async with database.transaction() as connection:
        organization_id = await id_of(connection, "much")
        before = await connection.scalar(text(_ROWS_READ)) or 0
        assert await unknown(connection, organization_id, asked) == missing
        assert (await connection.scalar(text(_ROWS_READ)) or 0) - before < 10


async def test_ids_of_one_organization_are_unknown_in_another(database: Database) -> None:
    asked = ReferencedIds(plan_id="gold", customer_id="customer-1", limited_metric_id="calls")
    async with database.transaction() as connection:
        assert await unknown(connection, await id_of(connection, "much"), asked) == ReferencedIds()
        assert await unknown(connection, await id_of(connection, "nothing"), asked) == asked
        assert await unknown(connection, await id_of(connection, "nothing"), ReferencedIds()) == ReferencedIds()


async def test_ids_of_many_requests_are_checked_in_one_query_that_reads_few_rows_for_each(database: Database) -> None:
    asked = [
        ReferencedIds(customer_id=f"customer-{number}", plan_id=plan_id, limited_metric_id=metric_id)
        for number in (0, 1, MANY)
        for plan_id in ("gold", "glod", None)
        for metric_id in ("calls", None)
    ]
    async with database.transaction() as connection:
        much = await id_of(connection, "much")
        before = await connection.scalar(text(_ROWS_READ))
        found = await unknown_of_each(connection, much, [*asked, asked[0]])
        assert await connection.scalar(text(_ROWS_READ)) - before <= 4 * len(asked)
    assert found == {
        ids: ReferencedIds(
            customer_id=ids.customer_id if ids.customer_id == "customer-0" else None,
            plan_id=ids.plan_id if ids.plan_id == "glod" else None,
        )
        for ids in asked
    }


async def test_ids_of_more_requests_than_one_query_takes_are_checked_as_one_by_one(database: Database) -> None:
    # The first part names only customers, and the last one only a plan: their other columns are empty.
    asked = [ReferencedIds(customer_id=f"customer-{2 * MANY - number}") for number in range(2 * ASKED_AT_ONCE)]
    asked += [ReferencedIds(customer_id=f"customer-{number}", plan_id="gold") for number in range(ASKED_AT_ONCE)]
    asked.append(ReferencedIds(plan_id="glod"))
    async with database.transaction() as connection:
        much = await id_of(connection, "much")
        found = await unknown_of_each(connection, much, asked)
        for ids in (*asked[:3], *asked[2 * ASKED_AT_ONCE :][:3], asked[-1]):
            assert found[ids] == await unknown(connection, much, ids)
    assert set(found) == set(asked)
    is_known = [one.customer_id is None for one in found.values()]
    assert is_known == [False] * (2 * ASKED_AT_ONCE) + [False] + [True] * ASKED_AT_ONCE

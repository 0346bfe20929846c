"""Which customers, subscriptions and plans are known where the tables of customers are distributed.

As `store.accounts.known_ids`, whose one statement looks up each of many ids in tables that lie apart. Here each table
has a statement, about all ids.
"""

from collections.abc import Collection

from store.postgres.database import DriverConnection, Row
from store.postgres.pipelines import fetched_each

_CUSTOMERS = b"""
SELECT customer_id FROM customer WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(customer_ids)s)
"""
_SUBSCRIPTIONS = b"""
SELECT s.customer_id, s.subscription_id FROM subscription s
JOIN unnest(%(customer_ids)s::text[], %(subscription_ids)s::text[]) AS i (customer_id, subscription_id)
    ON s.customer_id = i.customer_id COLLATE "C" AND s.subscription_id = i.subscription_id COLLATE "C"
WHERE s.organization_id = %(organization_id)s AND s.customer_id = ANY(%(customer_ids)s)
"""
_PLANS = b"SELECT plan_id FROM plan WHERE organization_id = %(organization_id)s AND plan_id = ANY(%(plan_ids)s)"
# Customers and subscriptions can be on a plan that was never put. A statement for each plan: many may be on one.
_IS_ON_PLAN = "SELECT plan_id FROM {} WHERE organization_id = %(organization_id)s AND plan_id = %(plan_id)s LIMIT 1"
_ON_PLAN = tuple(_IS_ON_PLAN.format(table).encode() for table in ("customer", "subscription"))


async def customers(connection: DriverConnection, organization_id: int, ids: Collection[str]) -> set[str]:
    """Those of the customers that are known."""
    parameters = {"organization_id": organization_id, "customer_ids": sorted(ids)}
    return {row[0] for row in await _rows(connection, _CUSTOMERS, parameters)}


async def subscriptions(
    connection: DriverConnection, organization_id: int, keys: Collection[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Those of the subscriptions that are known, by customer and id."""
    parameters = {
        "organization_id": organization_id,
        "customer_ids": [customer_id for customer_id, _ in keys],
        "subscription_ids": [subscription_id for _, subscription_id in keys],
    }
    return {(row[0], row[1]) for row in await _rows(connection, _SUBSCRIPTIONS, parameters)}


async def plans(connection: DriverConnection, organization_id: int, ids: Collection[str]) -> set[str]:
    """Those of the plans that are known."""
    parameters = {"organization_id": organization_id, "plan_ids": sorted(ids)}
    known = {row[0] for row in await _rows(connection, _PLANS, parameters)}
    for statement in _ON_PLAN:
        asked = [{"organization_id": organization_id, "plan_id": one} for one in sorted(set(ids) - known)]
        if asked:
            known.update(row[0] for row in await fetched_each(connection, statement, asked))
    return known


async def _rows(connection: DriverConnection, statement: bytes, parameters: dict[str, object]) -> list[Row]:
    return await (await connection.execute(statement, parameters)).fetchall()

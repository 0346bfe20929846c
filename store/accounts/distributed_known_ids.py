"""Which ids an organization knows, where the tables are distributed: a few statements for each kind of id.

As in `store.accounts.known_ids`, each lookup uses a key or an index and ends at the first row of a value.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from store.postgres.database import DriverConnection
from store.postgres.pipelines import fetched_each

_METRICS = b"SELECT metric_id FROM metric WHERE organization_id = %(organization_id)s AND metric_id = ANY(%(ids)s)"
_PLANS = b"SELECT plan_id FROM plan WHERE organization_id = %(organization_id)s AND plan_id = ANY(%(ids)s)"
_CUSTOMERS = b"""
SELECT customer_id FROM customer WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s)
"""
_SUBSCRIPTIONS = b"""
SELECT s.customer_id, s.subscription_id
FROM subscription s JOIN unnest(%(customers)s::text[], %(subscriptions)s::text[]) AS i (customer_id, subscription_id)
    ON s.customer_id = i.customer_id COLLATE "C" AND s.subscription_id = i.subscription_id COLLATE "C"
WHERE s.organization_id = %(organization_id)s AND s.customer_id = ANY(%(customers)s)
"""
# Customers and subscriptions can be on a plan that was never put.
_ON_PLAN = (
    b"SELECT plan_id FROM customer WHERE organization_id = %(organization_id)s AND plan_id = %(id)s LIMIT 1",
    b"SELECT plan_id FROM subscription WHERE organization_id = %(organization_id)s AND plan_id = %(id)s LIMIT 1",
)
_LIMITED = {
    name: f"""
        SELECT {column} FROM usage_limit
        WHERE organization_id = %(organization_id)s AND {column} = %(id)s
            AND amount IS NOT NULL AND window_kind IS NULL
        LIMIT 1
    """.encode()
    for name, column in (("limited_metric_id", "metric_id"), ("limited_currency", "currency"))
}


async def known(
    connection: DriverConnection, organization_id: int, asked: Sequence[Any], names: Iterable[str]
) -> dict[str, set[Any]]:
    """The known ids by their names, among those of `asked`; those of subscriptions with their customers."""
    found = dict[str, set[Any]]()
    for name in names:
        ids = {getattr(one, name) for one in asked} - {None}
        if name == "subscription_id":
            pairs = {(one.customer_id, one.subscription_id) for one in asked if one.subscription_id is not None}
            found[name] = await _subscriptions(connection, organization_id, sorted(pairs))
        elif name in _LIMITED:
            found[name] = await _each(connection, organization_id, _LIMITED[name], ids)
        else:
            statement = {"metric_id": _METRICS, "plan_id": _PLANS, "customer_id": _CUSTOMERS}[name]
            parameters = {"organization_id": organization_id, "ids": sorted(ids)}
            rows = await (await connection.execute(statement, parameters)).fetchall()
            found[name] = {row[0] for row in rows}
        if name == "plan_id":
            for on_plan in _ON_PLAN:
                found[name] |= await _each(connection, organization_id, on_plan, ids - found[name])
    return found


async def _each(connection: DriverConnection, organization_id: int, statement: bytes, ids: set[str]) -> set[str]:
    each = ({"organization_id": organization_id, "id": one} for one in sorted(ids))
    return {row[0] for row in await fetched_each(connection, statement, each)}


async def _subscriptions(
    connection: DriverConnection, organization_id: int, pairs: Sequence[tuple[str, str]]
) -> set[tuple[str, str]]:
    parameters = {
        "organization_id": organization_id,
        "customers": [customer_id for customer_id, _ in pairs],
        "subscriptions": [subscription_id for _, subscription_id in pairs],
    }
    rows = await (await connection.execute(_SUBSCRIPTIONS, parameters)).fetchall()
    return {(row[0], row[1]) for row in rows}

"""What usage names and nothing has registered: as it would be registered, and how a node of a cluster registers it.

On one PostgreSQL, and at the coordinator, a commit registers what it does not find, and reads what that made
(`store.rules.routing_facts`). A commit at a node reads no rules. So the coordinator works out before what the commit
is going to register, and the commit only makes the rows.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from evaluator.definitions import DEFAULT_CURRENCY
from evaluator.periods import DEFAULT_CYCLE
from evaluator.routing_facts import CustomerFacts
from store.citus.shard_tables import ShardsOf, by_shard
from store.limits.effective_limits import LIMITS_COLUMN, read_column
from store.postgres.database import Cursor, DriverConnection, Row
from store.rules import routing_facts

# The limits of customers, whether these exist or not.
_LIMITS = f"""
SELECT customer.customer_id, {LIMITS_COLUMN}
FROM (
    SELECT %(organization_id)s::bigint AS organization_id, id COLLATE "C" AS customer_id
    FROM unnest(%(ids)s::text[]) AS i (id)
) AS customer
"""


async def as_if_registered(
    connection: DriverConnection, organization_id: int, customer_ids: Iterable[str], epoch: int, now: datetime
) -> list[CustomerFacts]:
    """What would be registered of customers that do not exist, without alerts and exclusions; registers nothing."""
    rows = await _rows(connection, _LIMITS, organization_id, list(customer_ids))
    return [
        CustomerFacts(row[0], None, DEFAULT_CURRENCY, DEFAULT_CYCLE, epoch, now, limits=read_column(row[1]))
        for row in rows
    ]


# The exclusions of customers, whether these exist or not.
_EXCLUSIONS = """
SELECT customer_id, array_agg(ARRAY[alert_id, subscription_id]) FROM alert_exclusion
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(ids)s) GROUP BY customer_id
"""


async def as_registered(
    connection: DriverConnection, organization_id: int, customer_ids: Collection[str], epoch: int, now: datetime
) -> list[CustomerFacts]:
    """As `as_if_registered`, with all that concerns the customers: an alert may be older than its customer."""
    found = await as_if_registered(connection, organization_id, customer_ids, epoch, now)
    excluded: dict[str, list[tuple[str, str]]] = dict(
        await _rows(connection, _EXCLUSIONS, organization_id, list(customer_ids))
    )
    made = [
        replace(one, excluded=routing_facts.excluded_of(excluded[one.customer_id]))
        if one.customer_id in excluded
        else one
        for one in found
    ]
    return await routing_facts.with_alerts_of(connection, organization_id, made)


async def register_in_shards(
    connection: DriverConnection,
    organization_id: int,
    customer_ids: Collection[str],
    subscriptions: Collection[tuple[str, str]],
    shards: ShardsOf,
    epoch: int,
    now: datetime,
) -> bool:
    """Registers customers and subscriptions (customer id, id) in shards that lie at this node.

    Returns whether all of them were new: another transaction may have registered one, which this waits for. shards:
    of all of them.
    """
    customers, others = sorted(customer_ids), sorted(subscriptions)
    cursors: list[Cursor] = []
    async with connection.pipeline():
        for shard, indexes in by_shard(customers, shards).items():
            statement = routing_facts.REGISTER_CUSTOMERS.format(columns="1").replace(
                "INTO customer (", f"INTO {shard.customer} ("
            )
            parameters = {"ids": [customers[index] for index in indexes], **routing_facts.new_customer(epoch, now)}
            cursors.append(await _send(connection, statement, organization_id, parameters))
        for shard, indexes in by_shard((customer_id for customer_id, _ in others), shards).items():
            statement = routing_facts.REGISTER_SUBSCRIPTIONS.replace(
                "INTO subscription (", f"INTO {shard.subscription} ("
            )
            part = [others[index] for index in indexes]
            parameters = {
                "customers": [customer_id for customer_id, _ in part],
                "ids": [subscription_id for _, subscription_id in part],
                "now": now,
                "epoch": epoch,
            }
            cursors.append(await _send(connection, statement, organization_id, parameters))
    return sum(cursor.rowcount for cursor in cursors) == len(customers) + len(others)


async def _send(
    connection: DriverConnection, statement: str, organization_id: int, parameters: dict[str, Any]
) -> Cursor:
    return await connection.execute(statement.encode(), {"organization_id": organization_id, **parameters})


async def _rows(connection: DriverConnection, statement: str, organization_id: int, ids: Sequence[str]) -> list[Row]:
    cursor = await _send(connection, statement, organization_id, {"ids": ids})
    return await cursor.fetchall()

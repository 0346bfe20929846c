"""Which ids an organization knows: those that a fact or usage has named.

Each lookup uses a primary key or an index, so its cost does not depend on the number of customers, limits and events.
"""

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.turns import Slices
from store.accounts import distributed_known_ids
from store.postgres.database import DriverConnection, Row, driver
from store.postgres.distributed import on_cluster

ASKED_AT_ONCE = 250  # of which one statement finds out whether they are known; its result is read in one turn


@dataclass(frozen=True)
class ReferencedIds:
    """Ids that a request refers to; None for those that it does not contain.

    subscription_id: a subscription of customer_id. limited_metric_id, limited_currency: known if they have a limit.
    """

    metric_id: str | None = None
    plan_id: str | None = None
    customer_id: str | None = None
    subscription_id: str | None = None
    limited_metric_id: str | None = None
    limited_currency: str | None = None


_NAMES = tuple(field.name for field in fields(ReferencedIds))
_DISTRIBUTED = ("plan_id", "customer_id", "subscription_id")  # whose tables are, on a cluster


async def unknown(connection: AsyncConnection, organization_id: int, ids: ReferencedIds) -> ReferencedIds:
    """Those of the ids that the organization does not know; None in place of the others."""
    return (await unknown_of_each(connection, organization_id, [ids]))[ids]


async def unknown_of_each(
    connection: AsyncConnection, organization_id: int, asked: Collection[ReferencedIds]
) -> dict[ReferencedIds, ReferencedIds]:
    """What `unknown` returns for each of them, in few queries for all."""
    return await find_unknown(await driver(connection), organization_id, asked)


async def find_unknown(
    connection: DriverConnection, organization_id: int, asked: Collection[ReferencedIds]
) -> dict[ReferencedIds, ReferencedIds]:
    """`unknown_of_each` on the driver's connection. Of many it is done in parts, in slices."""
    found = {ids: ReferencedIds() for ids in asked}
    distinct = list(found)
    names = tuple(name for name in _NAMES if any(getattr(ids, name) is not None for ids in distinct))
    if not names:
        return found
    slices = Slices(organization_id)
    for start in range(0, len(distinct), ASKED_AT_ONCE):
        if start:
            await slices.begin()
        await _find_part(connection, organization_id, names, distinct[start : start + ASKED_AT_ONCE], found)
    return found


async def _find_part(
    connection: DriverConnection,
    organization_id: int,
    names: tuple[str, ...],
    part: Sequence[ReferencedIds],
    found: dict[ReferencedIds, ReferencedIds],
) -> None:
    if on_cluster(connection):
        rows = await _known_on_cluster(connection, organization_id, names, part)
    else:
        rows = await _known(connection, organization_id, names, part)
    for position, *known in rows:
        if not all(known):
            ids = part[position]
            found[ids] = ReferencedIds(
                **{name: getattr(ids, name) for name, is_known in zip(names, known, strict=True) if not is_known}
            )


async def _known(
    connection: DriverConnection, organization_id: int, names: tuple[str, ...], part: Sequence[ReferencedIds]
) -> list[Row]:
    """For each position, whether each of the ids with these names is known."""
    rows = [
        {"position": position, **{name: getattr(ids, name) for name in names}} for position, ids in enumerate(part)
    ]
    parameters = {"organization_id": organization_id, "asked": orjson.dumps(rows).decode()}
    cursor = await connection.execute(_statement(names), parameters)
    return await cursor.fetchall()


async def _known_on_cluster(
    connection: DriverConnection, organization_id: int, names: tuple[str, ...], part: Sequence[ReferencedIds]
) -> list[Row]:
    """As `_known`, with a statement for each of the tables that are distributed."""
    others = tuple(name for name in names if name not in _DISTRIBUTED)
    known = {
        (name, getattr(part[position], name))
        for position, *are_known in (await _known(connection, organization_id, others, part) if others else ())
        for name, is_known in zip(others, are_known, strict=True)
        if is_known
    }
    if customer_ids := {ids.customer_id for ids in part if ids.customer_id is not None}:
        customers = await distributed_known_ids.customers(connection, organization_id, customer_ids)
        known.update(("customer_id", one) for one in customers)
    if plan_ids := {ids.plan_id for ids in part if ids.plan_id is not None}:
        plans = await distributed_known_ids.plans(connection, organization_id, plan_ids)
        known.update(("plan_id", one) for one in plans)
    keys = {
        (ids.customer_id, ids.subscription_id)
        for ids in part
        if ids.customer_id is not None and ids.subscription_id is not None
    }
    subscriptions = await distributed_known_ids.subscriptions(connection, organization_id, keys) if keys else set()
    return [
        (
            position,
            *(
                (ids.customer_id, ids.subscription_id) in subscriptions
                if name == "subscription_id"
                else (name, getattr(ids, name)) in known
                for name in names
            ),
        )
        for position, ids in enumerate(part)
    ]


@functools.cache
def _statement(names: tuple[str, ...]) -> bytes:
    """The query for ids with these names; there are few combinations.

    PostgreSQL expects the same number of rows from any JSON, so it keeps one plan; for arrays it would plan each time
    anew, which takes longer than the query.
    """
    checks = ", ".join(f"({_CHECKS[name]})" for name in names)
    columns = ", ".join(f"{name} text" for name in names)
    return (
        f"SELECT position, {checks} FROM json_to_recordset(%(asked)s::json) AS asked (position integer, {columns})"
    ).encode()


def _has_value(table: str, column: str, value: str, condition: str = "") -> str:
    """Whether a row of the organization has that value in a column with an index.

    Compares `value` with the first value at or after it, in the order of the index. With EXISTS and `column = value`,
    the planner scans the table if most rows have the same value, and reads all of it if no row has `value`.
    """
    return (
        f"coalesce((SELECT {column} FROM {table} WHERE organization_id = %(organization_id)s"
        f" AND {column} >= {value} {condition} ORDER BY {column} LIMIT 1) = {value}, false)"
    )


def _exists(table: str, **columns: str) -> str:
    """Whether a row of the organization has these values in the columns of its primary key.

    With EXISTS, the planner may read all rows of the organization into a hash table: for a table that was small when
    it was analyzed, it expects few.
    """
    conditions = "".join(f' AND {table}.{column} = {value} COLLATE "C"' for column, value in columns.items())
    return (
        f"coalesce((SELECT true FROM {table} WHERE organization_id = %(organization_id)s{conditions} LIMIT 1), false)"
    )


def _of_limit(column: str, value: str) -> str:
    return _has_value("usage_limit", column, value, "AND amount IS NOT NULL AND window_kind IS NULL")


# Whether each id is known, by its name. The values of an array have no collation; without one, their comparison with
# ids is ambiguous.
_CHECKS = {
    "metric_id": _exists("metric", metric_id="asked.metric_id"),
    # Customers and subscriptions can be on a plan that was never put.
    "plan_id": f"""
        {_exists("plan", plan_id="asked.plan_id")}
        OR {_has_value("customer", "customer.plan_id", 'asked.plan_id COLLATE "C"')}
        OR {_has_value("subscription", "subscription.plan_id", 'asked.plan_id COLLATE "C"')}""",
    "customer_id": _exists("customer", customer_id="asked.customer_id"),
    "subscription_id": _exists(
        "subscription", customer_id="asked.customer_id", subscription_id="asked.subscription_id"
    ),
    "limited_metric_id": _of_limit("usage_limit.metric_id", 'asked.limited_metric_id COLLATE "C"'),
    "limited_currency": _of_limit("usage_limit.currency", 'asked.limited_currency COLLATE "C"'),
}

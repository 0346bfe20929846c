"""Which ids an organization knows: those that a fact or usage has named.

Each lookup uses a primary key or an index, so its cost does not depend on the number of customers, limits and events.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ARRAY, Column, ColumnElement, cast, exists, false, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables.accounts import customer, metric, subscription
from store.tables.base import Identifier
from store.tables.plans import plan, usage_limit


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


async def unknown(connection: AsyncConnection, organization_id: int, ids: ReferencedIds) -> ReferencedIds:
    """Those of the ids that the organization does not know; None in place of the others."""
    return (await unknown_of_each(connection, organization_id, [ids]))[ids]


async def unknown_of_each(
    connection: AsyncConnection, organization_id: int, asked: Collection[ReferencedIds]
) -> dict[ReferencedIds, ReferencedIds]:
    """What `unknown` returns for each of them, in one query for all."""
    found = {ids: ReferencedIds() for ids in asked}
    distinct = list(found)
    names = [name for name in _NAMES if any(getattr(ids, name) is not None for ids in distinct)]
    if not names:
        return found
    columns = [cast([getattr(ids, name) for ids in distinct], ARRAY(Identifier)) for name in names]
    rows = func.unnest(*columns).table_valued(*names, with_ordinality="position").render_derived(name="asked")
    # The values of an array have no collation; without one, their comparison with ids is ambiguous.
    values = {name: rows.c[name].collate("C") for name in names}
    checks = [_is_known(organization_id, values, name).label(name) for name in names]
    for row in (await connection.execute(select(rows.c.position, *checks))).mappings():
        ids = distinct[row["position"] - 1]
        found[ids] = ReferencedIds(**{name: getattr(ids, name) for name in names if not row[name]})
    return found


def _is_known(organization_id: int, values: Mapping[str, ColumnElement[str]], name: str) -> ColumnElement[bool]:
    """Whether the value of that name is an id that is known."""
    value = values[name]
    match name:
        case "metric_id":
            return exists().where(metric.c.organization_id == organization_id, metric.c.metric_id == value)
        case "plan_id":
            # Customers and subscriptions can be on a plan that was never put.
            return or_(
                exists().where(plan.c.organization_id == organization_id, plan.c.plan_id == value),
                _has_value(organization_id, customer.c.plan_id, value),
                _has_value(organization_id, subscription.c.plan_id, value),
            )
        case "customer_id":
            return exists().where(customer.c.organization_id == organization_id, customer.c.customer_id == value)
        case "subscription_id":
            return exists().where(
                subscription.c.organization_id == organization_id,
                subscription.c.customer_id == values["customer_id"],
                subscription.c.subscription_id == value,
            )
        case _:
            column = usage_limit.c.metric_id if name == "limited_metric_id" else usage_limit.c.currency
            return _has_value(organization_id, column, value, usage_limit.c.amount.is_not(None))


def _has_value(
    organization_id: int, column: Column[Any], value: ColumnElement[str], *conditions: ColumnElement[bool]
) -> ColumnElement[bool]:
    """Whether a row of the organization has that value in a column with an index.

    Compares `value` with the first value at or after it, in the order of the index. With EXISTS and `column = value`,
    the planner scans the table if most rows have the same value, and reads all of it if no row has `value`.
    """
    in_organization = column.table.c.organization_id == organization_id
    found = select(column).where(in_organization, column >= value, *conditions).order_by(column).limit(1)
    return func.coalesce(found.scalar_subquery() == value, false())

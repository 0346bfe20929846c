"""Which ids an organization knows: those that a fact or usage has named.

Each lookup uses a primary key or an index, so its cost does not depend on the number of customers, limits and events.
"""

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Column, ColumnElement, exists, false, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables.accounts import customer, metric, subscription
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


async def unknown(connection: AsyncConnection, organization_id: int, ids: ReferencedIds) -> ReferencedIds:
    """Those of the ids that the organization does not know; None in place of the others."""
    checks = {
        field.name: _is_known(organization_id, ids, field.name)
        for field in fields(ReferencedIds)
        if getattr(ids, field.name) is not None
    }
    if not checks:
        return ReferencedIds()
    row = (await connection.execute(select(*(check.label(name) for name, check in checks.items())))).mappings().one()
    return ReferencedIds(**{name: getattr(ids, name) for name in checks if not row[name]})


def _is_known(organization_id: int, ids: ReferencedIds, name: str) -> ColumnElement[bool]:
    """Whether the id in that field of `ids` is known."""
    value = getattr(ids, name)
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
                subscription.c.customer_id == ids.customer_id,
                subscription.c.subscription_id == value,
            )
        case _:
            column = usage_limit.c.metric_id if name == "limited_metric_id" else usage_limit.c.currency
            return _has_value(organization_id, column, value, usage_limit.c.amount.is_not(None))


def _has_value(
    organization_id: int, column: Column[Any], value: str, *conditions: ColumnElement[bool]
) -> ColumnElement[bool]:
    """Whether a row of the organization has that value in a column with an index.

    Compares `value` with the first value at or after it, in the order of the index. With EXISTS and `column = value`,
    the planner scans the table if most rows have the same value, and reads all of it if no row has `value`.
    """
    in_organization = column.table.c.organization_id == organization_id
    found = select(column).where(in_organization, column >= value, *conditions).order_by(column).limit(1)
    return func.coalesce(found.scalar_subquery() == value, false())

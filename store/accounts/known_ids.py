"""Which ids an organization knows: those that a fact or usage has named.

Every lookup is by a primary key or an index: it costs the same however many customers, limits and events there are.
"""

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Column, ColumnElement, exists, false, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables.accounts import customer, metric, subscription
from store.tables.plans import plan, usage_limit


@dataclass(frozen=True)
class Ids:
    """Ids that something names; one that is unset is not asked for.

    subscription_id: of that customer. limited_metric_id, limited_currency: of which there should be a limit.
    """

    metric_id: str | None = None
    plan_id: str | None = None
    customer_id: str | None = None
    subscription_id: str | None = None
    limited_metric_id: str | None = None
    limited_currency: str | None = None


async def unknown(connection: AsyncConnection, organization_id: int, ids: Ids) -> Ids:
    """Those of the ids that the organization does not know; the others are unset."""
    checks = {
        field.name: _is_known(organization_id, ids, field.name)
        for field in fields(Ids)
        if getattr(ids, field.name) is not None
    }
    if not checks:
        return Ids()
    row = (await connection.execute(select(*(check.label(name) for name, check in checks.items())))).mappings().one()
    return Ids(**{name: getattr(ids, name) for name in checks if not row[name]})


def _is_known(organization_id: int, ids: Ids, name: str) -> ColumnElement[bool]:
    """Whether the id in that field of `ids` is known."""
    value = getattr(ids, name)
    match name:
        case "metric_id":
            return exists().where(metric.c.organization_id == organization_id, metric.c.metric_id == value)
        case "plan_id":
            # A plan need not be put: customers and subscriptions may be on it all the same.
            return or_(
                exists().where(plan.c.organization_id == organization_id, plan.c.plan_id == value),
                _is_first(organization_id, customer.c.plan_id, value),
                _is_first(organization_id, subscription.c.plan_id, value),
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
            return _is_first(organization_id, column, value, usage_limit.c.amount.is_not(None))


def _is_first(
    organization_id: int, column: Column[Any], value: str, *conditions: ColumnElement[bool]
) -> ColumnElement[bool]:
    """Whether a row of the organization has that value in a column that an index begins with.

    It is the first value at or behind the wanted one, in the order of the index. With EXISTS and `column = value` the
    planner reads the table from its beginning where most rows have one value, and reads all of it for a value that no
    row has.
    """
    in_organization = column.table.c.organization_id == organization_id
    found = select(column).where(in_organization, column >= value, *conditions).order_by(column).limit(1)
    return func.coalesce(found.scalar_subquery() == value, false())

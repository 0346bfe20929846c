"""Which ids an organization knows: those that a fact or usage has named.

Every lookup is by a primary key or an index: it costs the same however many customers, limits and events there are.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, or_, select
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
    checks = {name: check for name, check in _checks(organization_id, ids).items() if getattr(ids, name) is not None}
    if not checks:
        return Ids()
    row = (await connection.execute(select(*(check.label(name) for name, check in checks.items())))).mappings().one()
    return Ids(**{name: getattr(ids, name) for name in checks if not row[name]})


def _checks(organization_id: int, ids: Ids) -> dict[str, ColumnElement[bool]]:
    """For each id whether it is known."""

    def there(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        return exists().where(*conditions)

    of_limit = usage_limit.c.organization_id == organization_id, usage_limit.c.amount.is_not(None)
    return {
        "metric_id": there(metric.c.organization_id == organization_id, metric.c.metric_id == ids.metric_id),
        # A plan need not be put: customers and subscriptions may be on it all the same.
        "plan_id": or_(
            there(plan.c.organization_id == organization_id, plan.c.plan_id == ids.plan_id),
            there(customer.c.organization_id == organization_id, customer.c.plan_id == ids.plan_id),
            there(subscription.c.organization_id == organization_id, subscription.c.plan_id == ids.plan_id),
        ),
        "customer_id": there(
            customer.c.organization_id == organization_id, customer.c.customer_id == ids.customer_id
        ),
        "subscription_id": there(
            subscription.c.organization_id == organization_id,
            subscription.c.customer_id == ids.customer_id,
            subscription.c.subscription_id == ids.subscription_id,
        ),
        "limited_metric_id": there(*of_limit, usage_limit.c.metric_id == ids.limited_metric_id),
        "limited_currency": there(*of_limit, usage_limit.c.currency == ids.limited_currency),
    }

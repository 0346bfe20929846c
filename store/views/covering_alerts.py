"""The alerts that cover one customer, oldest first."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.alerts import ConditionType
from evaluator.definitions import AlertDefinition, DefinitionState
from store.accounts.customers import StoredCustomer
from store.alerts import lists
from store.alerts.lists import Position
from store.alerts.rows import definition_of
from store.postgres import bounded_pages
from store.postgres.bounded_pages import MAX_EXAMINED, BoundedPage, ListScan
from store.views.customer_alerts import CustomerAlert

_PER_SUBSCRIPTION = [each for each in ConditionType if each.per_subscription]

MAX_PLANS = 30  # of one customer and its subscriptions, each of which is a range of its own

# An index has each range in the order of age: the alerts of all customers (whose plan is empty there), those of a
# plan, and those that name the customer.
_OF_PLAN = "customer_id IS NULL AND coalesce(plan_id, '') = %({})s"
_OF_PLANS = "customer_id IS NULL AND coalesce(plan_id, '') = ANY(%(plans)s)"
_OF_CUSTOMER = "customer_id = %(customer_id)s"

# Whether an alert of these ranges covers the customer, or one of its subscriptions.
_COVERS = """(
    scope = 'ALL_CUSTOMERS' OR (customer_id IS NOT NULL AND plan_id IS NULL)
    OR (condition_type = ANY(%(per_subscription)s) AND plan_id = ANY(%(plans_of_subscriptions)s))
    OR (condition_type <> ALL(%(per_subscription)s) AND plan_id = %(plan_id)s)
)"""


@dataclass(frozen=True)
class AlertsOfCustomer:
    """A part of the alerts of a customer.

    following: after which alert the next part begins; None at the end. is_short: it ended before its limit, because
    its alerts have many gauges, or because many alerts had to be examined.
    """

    alerts: list[CustomerAlert]
    following: Position | None
    is_short: bool


async def read(
    connection: AsyncConnection,
    organization_id: int,
    customer: StoredCustomer,
    plans_of_subscriptions: Collection[str],
    states: Collection[DefinitionState],
    *,
    after: Position | None,
    limit: int,
    most_examined: int = MAX_EXAMINED,
) -> BoundedPage[AlertDefinition, Position]:
    """Up to `limit` alerts in these states that cover the customer, after a position; no states: all of them.

    most_examined: alerts that are read at most.
    """
    plans = sorted({"", *plans_of_subscriptions, *filter(None, [customer.plan_id])})
    named = {f"plan_{number}": plan_id for number, plan_id in enumerate(plans)}
    wide = [_OF_PLAN.format(name) for name in named]
    if len(plans) > MAX_PLANS:
        # Sorted by PostgreSQL: one range with the alerts of all these plans.
        named, wide = {}, [_OF_PLANS]
    scan = ListScan(
        table="alert",
        columns=lists.COLUMNS,
        order=lists.ORDER,
        ranges=[f"organization_id = %(organization_id)s AND {one}" for one in (*wide, _OF_CUSTOMER)],
        filters=[_COVERS, "state = ANY(%(states)s)"] if states else [_COVERS],
        parameters={
            "organization_id": organization_id,
            "customer_id": customer.customer_id,
            "plan_id": customer.plan_id,
            "plans": plans,
            "plans_of_subscriptions": sorted(plans_of_subscriptions),
            "per_subscription": _PER_SUBSCRIPTION,
            "states": list(states),
            **named,
        },
    )
    return await bounded_pages.read(
        connection, organization_id, scan, definition_of, after=after, limit=limit, most_examined=most_examined
    )

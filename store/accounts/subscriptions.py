"""Subscriptions: what customers have bought, each with a plan and, if it has its own, a billing cycle.

`store.accounts.subscription_puts` puts them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, and_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.periods import DEFAULT_CYCLE, BillingCycle
from store.accounts.billing_cycles import CYCLE_COLUMNS, cycle_of
from store.accounts.put_statements import FactRow
from store.postgres.counting import bounded_count
from store.tables.accounts import customer, subscription

# Each subscription with the billing cycle of its customer, which applies if the subscription has none of its own.
_SUBSCRIPTIONS = select(
    subscription, *(customer.c[name].label(f"customer_{name}") for name in CYCLE_COLUMNS)
).outerjoin(
    customer,
    and_(
        customer.c.organization_id == subscription.c.organization_id,
        customer.c.customer_id == subscription.c.customer_id,
    ),
)


@dataclass(frozen=True)
class SubscriptionFact:
    """What the caller states about a subscription. currency, cycle: unset for those of the customer."""

    customer_id: str
    subscription_id: str
    plan_id: str | None
    plan_start_time: datetime | None
    plan_end_time: datetime | None
    currency: str | None
    cycle: BillingCycle | None
    start_time: datetime | None
    end_time: datetime | None
    custom_fields: Mapping[str, str]
    as_of_time: datetime
    display_name: str = ""


@dataclass(frozen=True)
class StoredSubscription:
    """A subscription as it is stored. currency, cycle: unset for those of the customer."""

    organization_id: int
    customer_id: str
    subscription_id: str
    plan_id: str | None
    currency: str | None
    cycle: BillingCycle | None
    customer_cycle: BillingCycle
    start_time: datetime | None
    end_time: datetime | None
    as_of_time: datetime | None
    create_time: datetime
    update_time: datetime
    plan_start_time: datetime | None = None
    plan_end_time: datetime | None = None
    custom_fields: Mapping[str, str] = field(default_factory=dict)
    display_name: str = ""


@dataclass(frozen=True)
class SubscriptionFilter:
    """Which subscriptions to list: those that match each field that is set."""

    customer_id: str | None = None
    plan_id: str | None = None
    subscription_id: str | None = None


async def get(
    connection: AsyncConnection, organization_id: int, customer_id: str, subscription_id: str
) -> StoredSubscription | None:
    """One subscription of a customer, or None."""
    rows = await connection.execute(
        _SUBSCRIPTIONS.where(
            subscription.c.organization_id == organization_id,
            subscription.c.customer_id == customer_id,
            subscription.c.subscription_id == subscription_id,
        )
    )
    row = rows.mappings().one_or_none()
    return None if row is None else subscription_from(row)


async def customers_with(
    connection: AsyncConnection, organization_id: int, subscription_id: str, *, limit: int
) -> list[str]:
    """The ids of up to `limit` customers that have a subscription of that id."""
    found = await connection.scalars(
        select(subscription.c.customer_id)
        .where(subscription.c.organization_id == organization_id, subscription.c.subscription_id == subscription_id)
        .limit(limit)
    )
    return list(found.all())


async def get_many(
    connection: AsyncConnection, organization_id: int, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], StoredSubscription]:
    """Those of the subscriptions that exist, by customer id and subscription id."""
    rows = await connection.execute(
        _SUBSCRIPTIONS.where(
            subscription.c.organization_id == organization_id,
            tuple_(subscription.c.customer_id, subscription.c.subscription_id).in_(sorted(keys)),
        )
    )
    return {(row["customer_id"], row["subscription_id"]): subscription_from(row) for row in rows.mappings()}


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    wanted: SubscriptionFilter,
    *,
    after: tuple[str, str] | None,
    limit: int,
) -> list[StoredSubscription]:
    """Up to `limit` subscriptions in the order of customer id and subscription id.

    after: the key of the last subscription of the page before.
    """
    statement = _SUBSCRIPTIONS.where(*_selected(organization_id, wanted))
    if after is not None:
        statement = statement.where(tuple_(subscription.c.customer_id, subscription.c.subscription_id) > after)
    rows = await connection.execute(
        statement.order_by(subscription.c.customer_id, subscription.c.subscription_id).limit(limit)
    )
    return [subscription_from(row) for row in rows.mappings()]


async def count(connection: AsyncConnection, organization_id: int, wanted: SubscriptionFilter) -> int:
    """How many subscriptions `list_page` returns on all pages, see `bounded_count`."""
    return await bounded_count(connection, subscription, *_selected(organization_id, wanted))


def _selected(organization_id: int, wanted: SubscriptionFilter) -> list[ColumnElement[bool]]:
    conditions = [subscription.c.organization_id == organization_id]
    if wanted.customer_id is not None:
        conditions.append(subscription.c.customer_id == wanted.customer_id)
    if wanted.plan_id is not None:
        conditions.append(subscription.c.plan_id == wanted.plan_id)
    if wanted.subscription_id is not None:
        conditions.append(subscription.c.subscription_id == wanted.subscription_id)
    return conditions


def subscription_from(row: FactRow) -> StoredSubscription:
    """The subscription of a row, which has the billing cycle of its customer, too."""
    return StoredSubscription(
        organization_id=row["organization_id"],
        customer_id=row["customer_id"],
        subscription_id=row["subscription_id"],
        plan_id=row["plan_id"],
        currency=row["currency"],
        cycle=cycle_of(row),
        customer_cycle=cycle_of(row, "customer_") or DEFAULT_CYCLE,
        start_time=row["start_time"],
        end_time=row["end_time"],
        as_of_time=row["as_of_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        plan_start_time=row["plan_start_time"],
        plan_end_time=row["plan_end_time"],
        custom_fields=row["custom_fields"],
        display_name=row["display_name"],
    )

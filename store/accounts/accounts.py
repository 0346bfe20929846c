"""The facts about whom an organization bills: customers and subscriptions.

A fact carries the time it was true at. Putting an older one than what is stored changes nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, RowMapping, and_, any_, cast, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.periods import DEFAULT_CYCLE, BillingCycle, Cadence
from store.accounts.puts import put_fact
from store.identity import organizations
from store.tables.accounts import customer, subscription
from store.tables.base import Identifier

DEFAULT_CURRENCY = "USD"

_CYCLE_COLUMNS = ("anchor_time", "cadence", "interval_count", "time_zone")

# Each with its customer's cycle, which is its own where it has none.
_SUBSCRIPTIONS = select(
    subscription, *(customer.c[name].label(f"customer_{name}") for name in _CYCLE_COLUMNS)
).outerjoin(
    customer,
    and_(
        customer.c.organization_id == subscription.c.organization_id,
        customer.c.customer_id == subscription.c.customer_id,
    ),
)


@dataclass(frozen=True)
class Customer:
    """Who is billed. as_of_time is unset while the customer is only known from usage."""

    organization_id: int
    customer_id: str
    display_name: str
    plan_id: str | None
    currency: str
    cycle: BillingCycle
    as_of_time: datetime | None
    create_time: datetime
    update_time: datetime
    plan_start_time: datetime | None = None
    plan_end_time: datetime | None = None
    custom_fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Subscription:
    """A customer's contract to a plan. An unset currency or cycle is the customer's."""

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


async def put_customer(
    connection: AsyncConnection,
    organization_id: int,
    customer_id: str,
    *,
    display_name: str,
    plan_id: str | None,
    plan_start_time: datetime | None,
    plan_end_time: datetime | None,
    currency: str,
    cycle: BillingCycle,
    custom_fields: Mapping[str, str],
    as_of_time: datetime,
    now: datetime,
) -> tuple[Customer, int | None]:
    """Stores the fact, unless a newer one is stored; returns what is stored afterwards.

    And the organization's new epoch if something changed, whose lock is held then.
    """
    key = {"organization_id": organization_id, "customer_id": customer_id}
    facts = {
        "display_name": display_name,
        "plan_id": plan_id,
        "plan_start_time": plan_start_time,
        "plan_end_time": plan_end_time,
        "currency": currency,
        "custom_fields": dict(custom_fields),
        **_cycle_columns(cycle),
    }
    epoch = await put_fact(connection, customer, key, facts, as_of_time, now)
    stored = await get_customer(connection, organization_id, customer_id)
    assert stored is not None, "a customer exists after it was put"
    return stored, epoch


async def put_subscription(
    connection: AsyncConnection,
    organization_id: int,
    customer_id: str,
    subscription_id: str,
    *,
    plan_id: str | None,
    plan_start_time: datetime | None,
    plan_end_time: datetime | None,
    currency: str | None,
    cycle: BillingCycle | None,
    start_time: datetime | None,
    end_time: datetime | None,
    custom_fields: Mapping[str, str],
    as_of_time: datetime,
    now: datetime,
) -> tuple[Subscription, int | None, bool]:
    """Stores the fact, unless a newer one is stored; returns what is stored afterwards.

    And the organization's new epoch if something changed, whose lock is held then; and whether its customer, whom
    nobody registered, was created with the defaults.
    """
    key = {
        "organization_id": organization_id,
        "customer_id": customer_id,
        "subscription_id": subscription_id,
    }
    facts = {
        "plan_id": plan_id,
        "plan_start_time": plan_start_time,
        "plan_end_time": plan_end_time,
        "currency": currency,
        "custom_fields": dict(custom_fields),
        "start_time": start_time,
        "end_time": end_time,
        **_cycle_columns(cycle),
    }
    created = await get_customer(connection, organization_id, customer_id) is None
    if created:
        await _create_with_defaults(connection, organization_id, customer_id, now)
    changed = await put_fact(connection, subscription, key, facts, as_of_time, now)
    stored = await get_subscription(connection, organization_id, customer_id, subscription_id)
    assert stored is not None, "a subscription exists after it was put"
    return stored, changed, created


async def get_customer(connection: AsyncConnection, organization_id: int, customer_id: str) -> Customer | None:
    """One customer, or None."""
    rows = await connection.execute(
        select(customer).where(customer.c.organization_id == organization_id, customer.c.customer_id == customer_id)
    )
    row = rows.mappings().one_or_none()
    return None if row is None else _customer(row)


async def get_customers(
    connection: AsyncConnection, organization_id: int, customer_ids: Collection[str]
) -> dict[str, Customer]:
    """Those of the customers that exist, by their ids."""
    rows = await connection.execute(
        select(customer).where(
            customer.c.organization_id == organization_id,
            customer.c.customer_id == any_(cast(list(customer_ids), ARRAY(Identifier))),
        )
    )
    return {row["customer_id"]: _customer(row) for row in rows.mappings()}


async def get_subscriptions(
    connection: AsyncConnection, organization_id: int, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Subscription]:
    """Those of the subscriptions that exist, by customer id and subscription id."""
    rows = await connection.execute(
        _SUBSCRIPTIONS.where(
            subscription.c.organization_id == organization_id,
            tuple_(subscription.c.customer_id, subscription.c.subscription_id).in_(sorted(keys)),
        )
    )
    return {(row["customer_id"], row["subscription_id"]): _subscription(row) for row in rows.mappings()}


async def customer_ids_after(
    connection: AsyncConnection, organization_id: int, only: Collection[str], after: str, *, limit: int
) -> list[str]:
    """Up to `limit` ids of customers behind an id, in their order; of those in `only`, of all where it is empty."""
    statement = (
        select(customer.c.customer_id)
        .where(customer.c.organization_id == organization_id, customer.c.customer_id > after)
        .order_by(customer.c.customer_id)
        .limit(limit)
    )
    if only:
        statement = statement.where(customer.c.customer_id == any_(cast(list(only), ARRAY(Identifier))))
    return list((await connection.scalars(statement)).all())


async def get_subscription(
    connection: AsyncConnection, organization_id: int, customer_id: str, subscription_id: str
) -> Subscription | None:
    """One subscription of a customer, or None."""
    rows = await connection.execute(
        _SUBSCRIPTIONS.where(
            subscription.c.organization_id == organization_id,
            subscription.c.customer_id == customer_id,
            subscription.c.subscription_id == subscription_id,
        )
    )
    row = rows.mappings().one_or_none()
    return None if row is None else _subscription(row)


async def list_customers(
    connection: AsyncConnection, organization_id: int, *, plan_id: str | None, after: str | None, limit: int
) -> list[Customer]:
    """Up to `limit` customers after the id `after`, in the order of ids; of one plan, or of all."""
    statement = select(customer).where(customer.c.organization_id == organization_id)
    if plan_id is not None:
        statement = statement.where(customer.c.plan_id == plan_id)
    if after is not None:
        statement = statement.where(customer.c.customer_id > after)
    rows = await connection.execute(statement.order_by(customer.c.customer_id).limit(limit))
    return [_customer(row) for row in rows.mappings()]


async def list_subscriptions(
    connection: AsyncConnection,
    organization_id: int,
    *,
    customer_id: str | None,
    plan_id: str | None,
    after: tuple[str, str] | None,
    limit: int,
) -> list[Subscription]:
    """Up to `limit` subscriptions after (customer id, id) `after`, in that order, narrowed where asked."""
    place = tuple_(subscription.c.customer_id, subscription.c.subscription_id)
    statement = _SUBSCRIPTIONS.where(subscription.c.organization_id == organization_id)
    if customer_id is not None:
        statement = statement.where(subscription.c.customer_id == customer_id)
    if plan_id is not None:
        statement = statement.where(subscription.c.plan_id == plan_id)
    if after is not None:
        statement = statement.where(place > after)
    rows = await connection.execute(
        statement.order_by(subscription.c.customer_id, subscription.c.subscription_id).limit(limit)
    )
    return [_subscription(row) for row in rows.mappings()]


async def _create_with_defaults(
    connection: AsyncConnection, organization_id: int, customer_id: str, now: datetime
) -> None:
    epoch = await organizations.change(connection, organization_id)
    await connection.execute(
        insert(customer)
        .values(
            organization_id=organization_id,
            customer_id=customer_id,
            display_name="",
            currency=DEFAULT_CURRENCY,
            **_cycle_columns(DEFAULT_CYCLE),
            create_time=now,
            update_time=now,
            changed_epoch=epoch,
        )
        .on_conflict_do_nothing()
    )


def _customer(row: RowMapping) -> Customer:
    cycle = _cycle(row)
    assert cycle is not None, "a customer always has a billing cycle"
    return Customer(
        organization_id=row["organization_id"],
        customer_id=row["customer_id"],
        display_name=row["display_name"],
        plan_id=row["plan_id"],
        currency=row["currency"],
        cycle=cycle,
        as_of_time=row["as_of_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        plan_start_time=row["plan_start_time"],
        plan_end_time=row["plan_end_time"],
        custom_fields=row["custom_fields"],
    )


def _subscription(row: RowMapping) -> Subscription:
    return Subscription(
        organization_id=row["organization_id"],
        customer_id=row["customer_id"],
        subscription_id=row["subscription_id"],
        plan_id=row["plan_id"],
        currency=row["currency"],
        cycle=_cycle(row),
        customer_cycle=_cycle(row, "customer_") or DEFAULT_CYCLE,
        start_time=row["start_time"],
        end_time=row["end_time"],
        as_of_time=row["as_of_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        plan_start_time=row["plan_start_time"],
        plan_end_time=row["plan_end_time"],
        custom_fields=row["custom_fields"],
    )


def _cycle(row: RowMapping, prefix: str = "") -> BillingCycle | None:
    anchor, cadence, interval_count, time_zone = (row[prefix + name] for name in _CYCLE_COLUMNS)
    return None if anchor is None else BillingCycle(anchor, Cadence(cadence), interval_count, time_zone)


def _cycle_columns(cycle: BillingCycle | None) -> dict[str, Any]:
    if cycle is None:
        return dict.fromkeys(_CYCLE_COLUMNS)
    values = (cycle.anchor, cycle.cadence.value, cycle.interval_count, cycle.time_zone)
    return dict(zip(_CYCLE_COLUMNS, values, strict=True))

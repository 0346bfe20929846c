"""Customers: the parties that are billed, each with its plan, currency and billing cycle.

`store.accounts.customer_puts` puts them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ARRAY, ColumnElement, any_, cast, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.periods import BillingCycle
from store.accounts.billing_cycles import cycle_of
from store.accounts.customer_names import NameKind
from store.accounts.put_statements import FactRow
from store.postgres.counting import bounded_count
from store.tables.accounts import customer, customer_name
from store.tables.base import Identifier

MAX_ID_LENGTH = 128  # characters
_GREATEST = "\U0010ffff"  # no character follows it


@dataclass(frozen=True)
class CustomerFact:
    """What the caller states about a customer.

    plan_start_time, plan_end_time: unset if the plan is not limited. aliases: sorted. parent_customer_id: the
    customer directly above.
    """

    customer_id: str
    display_name: str
    plan_id: str | None
    plan_start_time: datetime | None
    plan_end_time: datetime | None
    currency: str
    cycle: BillingCycle
    custom_fields: Mapping[str, str]
    as_of_time: datetime
    external_id: str | None = None
    aliases: tuple[str, ...] = ()
    parent_customer_id: str | None = None


@dataclass(frozen=True)
class StoredCustomer:
    """A customer as it is stored. as_of_time: unset after implicit registration, until a put states a fact."""

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
    external_id: str | None = None
    aliases: tuple[str, ...] = ()
    parent_customer_id: str | None = None


@dataclass(frozen=True)
class CustomerFilter:
    """Which customers to list: those that match each field that is set. prefix: of their ids."""

    plan_id: str | None = None
    external_id: str | None = None
    alias: str | None = None
    parent_customer_id: str | None = None
    prefix: str = ""


async def get(connection: AsyncConnection, organization_id: int, customer_id: str) -> StoredCustomer | None:
    """One customer, or None."""
    rows = await connection.execute(
        select(customer).where(customer.c.organization_id == organization_id, customer.c.customer_id == customer_id)
    )
    row = rows.mappings().one_or_none()
    return None if row is None else customer_from(row)


async def get_many(
    connection: AsyncConnection, organization_id: int, customer_ids: Collection[str]
) -> dict[str, StoredCustomer]:
    """Those of the customers that exist, by their ids."""
    rows = await connection.execute(
        select(customer).where(
            customer.c.organization_id == organization_id,
            customer.c.customer_id == any_(cast(list(customer_ids), ARRAY(Identifier))),
        )
    )
    return {row["customer_id"]: customer_from(row) for row in rows.mappings()}


async def ids_after(
    connection: AsyncConnection, organization_id: int, only: Collection[str], after: str, *, limit: int
) -> list[str]:
    """Up to `limit` ids of customers after the id `after`, in order. only: their ids; empty for all customers."""
    statement = (
        select(customer.c.customer_id)
        .where(customer.c.organization_id == organization_id, customer.c.customer_id > after)
        .order_by(customer.c.customer_id)
        .limit(limit)
    )
    if only:
        statement = statement.where(customer.c.customer_id == any_(cast(list(only), ARRAY(Identifier))))
    return list((await connection.scalars(statement)).all())


async def list_page(
    connection: AsyncConnection, organization_id: int, wanted: CustomerFilter, *, after: str | None, limit: int
) -> list[StoredCustomer]:
    """Up to `limit` customers after the id `after`, in the order of ids."""
    statement = select(customer).where(*_selected(organization_id, wanted))
    if after is not None:
        statement = statement.where(customer.c.customer_id > after)
    rows = await connection.execute(statement.order_by(customer.c.customer_id).limit(limit))
    return [customer_from(row) for row in rows.mappings()]


async def count(connection: AsyncConnection, organization_id: int, wanted: CustomerFilter) -> int:
    """How many customers `list_page` returns on all pages, see `bounded_count`."""
    return await bounded_count(connection, customer, *_selected(organization_id, wanted))


def _selected(organization_id: int, wanted: CustomerFilter) -> list[ColumnElement[bool]]:
    conditions = [customer.c.organization_id == organization_id]
    if wanted.plan_id is not None:
        conditions.append(customer.c.plan_id == wanted.plan_id)
    if wanted.prefix:
        # With the collation "C", the ids that begin with it are a range of the primary key. No id is longer than this
        # last one.
        conditions.append(customer.c.customer_id >= wanted.prefix)
        conditions.append(customer.c.customer_id <= wanted.prefix + _GREATEST * MAX_ID_LENGTH)
    if wanted.parent_customer_id is not None:
        conditions.append(customer.c.parent_customer_id == wanted.parent_customer_id)
    for kind, name in ((NameKind.EXTERNAL_ID, wanted.external_id), (NameKind.ALIAS, wanted.alias)):
        if name is not None:
            found = select(customer_name.c.customer_id).where(
                customer_name.c.organization_id == organization_id,
                customer_name.c.kind == kind.value,
                customer_name.c.name == name,
            )
            conditions.append(customer.c.customer_id == found.scalar_subquery())
    return conditions


def customer_from(row: FactRow) -> StoredCustomer:
    """The customer of a row."""
    cycle = cycle_of(row)
    assert cycle is not None, "a customer always has a billing cycle"
    return StoredCustomer(
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
        external_id=row["external_id"],
        aliases=tuple(row["aliases"]),
        parent_customer_id=row["parent_customer_id"],
    )

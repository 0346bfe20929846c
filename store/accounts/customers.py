"""Customers: the parties that are billed, each with its plan, currency and billing cycle."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, any_, cast, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.periods import BillingCycle
from store.accounts.billing_cycles import cycle_columns, cycle_of
from store.accounts.customer_evaluations import NOTE, OWN_TIME
from store.accounts.customer_names import NameKind
from store.accounts.put_statements import COLLATED, CYCLE, TEXT, TIME, FactRow, StatedTable, encoded, fetched
from store.accounts.puts import Put, UnlockedPut
from store.erasures.jobs import CustomerBeingErased
from store.postgres.counting import bounded_count
from store.postgres.database import DriverConnection
from store.tables.accounts import customer, customer_name
from store.tables.base import Identifier


@dataclass(frozen=True)
class CustomerFact:
    """What the caller states about a customer.

    plan_start_time, plan_end_time: unset if the plan is not limited. aliases: sorted.
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


@dataclass(frozen=True)
class CustomerFilter:
    """Which customers to list: those that match each field that is set."""

    plan_id: str | None = None
    external_id: str | None = None
    alias: str | None = None


@dataclass(frozen=True)
class CustomerPut:
    """A customer that was put under the lock. names_changed: `replace_names` has to follow."""

    put: Put[StoredCustomer]
    names_changed: bool


_TABLE = StatedTable(
    "customer",
    ("customer_id",),
    {
        "display_name": "text",
        "external_id": TEXT,
        "aliases": f"text[] {COLLATED}",
        "plan_id": TEXT,
        "plan_start_time": TIME,
        "plan_end_time": TIME,
        "currency": TEXT,
        "custom_fields": "jsonb",
        **CYCLE,
    },
    unlocked=frozenset({"display_name", "plan_start_time", "custom_fields"}),
    # A name must not be given to two customers, so it changes under the lock.
    unrouted=frozenset({"display_name", "plan_start_time", "custom_fields", "external_id", "aliases"}),
)

# A new customer has no usage yet.
_NOTE = NOTE.format(
    changed=f"""
        SELECT p.customer_id, true, b.customer_id IS NOT NULL, false, NULL::text
        FROM put p LEFT JOIN before b USING (customer_id)
        WHERE b.customer_id IS NULL OR NOT {_TABLE.same_routes("p", "b")}
    """
)

_PUT = f"""
WITH {_TABLE.input}, before AS MATERIALIZED (
    SELECT {_TABLE.listed("t.")} FROM input i JOIN customer t
        ON t.organization_id = %(organization_id)s AND t.customer_id = i.customer_id
), erased AS MATERIALIZED (
    SELECT j.customer_id FROM input i JOIN erasure_job j
        ON j.organization_id = %(organization_id)s AND j.customer_id = i.customer_id
), put AS ({_TABLE.upsert.format(wanted="i.customer_id NOT IN (SELECT customer_id FROM erased)")}
), noted AS ({_NOTE})
SELECT i.position, i.customer_id IN (SELECT customer_id FROM erased) AS erased,
       p.customer_id IS NULL AS superseded,
       (p.external_id, p.aliases) IS DISTINCT FROM (b.external_id, coalesce(b.aliases, '{{}}')) AS names_changed,
       {_TABLE.either("p", "b")}
FROM input i LEFT JOIN put p USING (customer_id) LEFT JOIN before b USING (customer_id)
""".encode()


async def change(
    connection: DriverConnection, organization_id: int, facts: Sequence[CustomerFact], now: datetime
) -> dict[int, UnlockedPut[StoredCustomer]]:
    """Puts those facts that need no lock of the organization, see `StatedTable.change`; by the index of the fact.

    The customers are distinct.
    """
    rows = await _TABLE.change(connection, organization_id, [_columns(fact) for fact in facts], now)
    return {
        position: UnlockedPut(_customer({"organization_id": organization_id, **row}), row["superseded"], row["noted"])
        for position, row in rows.items()
    }


async def put(
    connection: DriverConnection, organization_id: int, facts: Sequence[CustomerFact], epoch: int, now: datetime
) -> list[CustomerPut | CustomerBeingErased]:
    """Stores the facts, unless newer ones are stored, and notes which customers have to be evaluated.

    The transaction holds the organization's lock exclusively and has raised the epoch to this one. The customers are
    distinct.
    """
    parameters = {
        "organization_id": organization_id,
        "epoch": epoch,
        "now": now,
        "due_time": now + OWN_TIME,
        "facts": encoded([_columns(fact) for fact in facts]),
    }
    rows = await fetched(connection, _PUT, parameters)
    found: list[CustomerPut | CustomerBeingErased] = []
    for position, fact in enumerate(facts):
        row = rows[position]
        if row["erased"]:
            found.append(CustomerBeingErased(fact.customer_id))
            continue
        stored = _customer({"organization_id": organization_id, **row})
        changed = not row["superseded"]
        found.append(
            CustomerPut(
                Put(stored, superseded=not changed, changed=changed, epoch=epoch),
                names_changed=changed and row["names_changed"],
            )
        )
    return found


def _columns(fact: CustomerFact) -> dict[str, Any]:
    """What the fact states, by column."""
    return {
        "customer_id": fact.customer_id,
        "display_name": fact.display_name,
        "external_id": fact.external_id,
        "aliases": fact.aliases,
        "plan_id": fact.plan_id,
        "plan_start_time": fact.plan_start_time,
        "plan_end_time": fact.plan_end_time,
        "currency": fact.currency,
        "custom_fields": fact.custom_fields,
        "as_of_time": fact.as_of_time,
        **cycle_columns(fact.cycle),
    }


async def get(connection: AsyncConnection, organization_id: int, customer_id: str) -> StoredCustomer | None:
    """One customer, or None."""
    rows = await connection.execute(
        select(customer).where(customer.c.organization_id == organization_id, customer.c.customer_id == customer_id)
    )
    row = rows.mappings().one_or_none()
    return None if row is None else _customer(row)


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
    return {row["customer_id"]: _customer(row) for row in rows.mappings()}


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
    return [_customer(row) for row in rows.mappings()]


async def count(connection: AsyncConnection, organization_id: int, wanted: CustomerFilter) -> int:
    """How many customers `list_page` returns on all pages, see `bounded_count`."""
    return await bounded_count(connection, customer, *_selected(organization_id, wanted))


def _selected(organization_id: int, wanted: CustomerFilter) -> list[ColumnElement[bool]]:
    conditions = [customer.c.organization_id == organization_id]
    if wanted.plan_id is not None:
        conditions.append(customer.c.plan_id == wanted.plan_id)
    for kind, name in ((NameKind.EXTERNAL_ID, wanted.external_id), (NameKind.ALIAS, wanted.alias)):
        if name is not None:
            found = select(customer_name.c.customer_id).where(
                customer_name.c.organization_id == organization_id,
                customer_name.c.kind == kind.value,
                customer_name.c.name == name,
            )
            conditions.append(customer.c.customer_id == found.scalar_subquery())
    return conditions


def _customer(row: FactRow) -> StoredCustomer:
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
    )

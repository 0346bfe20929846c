"""Invoices, as the billing system posts them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import ColumnElement, RowMapping, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.invoices import InvoiceStatus
from store.accounts.puts import Put, is_newer
from store.postgres.counting import bounded_count
from store.tables.invoices import invoice


@dataclass(frozen=True)
class InvoiceFact:
    """What the caller states about an invoice.

    total: after credits and commits, in the currency's major unit. period_end_time: just after the last instant of
    the invoiced period.
    """

    customer_id: str
    invoice_id: str
    invoice_type: str | None
    status: InvoiceStatus
    currency: str
    total: Decimal
    period_start_time: datetime | None
    period_end_time: datetime
    custom_fields: Mapping[str, str]
    contract_custom_fields: Mapping[str, str]
    as_of_time: datetime
    display_name: str = ""


@dataclass(frozen=True)
class StoredInvoice:
    """An invoice as it is stored: the newest fact, and when it was created and last changed."""

    organization_id: int
    fact: InvoiceFact
    create_time: datetime
    update_time: datetime


async def put(
    connection: AsyncConnection, organization_id: int, fact: InvoiceFact, now: datetime
) -> Put[StoredInvoice]:
    """Stores the fact, unless a newer one is stored. The transaction must hold the customer's wallet."""
    stored = await get(connection, organization_id, fact.customer_id, fact.invoice_id)
    if stored is not None and is_newer(stored.fact.as_of_time, fact.as_of_time):
        return Put(stored, superseded=True, previous=stored)
    changed = stored is None or _content(stored.fact) != _content(fact)
    create_time = now if stored is None else stored.create_time
    update_time = now if stored is None or changed else stored.update_time
    facts = {**_content(fact), "as_of_time": fact.as_of_time, "update_time": update_time}
    await connection.execute(
        insert(invoice)
        .values(
            organization_id=organization_id,
            customer_id=fact.customer_id,
            invoice_id=fact.invoice_id,
            create_time=create_time,
            **facts,
        )
        .on_conflict_do_update(index_elements=["organization_id", "customer_id", "invoice_id"], set_=facts)
    )
    return Put(StoredInvoice(organization_id, fact, create_time, update_time), changed=changed, previous=stored)


async def get(
    connection: AsyncConnection, organization_id: int, customer_id: str, invoice_id: str
) -> StoredInvoice | None:
    """One invoice of a customer, or None."""
    rows = await connection.execute(
        select(invoice).where(
            invoice.c.organization_id == organization_id,
            invoice.c.customer_id == customer_id,
            invoice.c.invoice_id == invoice_id,
        )
    )
    row = rows.mappings().one_or_none()
    return None if row is None else _invoice(row)


@dataclass(frozen=True)
class InvoiceFilter:
    """Which invoices to list. An unset or empty field does not limit the list."""

    customer_id: str | None = None
    invoice_type: str | None = None
    statuses: tuple[InvoiceStatus, ...] = ()


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    wanted: InvoiceFilter,
    *,
    after: tuple[str, str] | None,
    limit: int,
) -> list[StoredInvoice]:
    """Up to `limit` invoices in the order of customer id and invoice id.

    after: the key of the last invoice of the page before.
    """
    statement = select(invoice).where(*_selected(organization_id, wanted))
    if after is not None:
        statement = statement.where(tuple_(invoice.c.customer_id, invoice.c.invoice_id) > after)
    rows = await connection.execute(statement.order_by(invoice.c.customer_id, invoice.c.invoice_id).limit(limit))
    return [_invoice(row) for row in rows.mappings()]


async def count(connection: AsyncConnection, organization_id: int, wanted: InvoiceFilter) -> int:
    """How many invoices `list_page` returns on all pages, see `bounded_count`."""
    return await bounded_count(connection, invoice, *_selected(organization_id, wanted))


def _selected(organization_id: int, wanted: InvoiceFilter) -> list[ColumnElement[bool]]:
    conditions = [invoice.c.organization_id == organization_id]
    if wanted.customer_id is not None:
        conditions.append(invoice.c.customer_id == wanted.customer_id)
    if wanted.invoice_type is not None:
        conditions.append(invoice.c.invoice_type == wanted.invoice_type)
    if wanted.statuses:
        conditions.append(invoice.c.status.in_([status.value for status in wanted.statuses]))
    return conditions


def _content(fact: InvoiceFact) -> dict[str, object]:
    """The columns of the content of a fact: if they are equal, a put changes nothing but as_of_time."""
    return {
        "display_name": fact.display_name,
        "invoice_type": fact.invoice_type,
        "status": fact.status.value,
        "currency": fact.currency,
        "total": fact.total,
        "period_start_time": fact.period_start_time,
        "period_end_time": fact.period_end_time,
        "custom_fields": dict(fact.custom_fields),
        "contract_custom_fields": dict(fact.contract_custom_fields),
    }


def _invoice(row: RowMapping) -> StoredInvoice:
    return StoredInvoice(
        organization_id=row["organization_id"],
        fact=InvoiceFact(
            customer_id=row["customer_id"],
            invoice_id=row["invoice_id"],
            invoice_type=row["invoice_type"],
            status=InvoiceStatus(row["status"]),
            currency=row["currency"],
            total=row["total"],
            period_start_time=row["period_start_time"],
            period_end_time=row["period_end_time"],
            custom_fields=row["custom_fields"],
            contract_custom_fields=row["contract_custom_fields"],
            as_of_time=row["as_of_time"],
            display_name=row["display_name"],
        ),
        create_time=row["create_time"],
        update_time=row["update_time"],
    )

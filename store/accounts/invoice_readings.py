"""Invoices in the form that alerts evaluate."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, false, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.invoices import InvoiceStatus, MeasuredInvoice
from evaluator.periods import Period
from store.accounts.invoices import InvoiceFact
from store.tables.invoices import invoice


def invoice_of(fact: InvoiceFact) -> MeasuredInvoice:
    """The invoice that alerts evaluate, from a fact."""
    return MeasuredInvoice(
        invoice_id=fact.invoice_id,
        type=fact.invoice_type,
        status=fact.status,
        currency=fact.currency,
        total=fact.total,
        period_end=fact.period_end_time,
        contract_custom_fields=fact.contract_custom_fields,
    )


async def ending_in(
    connection: AsyncConnection, organization_id: int, customer_id: str, periods: Sequence[Period]
) -> list[MeasuredInvoice]:
    """The invoices of a customer whose own period ends within one of `periods`."""
    # An end is just after the last instant of its period: an invoice that ends where a period starts belongs to the
    # period before.
    within = [
        and_(invoice.c.period_end_time > period.start, invoice.c.period_end_time <= period.end) for period in periods
    ]
    return await _read(connection, organization_id, customer_id, or_(false(), *within))


async def ending_after(
    connection: AsyncConnection, organization_id: int, customer_id: str, time: datetime
) -> list[MeasuredInvoice]:
    """The invoices of a customer whose own period ends after `time`."""
    return await _read(connection, organization_id, customer_id, invoice.c.period_end_time > time)


async def _read(
    connection: AsyncConnection, organization_id: int, customer_id: str, condition: ColumnElement[bool]
) -> list[MeasuredInvoice]:
    columns = (
        invoice.c.invoice_id,
        invoice.c.invoice_type,
        invoice.c.status,
        invoice.c.currency,
        invoice.c.total,
        invoice.c.period_end_time,
        invoice.c.contract_custom_fields,
    )
    rows = await connection.execute(
        select(*columns).where(
            invoice.c.organization_id == organization_id, invoice.c.customer_id == customer_id, condition
        )
    )
    return [MeasuredInvoice(row[0], row[1], InvoiceStatus(row[2]), *row[3:]) for row in rows]

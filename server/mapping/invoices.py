"""Invoices as messages of the contract, and the checks of what callers send."""

from collections.abc import Sequence
from datetime import datetime

from evaluator.amounts import format_decimal
from evaluator.invoices import InvoiceStatus
from generated.tidemark.v1 import invoice_pb2
from server.calls.validation import Violations, to_timestamp
from server.mapping.custom_fields import read_custom_fields
from store.accounts.invoices import InvoiceFact, StoredInvoice

_STATUSES = {
    InvoiceStatus.DRAFT: invoice_pb2.INVOICE_STATUS_DRAFT,
    InvoiceStatus.ISSUED: invoice_pb2.INVOICE_STATUS_ISSUED,
    InvoiceStatus.PAID: invoice_pb2.INVOICE_STATUS_PAID,
    InvoiceStatus.VOID: invoice_pb2.INVOICE_STATUS_VOID,
}


def read_invoice(violations: Violations, path: str, sent: invoice_pb2.Invoice, now: datetime) -> InvoiceFact:
    """The invoice that was sent."""
    customer_id = violations.identifier(f"{path}.customer_id", sent.customer_id)
    invoice_id = violations.identifier(f"{path}.invoice_id", sent.invoice_id)
    display_name = violations.text(f"{path}.display_name", sent.display_name)
    invoice_type = violations.identifier(f"{path}.type", sent.type, required=False) or None
    status = _read_status(violations, f"{path}.status", sent.status)
    if not sent.currency:
        violations.add(f"{path}.currency", "it is required")
    currency = violations.currency(f"{path}.currency", sent.currency, default="")
    total = violations.decimal(f"{path}.total", sent.total)
    start = None
    if sent.HasField("period_start_time"):
        start = violations.time(f"{path}.period_start_time", sent.period_start_time)
    end = violations.time(f"{path}.period_end_time", sent.period_end_time)
    if not sent.HasField("period_end_time"):
        violations.add(f"{path}.period_end_time", "it is required")
    elif start is not None and end <= start:
        violations.add(f"{path}.period_end_time", "it is not after period_start_time")
    custom_fields = read_custom_fields(violations, f"{path}.custom_fields", sent.custom_fields)
    of_contract = read_custom_fields(violations, f"{path}.contract_custom_fields", sent.contract_custom_fields)
    as_of_time = now
    if sent.HasField("as_of_time"):
        as_of_time = violations.past_time(f"{path}.as_of_time", sent.as_of_time, now)
    return InvoiceFact(
        customer_id=customer_id,
        invoice_id=invoice_id,
        invoice_type=invoice_type,
        status=status,
        currency=currency,
        total=total,
        period_start_time=start,
        period_end_time=end,
        custom_fields=custom_fields,
        contract_custom_fields=of_contract,
        as_of_time=as_of_time,
        display_name=display_name,
    )


def read_statuses(
    violations: Violations, path: str, sent: Sequence[invoice_pb2.InvoiceStatus.ValueType]
) -> tuple[InvoiceStatus, ...]:
    """The statuses of a filter, each once, in an order of their own."""
    found = {_read_status(violations, f"{path}[{index}]", number) for index, number in enumerate(sent)}
    return tuple(sorted(found))


def invoice_message(invoice: StoredInvoice) -> invoice_pb2.Invoice:
    """The message for an invoice."""
    fact = invoice.fact
    return invoice_pb2.Invoice(
        invoice_id=fact.invoice_id,
        customer_id=fact.customer_id,
        display_name=fact.display_name,
        type=fact.invoice_type or "",
        status=_STATUSES[fact.status],
        currency=fact.currency,
        total=format_decimal(fact.total),
        period_start_time=None if fact.period_start_time is None else to_timestamp(fact.period_start_time),
        period_end_time=to_timestamp(fact.period_end_time),
        custom_fields=fact.custom_fields,
        contract_custom_fields=fact.contract_custom_fields,
        as_of_time=to_timestamp(fact.as_of_time),
        create_time=to_timestamp(invoice.create_time),
        update_time=to_timestamp(invoice.update_time),
    )


def _read_status(violations: Violations, path: str, number: invoice_pb2.InvoiceStatus.ValueType) -> InvoiceStatus:
    for status, known in _STATUSES.items():
        if known == number:
            return status
    violations.add(path, f"there is no status {number}" if number else "it is required")
    return InvoiceStatus.VOID

"""Requests of the demo's billing system: balances, invoices, plan ends; and the conditions of alerts on them."""

from datetime import datetime

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from cli.client.connection import UNARY_TIMEOUT
from demo import definitions
from demo.billing_steps import AdjustBalance, Posting, PutBalance, PutInvoice, PutPlanEnd, VoidBalance
from demo.definitions import AlertDefinition, decimal_text
from generated.tidemark.v1 import (
    alert_pb2,
    balance_pb2,
    customer_pb2,
    filter_pb2,
    invoice_pb2,
)
from generated.tidemark.v1.account_service_pb2 import (
    AdjustBalanceRequest,
    PutBalanceRequest,
    PutCustomerRequest,
    PutInvoiceRequest,
    VoidBalanceRequest,
)
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from tests.reference.balances import LICENSE_ALLOTMENT, Span
from tests.reference.facts import Invoice

_EITHER = filter_pb2.CUSTOM_FIELD_ENTITY_CONTRACT_CREDIT_OR_COMMIT
_WITHOUT_THRESHOLDS = (definitions.CREDIT_BALANCE_DEPLETED, definitions.CREDIT_BALANCE_RECOVERED)


async def post(channel: grpc.aio.Channel, step: Posting, number: int) -> None:
    """Sends the request of one step. number: that of the step in the script, for the id of an adjustment."""
    stub = AccountServiceStub(channel)
    match step:
        case PutBalance():
            await stub.PutBalance(PutBalanceRequest(balance=_balance(step)), timeout=UNARY_TIMEOUT)
        case AdjustBalance():
            adjustment = AdjustBalanceRequest(
                customer_id=step.customer,
                balance_id=step.balance_id,
                adjustment_id=f"adjustment-{number}",
                amount=decimal_text(step.amount),
                segment_number=1,
            )
            await stub.AdjustBalance(adjustment, timeout=UNARY_TIMEOUT)
        case VoidBalance():
            voiding = VoidBalanceRequest(customer_id=step.customer, balance_id=step.balance_id)
            await stub.VoidBalance(voiding, timeout=UNARY_TIMEOUT)
        case PutInvoice():
            await stub.PutInvoice(
                PutInvoiceRequest(invoice=_invoice(step.customer, step.invoice)), timeout=UNARY_TIMEOUT
            )
        case PutPlanEnd():
            customer = customer_pb2.Customer(
                customer_id=step.customer, plan_id=step.plan, plan_end_time=_timestamp(step.end)
            )
            await stub.PutCustomer(PutCustomerRequest(customer=customer), timeout=UNARY_TIMEOUT)


def set_fact_condition(alert: alert_pb2.Alert, definition: AlertDefinition) -> None:
    """Sets the condition of an alert on facts. Raises ValueError when the contract has no such condition."""
    if definition.condition not in alert.DESCRIPTOR.fields_by_name:
        raise ValueError(f"the contract has no condition {definition.condition}")
    condition = getattr(alert, definition.condition)
    condition.SetInParent()
    fields = condition.DESCRIPTOR.fields_by_name
    if "currency" in fields:
        condition.currency = definition.measured
    if "spend" in fields:
        condition.spend.currency = definition.measured
    if "invoice_types_filter" in fields:
        condition.invoice_types_filter.extend(definition.types)
    if "credit_grant_type_filters" in fields:
        condition.credit_grant_type_filters.extend(definition.types)
    if "license_type" in fields:
        condition.license_type = definition.types[0]
    if definition.seat_key:
        condition.seat_filter.seat_group_key = definition.seat_key
    if definition.divide_by or definition.excluded:
        specifier = condition.alert_specifiers.add()
        if definition.divide_by:
            specifier.custom_field_filters.add(entity=_EITHER, key=definition.divide_by)
        if definition.excluded:
            key, value = definition.excluded
            specifier.exclude.add().custom_field_filters.add(entity=_EITHER, key=key, value=value)
    if definition.condition in _WITHOUT_THRESHOLDS:
        del alert.thresholds[:]


def _balance(put: PutBalance) -> balance_pb2.Balance:
    terms = put.terms
    balance = balance_pb2.Balance(
        balance_id=terms.balance_id,
        customer_id=put.customer,
        kind=balance_pb2.BalanceKind.Value(f"BALANCE_KIND_{terms.kind}"),
        priority=terms.priority,
        custom_fields=terms.fields,
        draw_down=terms.draws,
        segments=[_segment(span) for span in put.spans],
    )
    if terms.kind == LICENSE_ALLOTMENT:
        balance.license_type = terms.type
    else:
        balance.credit_grant_type = terms.type
    kind, name = terms.unit
    if kind == "usage":
        balance.quantity.metric_id = name
    else:
        balance.spend.currency = name
    if terms.seat is not None:
        balance.seat.seat_group_key, balance.seat.seat_group_value = terms.seat
    return balance


def _segment(span: Span) -> balance_pb2.BalanceSegment:
    amount, start, end = span
    return balance_pb2.BalanceSegment(
        amount=decimal_text(amount),
        start_time=_timestamp(start),
        end_time=None if end is None else _timestamp(end),
    )


def _invoice(customer: str, invoice: Invoice) -> invoice_pb2.Invoice:
    return invoice_pb2.Invoice(
        invoice_id=invoice.invoice_id,
        customer_id=customer,
        type=invoice.type,
        status=invoice_pb2.InvoiceStatus.Value(f"INVOICE_STATUS_{invoice.status}"),
        currency=invoice.currency,
        total=decimal_text(invoice.total),
        period_end_time=_timestamp(invoice.period_end),
    )


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp

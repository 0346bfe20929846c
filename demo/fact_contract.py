"""What a billing system posts, in the contract's words: balances, invoices, plan ends, and conditions on them."""

from datetime import datetime
from decimal import Decimal

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from cli.client.connection import UNARY_TIMEOUT
from demo import world
from demo.posted import LICENSE_ALLOTMENT, Adjustment, Grant, PlanEnd, Posting, Span, Voiding
from demo.world import AlertPlan, short
from generated.tidemark.v1 import account_pb2, alert_pb2, balance_pb2, condition_pb2, invoice_pb2
from generated.tidemark.v1.account_service_pb2 import (
    AdjustBalanceRequest,
    PutBalanceRequest,
    PutCustomerRequest,
    PutInvoiceRequest,
    VoidBalanceRequest,
)
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub

_EITHER = condition_pb2.CUSTOM_FIELD_ENTITY_CONTRACT_CREDIT_OR_COMMIT
_OWN_LINES = (world.CREDIT_BALANCE_DEPLETED, world.CREDIT_BALANCE_RECOVERED)


async def post(
    channel: grpc.aio.Channel, step: Grant | Adjustment | Voiding | Posting | PlanEnd, number: int
) -> None:
    """Carries out one step; number: of all steps, which makes an adjustment's id."""
    stub = AccountServiceStub(channel)
    match step:
        case Grant():
            await stub.PutBalance(PutBalanceRequest(balance=_balance(step)), timeout=UNARY_TIMEOUT)
        case Adjustment():
            adjustment = AdjustBalanceRequest(
                customer_id=step.customer,
                balance_id=step.balance_id,
                adjustment_id=f"adjustment-{number}",
                amount=_signed(step.amount),
                segment_number=1,
            )
            await stub.AdjustBalance(adjustment, timeout=UNARY_TIMEOUT)
        case Voiding():
            voiding = VoidBalanceRequest(customer_id=step.customer, balance_id=step.balance_id)
            await stub.VoidBalance(voiding, timeout=UNARY_TIMEOUT)
        case Posting():
            await stub.PutInvoice(PutInvoiceRequest(invoice=_invoice(step)), timeout=UNARY_TIMEOUT)
        case PlanEnd():
            customer = account_pb2.Customer(
                customer_id=step.customer, plan_id=step.plan, plan_end_time=_timestamp(step.end)
            )
            await stub.PutCustomer(PutCustomerRequest(customer=customer), timeout=UNARY_TIMEOUT)


def set_fact_condition(alert: alert_pb2.Alert, plan: AlertPlan) -> None:
    """Sets the condition of an alert on balances, invoices or a plan. Raises ValueError where there are no words."""
    if plan.condition not in alert.DESCRIPTOR.fields_by_name:
        raise ValueError(f"the demo has no words for {plan.condition}")
    condition = getattr(alert, plan.condition)
    condition.SetInParent()
    fields = condition.DESCRIPTOR.fields_by_name
    if "currency" in fields:
        condition.currency = plan.measured
    if "invoice_types_filter" in fields:
        condition.invoice_types_filter.extend(plan.types)
    if "credit_grant_type_filters" in fields:
        condition.credit_grant_type_filters.extend(plan.types)
    if "license_type" in fields:
        condition.license_type = plan.types[0]
    if plan.seat_key:
        condition.seat_filter.seat_group_key = plan.seat_key
    if plan.divide_by or plan.excluded:
        specifier = condition.alert_specifiers.add()
        if plan.divide_by:
            specifier.custom_field_filters.add(entity=_EITHER, key=plan.divide_by)
        if plan.excluded:
            key, value = plan.excluded
            specifier.exclude.add().custom_field_filters.add(entity=_EITHER, key=key, value=value)
    if plan.condition in _OWN_LINES:
        del alert.thresholds[:]


def _balance(grant: Grant) -> balance_pb2.Balance:
    balance = balance_pb2.Balance(
        balance_id=grant.balance_id,
        customer_id=grant.customer,
        kind=balance_pb2.BalanceKind.Value(f"BALANCE_KIND_{grant.kind}"),
        priority=grant.priority,
        custom_fields=grant.fields,
        draw_down=True,
        segments=[_segment(span) for span in grant.spans],
    )
    if grant.kind == LICENSE_ALLOTMENT:
        balance.license_type = grant.type
    else:
        balance.credit_grant_type = grant.type
    if grant.metric:
        balance.quantity.metric_id = grant.metric
    else:
        balance.spend.currency = grant.currency
    if grant.seat is not None:
        balance.seat.seat_group_key, balance.seat.seat_group_value = grant.seat
    return balance


def _segment(span: Span) -> balance_pb2.BalanceSegment:
    end = None if span.end is None else _timestamp(span.end)
    return balance_pb2.BalanceSegment(amount=short(span.amount), start_time=_timestamp(span.start), end_time=end)


def _invoice(posting: Posting) -> invoice_pb2.Invoice:
    return invoice_pb2.Invoice(
        invoice_id=posting.invoice_id,
        customer_id=posting.customer,
        type=posting.type,
        status=invoice_pb2.InvoiceStatus.Value(f"INVOICE_STATUS_{posting.status}"),
        currency=posting.currency,
        total=_signed(posting.total),
        period_end_time=_timestamp(posting.period_end),
    )


def _signed(amount: Decimal) -> str:
    return f"-{short(-amount)}" if amount < 0 else short(amount)


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp

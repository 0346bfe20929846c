"""Invoices: which gauges alerts on invoices have, and their values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache

from evaluator.alerts import AlertRule
from evaluator.amounts import ZERO
from evaluator.gauges import EVER, INVOICE_KEY, Gauge, InvoiceSelection, Measure
from evaluator.periods import BillingCycle, Cadence, Period, time_zone

_MICROSECOND = timedelta(microseconds=1)


class InvoiceStatus(StrEnum):
    """The status of an invoice; every total counts it unless it is VOID."""

    DRAFT = "DRAFT"
    ISSUED = "ISSUED"
    PAID = "PAID"
    VOID = "VOID"


@dataclass(frozen=True)
class MeasuredInvoice:
    """One invoice of a customer, as it was posted last.

    total: after credits and commits, in `currency`. period_end: the exclusive end of the period that it bills.
    """

    invoice_id: str
    type: str | None
    status: InvoiceStatus
    currency: str
    total: Decimal
    period_end: datetime
    contract_custom_fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def counted(self) -> Decimal:
        """The amount that totals count: 0 when it is void."""
        return ZERO if self.status is InvoiceStatus.VOID else self.total

    def month(self, zone: str) -> Period:
        """The calendar month in which its period ends, in a customer's time zone.

        A period that ends at midnight of the first of a month belongs to the month before: its end is exclusive.
        """
        return calendar_month(zone, self.period_end - _MICROSECOND)


def calendar_month(zone: str, time: datetime) -> Period:
    """The calendar month of a time zone that contains `time`."""
    return _months(zone).period_at(time)


def current_period(selection: InvoiceSelection, zone: str, time: datetime) -> Period:
    """The period, at `time`, of the gauges of an alert on invoices."""
    return calendar_month(zone, time) if selection.monthly else EVER


@lru_cache(maxsize=1024)
def _months(zone: str) -> BillingCycle:
    return BillingCycle(datetime(2000, 1, 1, tzinfo=time_zone(zone)), Cadence.MONTH, 1, zone)


def selected(selection: InvoiceSelection, currency: str, invoice: MeasuredInvoice) -> bool:
    """Whether a measure of invoices in `currency` includes an invoice."""
    return (
        invoice.currency == currency
        and (not selection.types or invoice.type in selection.types)
        and all(invoice.contract_custom_fields.get(key) == value for key, value in selection.contract_fields)
    )


def invoice_gauge(customer_id: str, measure: Measure, invoice_id: str) -> Gauge:
    """The gauge of one invoice."""
    return Gauge(customer_id, None, measure, ((INVOICE_KEY, invoice_id),), EVER)


def month_gauge(customer_id: str, measure: Measure, month: Period) -> Gauge:
    """The gauge of a customer's calendar month."""
    return Gauge(customer_id, None, measure, (), month)


def invoice_values(
    rule: AlertRule,
    customer_id: str,
    zone: str,
    touched: Iterable[MeasuredInvoice],
    of_months: Iterable[MeasuredInvoice],
) -> dict[Gauge, Decimal]:
    """The values of the gauges that a change of the invoices `touched` can have moved.

    touched: each invoice as it was before and as it is now, because it may have left a month or the selection.
    of_months: every invoice whose period ends in a month in which a touched one ends, or ended before.
    Must run under `exact_arithmetic`.
    """
    measure, selection = rule.measure, rule.measure.invoices
    assert selection is not None
    assert measure.currency is not None
    found: dict[Gauge, Decimal] = {}
    if not selection.monthly:
        current = {invoice.invoice_id: invoice for invoice in of_months}
        for invoice in touched:
            if selected(selection, measure.currency, invoice):
                now = current.get(invoice.invoice_id, invoice)
                counted = now.counted if selected(selection, measure.currency, now) else ZERO
                found[invoice_gauge(customer_id, measure, invoice.invoice_id)] = counted
        return found
    for invoice in touched:
        if selected(selection, measure.currency, invoice):
            found[month_gauge(customer_id, measure, invoice.month(zone))] = ZERO
    for invoice in of_months:
        gauge = month_gauge(customer_id, measure, invoice.month(zone))
        if gauge in found and selected(selection, measure.currency, invoice):
            found[gauge] += invoice.counted
    return found

"""Invoices: which gauges they are read on, and what they add up to."""

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

_MOMENT = timedelta(microseconds=1)


class InvoiceStatus(StrEnum):
    """Where an invoice stands; only VOID takes it out of every total."""

    DRAFT = "DRAFT"
    ISSUED = "ISSUED"
    PAID = "PAID"
    VOID = "VOID"


@dataclass(frozen=True)
class Invoice:
    """One invoice of a customer, as it was posted last.

    total: after credits and commits, in `currency`. period_end: the first moment after the period that it bills.
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
        """What it brings to a total: nothing once it is void."""
        return ZERO if self.status is InvoiceStatus.VOID else self.total

    def month(self, zone: str) -> Period:
        """The calendar month in which its period ends, in a customer's time zone.

        A period that ends at midnight of the first of a month ended in the month before: its end is not part of it.
        """
        return calendar_month(zone, self.period_end - _MOMENT)


def calendar_month(zone: str, time: datetime) -> Period:
    """The calendar month of a time zone that contains `time`."""
    return _months(zone).period_at(time)


def current_period(selection: InvoiceSelection, zone: str, time: datetime) -> Period:
    """The period of the gauges that an alert on invoices has at `time`."""
    return calendar_month(zone, time) if selection.monthly else EVER


@lru_cache(maxsize=1024)
def _months(zone: str) -> BillingCycle:
    return BillingCycle(datetime(2000, 1, 1, tzinfo=time_zone(zone)), Cadence.MONTH, 1, zone)


def selected(selection: InvoiceSelection, currency: str, invoice: Invoice) -> bool:
    """Whether an invoice is among those that a measure looks at."""
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


def readings(
    rule: AlertRule, customer_id: str, zone: str, touched: Iterable[Invoice], of_months: Iterable[Invoice]
) -> dict[Gauge, Decimal]:
    """What an alert on invoices reads after a change of the invoices `touched`.

    touched: each as it was before and as it is now, since it may have left a month, or a selection.
    of_months: every invoice whose period ends in a month that a touched one ends, or ended, in.
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
        if invoice.currency == measure.currency:
            found[month_gauge(customer_id, measure, invoice.month(zone))] = ZERO
    for invoice in of_months:
        gauge = month_gauge(customer_id, measure, invoice.month(zone))
        if gauge in found and selected(selection, measure.currency, invoice):
            found[gauge] += invoice.counted
    return found

"""What a gauge measures, in words, and the unit of its value."""

from dataclasses import dataclass

from console.words import amounts
from generated.tidemark.v1 import gauge_pb2
from generated.tidemark.v1.gauge_pb2 import (
    BALANCE_READING_DAYS_LEFT,
    BALANCE_READING_REMAINING,
    BALANCE_READING_REMAINING_PERCENT,
    BALANCE_READING_USED_PERCENT,
)


@dataclass(frozen=True)
class Unit:
    """The unit of a value. kind: money, percent, days or quantity. name: the currency or the metric."""

    kind: str
    name: str = ""

    def __call__(self, text: str) -> str:
        """A value with the unit; an en dash without a value."""
        return amounts.with_unit(text, self.name, self.kind) if text else "–"


def unit_of(gauge: gauge_pb2.Gauge) -> Unit:
    """The unit of a gauge's value."""
    match gauge.WhichOneof("measure"):
        case "usage":
            return Unit("quantity", gauge.usage.metric_id)
        case "cost":
            return Unit("money", gauge.cost.currency)
        case "invoices":
            return Unit("money", gauge.invoices.currency)
        case "balances":
            return _of_balances(gauge.balances)
        case "plan":
            return Unit("days")
    return Unit("quantity")


def _of_balances(measure: gauge_pb2.BalanceMeasure) -> Unit:
    if measure.reading in (BALANCE_READING_REMAINING_PERCENT, BALANCE_READING_USED_PERCENT):
        return Unit("percent")
    if measure.reading == BALANCE_READING_DAYS_LEFT:
        return Unit("days")
    if measure.WhichOneof("access") == "quantity":
        return Unit("quantity", measure.quantity.metric_id)
    return Unit("money", measure.spend.currency)


def measured(gauge: gauge_pb2.Gauge) -> str:
    """What is measured: Usage of api_calls, Cost in USD, Days left in the plan."""
    match gauge.WhichOneof("measure"):
        case "usage":
            words = f"Usage of {gauge.usage.metric_id}"
        case "cost":
            words = f"Cost in {gauge.cost.currency}"
            if gauge.cost.price_filters:
                words += ", of some prices"
            if gauge.cost.custom_field_filters:
                words += ", of some contracts"
        case "invoices" if gauge.invoices.invoice_id:
            words = f"Invoice {gauge.invoices.invoice_id}"
        case "invoices":
            words = "Invoices of the month"
        case "balances":
            words = _balance_words(gauge.balances)
        case "plan":
            words = "Days left in the plan"
        case _:
            words = "Value"
    return f"{words}, with what is held" if gauge.counts_held else words


def _balance_words(measure: gauge_pb2.BalanceMeasure) -> str:
    of = f" of {measure.balance_id}" if measure.balance_id else ""
    if measure.segment_number:
        of += f", segment {measure.segment_number}"
    match measure.reading:
        case gauge_pb2.BALANCE_READING_REMAINING_PERCENT:
            return f"Remaining share{of}"
        case gauge_pb2.BALANCE_READING_USED_PERCENT:
            return f"Used share{of}"
        case gauge_pb2.BALANCE_READING_DAYS_LEFT:
            return f"Days left{of}"
        case _ if measure.reading == BALANCE_READING_REMAINING:
            return f"Remaining balance{of}"
    return f"Balance{of}"


def where(gauge: gauge_pb2.Gauge) -> str:
    """The subscription and the group of the gauge: `subscription acme-main · region eu`; empty without either."""
    parts = [f"subscription {gauge.subscription_id}"] if gauge.subscription_id else []
    parts += [f"{one.key} {one.value or '(empty)'}" for one in gauge.group]
    return " · ".join(parts)

"""Gauges: the measured numbers that thresholds watch, and what identifies each."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from uuid import UUID

from evaluator.periods import Period
from evaluator.prices import FilterOperator, PriceField, PriceFilter

Group = tuple[tuple[str, str], ...]  # property keys and values, sorted by key; empty: not grouped


# The period of a gauge that has none: it is never re-armed by time.
EVER = Period(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))

INVOICE_KEY = "invoice_id"  # the group key by which gauges of single invoices differ


@dataclass(frozen=True)
class InvoiceSelection:
    """Which invoices a gauge looks at.

    monthly: the total of a calendar month, instead of each invoice on a gauge of its own. types: empty for all.
    contract_fields: custom fields that the invoice's contract has to have, sorted.
    """

    monthly: bool = False
    types: tuple[str, ...] = ()
    contract_fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Measure:
    """What a gauge measures: the usage of a metric, or the cost in a currency, or invoices in a currency.

    per_subscription: whether each subscription has a gauge of its own, over its own billing period, instead of
    the customer. invoices: set where invoices are measured and not usage. prices: of cost, which prices' cost
    counts, in the canonical form of `evaluator.prices`; none for all.
    """

    metric_id: str | None = None
    currency: str | None = None
    per_subscription: bool = False
    invoices: InvoiceSelection | None = None
    prices: tuple[PriceFilter, ...] = ()

    def __post_init__(self) -> None:
        if (self.metric_id is None) == (self.currency is None):
            raise ValueError("a measure is of either a metric or a currency")

    @property
    def of_cost(self) -> bool:
        """Whether it adds up the costs of events."""
        return self.currency is not None and self.invoices is None

    @property
    def of_facts(self) -> bool:
        """Whether it reads what the billing system posts, and not what events add up to."""
        return self.invoices is not None

    @cached_property
    def key(self) -> str:
        """The measure as text, which the store keeps beside each gauge."""
        if self.invoices is not None:
            selection = self.invoices
            narrowed = [selection.monthly, selection.types, selection.contract_fields]
            return f"invoices/{json.dumps([self.currency, *narrowed], ensure_ascii=True)}"
        if self.prices:
            narrowed = [[item.field, item.operator, item.values] for item in self.prices]
            return f"prices/{json.dumps([self.currency, narrowed], ensure_ascii=True)}"
        return f"cost/{self.currency}" if self.of_cost else f"usage/{self.metric_id}"

    @classmethod
    def from_key(cls, key: str, per_subscription: bool) -> "Measure":
        """The measure whose `key` is this text."""
        kind, _, name = key.partition("/")
        if kind == "invoices":
            currency, monthly, types, fields = json.loads(name)
            selection = InvoiceSelection(monthly, tuple(types), tuple((key, value) for key, value in fields))
            return cls(currency=currency, invoices=selection)
        if kind == "prices":
            currency, narrowed = json.loads(name)
            prices = tuple(
                PriceFilter(PriceField(field), FilterOperator(operator), tuple(values))
                for field, operator, values in narrowed
            )
            return cls(currency=currency, per_subscription=per_subscription, prices=prices)
        if kind == "cost":
            return cls(currency=name, per_subscription=per_subscription)
        return cls(metric_id=name, per_subscription=per_subscription)


@dataclass(frozen=True)
class Gauge:
    """The identity of one measured number; subscription_id is set where the measure is per subscription."""

    customer_id: str
    subscription_id: str | None
    measure: Measure
    group: Group
    period: Period

    @cached_property
    def gauge_id(self) -> UUID:
        """A digest of all of the identity but the organization; the same on every replica."""
        period = self.period
        text = json.dumps(
            [
                self.customer_id,
                self.subscription_id,
                self.measure.key,
                self.group,
                period.start.isoformat(),
                period.end.isoformat(),
            ],
            ensure_ascii=True,
        )
        return UUID(bytes=hashlib.blake2b(text.encode(), digest_size=16).digest())

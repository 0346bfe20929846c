"""Gauges: the measured numbers that thresholds watch, and what identifies each."""

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any
from uuid import UUID

from evaluator.amounts import MAX_DECIMALS
from evaluator.balances import BalanceReading, BalanceSelection, Unit, selection_from_json, selection_json
from evaluator.ids import digest_of
from evaluator.periods import Period
from evaluator.prices import FilterOperator, PriceField, PriceFilter

Group = tuple[tuple[str, str], ...]  # property keys and values, sorted by key; empty: not grouped


# The period of a gauge that has none: it is never re-armed by time.
EVER = Period(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))

# The group keys by which gauges of single invoices, balances and segments differ.
INVOICE_KEY = "invoice_id"
BALANCE_KEY = "balance_id"
SEGMENT_KEY = "segment_number"


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
    """What a gauge measures: usage of a metric or cost in a currency, or what the billing system posts.

    metric_id, currency: what events, invoices or balances are measured in; neither where the measure has no unit.
    per_subscription: whether each subscription has a gauge of its own, over its own billing period, instead of
    the customer. invoices, balances, days_in_plan: set where those are measured and not usage. prices: of cost,
    which prices' cost counts, in the canonical form of `evaluator.prices`; none for all.
    """

    metric_id: str | None = None
    currency: str | None = None
    per_subscription: bool = False
    invoices: InvoiceSelection | None = None
    prices: tuple[PriceFilter, ...] = ()
    balances: BalanceSelection | None = None
    days_in_plan: bool = False

    def __post_init__(self) -> None:
        units = (self.metric_id is not None) + (self.currency is not None)
        if units != 1 and (units or self.invoices is not None or not self.of_facts):
            raise ValueError("a measure is of either a metric or a currency")

    @property
    def of_cost(self) -> bool:
        """Whether it adds up the costs of events."""
        return self.currency is not None and not self.of_facts

    @property
    def of_facts(self) -> bool:
        """Whether it reads what the billing system posts, and not what events add up to."""
        return self.invoices is not None or self.balances is not None or self.days_in_plan

    @property
    def unit(self) -> Unit | None:
        """What it measures in; None where any unit will do."""
        if self.currency is None and self.metric_id is None:
            return None
        return Unit(self.currency, self.metric_id)

    @cached_property
    def key(self) -> str:
        """The measure as text, which the store keeps beside each gauge."""
        if self.days_in_plan:
            return "plan/days_left"
        if self.balances is not None:
            unit = self.unit
            return f"balances/{_text([unit.key if unit else None, selection_json(self.balances)])}"
        if self.invoices is not None:
            selection = self.invoices
            return f"invoices/{_text([self.currency, selection.monthly, selection.types, selection.contract_fields])}"
        if self.prices:
            return (
                f"prices/{_text([self.currency, [[item.field, item.operator, item.values] for item in self.prices]])}"
            )
        return f"cost/{self.currency}" if self.of_cost else f"usage/{self.metric_id}"

    @classmethod
    def from_key(cls, key: str, per_subscription: bool) -> "Measure":
        """The measure whose `key` is this text."""
        kind, _, name = key.partition("/")
        if kind == "plan":
            return cls(days_in_plan=True)
        if kind == "balances":
            unit_key, stored = json.loads(name)
            unit = Unit.from_key(unit_key) if unit_key is not None else Unit()
            return cls(unit.metric_id, unit.currency, balances=selection_from_json(stored))
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

    def shown(self, value: Decimal, scale: Decimal | None) -> Decimal:
        """What thresholds compare with: the value, or of a percentage 100 × value ÷ scale.

        Rounded at the last decimal that a threshold may have, away from where it is reached: what is shown has
        come to a line exactly when the true ratio has.
        """
        if scale is None or self.balances is None:
            return value
        parts = Fraction(value) * 100 * 10**MAX_DECIMALS / Fraction(scale)
        rising = self.balances.reading is BalanceReading.USED_PERCENT
        return Decimal(math.floor(parts) if rising else math.ceil(parts)).scaleb(-MAX_DECIMALS)

    def stored(self, level: Decimal, scale: Decimal | None) -> Decimal:
        """The value at which `shown` comes to that level. Must run under `exact_arithmetic`."""
        return level if scale is None or self.balances is None else (level * scale).scaleb(-2)


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
        return UUID(bytes=digest_of(text))


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True)

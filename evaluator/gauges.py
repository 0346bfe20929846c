"""Gauges: the measured numbers that thresholds are compared with, and the identity of each."""

import json
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any
from uuid import UUID

from evaluator.amounts import MAX_DECIMALS
from evaluator.balances import BalanceReading, BalanceSelection, Unit
from evaluator.ids import digest_of
from evaluator.periods import Period
from evaluator.prices import PriceFilter
from evaluator.selection_json import balances_from_json, balances_json, prices_from_json, prices_json

Group = tuple[tuple[str, str], ...]  # property keys and values, sorted by key; empty: not grouped

# The period of gauges without billing periods: their thresholds are never re-armed by time.
EVER = Period(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))

# The group keys by which gauges of single invoices, balances and segments differ.
INVOICE_KEY = "invoice_id"
BALANCE_KEY = "balance_id"
SEGMENT_KEY = "segment_number"


_HELD = "held+"  # before the key of a measure that counts what is held


@dataclass(frozen=True)
class InvoiceSelection:
    """Which invoices an alert measures.

    monthly: one gauge for the total of each calendar month, instead of a gauge for each invoice. types: empty for
    all. contract_fields: custom fields that the invoice's contract must have, sorted.
    """

    monthly: bool = False
    types: tuple[str, ...] = ()
    contract_fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Measure:
    """What a gauge measures: usage of a metric or cost in a currency, or what the billing system posts.

    metric_id, currency: the unit of the events, invoices or balances; neither where the measure has no unit.
    per_subscription: whether each subscription, instead of the customer, has a gauge over its own billing period.
    invoices, balances, days_in_plan: set where those are measured instead of usage. prices: filters of the prices
    whose cost counts, in the canonical form of `evaluator.prices`; empty for all prices. contract_fields: custom
    fields of the subscriptions whose cost counts, sorted; empty for all cost of the customer. counts_held: whether
    what open reservations hold counts, too; only of usage and cost. It is a gauge of its own.
    """

    metric_id: str | None = None
    currency: str | None = None
    per_subscription: bool = False
    invoices: InvoiceSelection | None = None
    prices: tuple[PriceFilter, ...] = ()
    balances: BalanceSelection | None = None
    days_in_plan: bool = False
    contract_fields: tuple[tuple[str, str], ...] = ()
    counts_held: bool = False

    def __post_init__(self) -> None:
        units = (self.metric_id is not None) + (self.currency is not None)
        if units != 1 and (units or self.invoices is not None or not self.of_facts):
            raise ValueError("a measure is of either a metric or a currency")
        if self.counts_held and self.of_facts:
            raise ValueError("nothing is held of what the billing system posts")

    @property
    def of_cost(self) -> bool:
        """Whether it adds up the cost of events."""
        return self.currency is not None and not self.of_facts

    @property
    def of_facts(self) -> bool:
        """Whether its value comes from facts that the billing system posts, and not from events."""
        return self.invoices is not None or self.balances is not None or self.days_in_plan

    @property
    def unit(self) -> Unit | None:
        """The unit of its values; None where it takes any unit."""
        if self.currency is None and self.metric_id is None:
            return None
        return Unit(self.currency, self.metric_id)

    @cached_property
    def key(self) -> str:
        """The measure as text. It is stored with each gauge and is part of `gauge_id`, so it must not change."""
        return _HELD + self._settled_key if self.counts_held else self._settled_key

    @property
    def _settled_key(self) -> str:
        if self.days_in_plan:
            return "plan/days_left"
        if self.balances is not None:
            unit = self.unit
            return f"balances/{_text([unit.key if unit else None, balances_json(self.balances)])}"
        if self.invoices is not None:
            selection = self.invoices
            return f"invoices/{_text([self.currency, selection.monthly, selection.types, selection.contract_fields])}"
        if self.contract_fields:
            return f"contracts/{_text([self.currency, self.contract_fields])}"
        if self.prices:
            return f"prices/{_text([self.currency, prices_json(self.prices)])}"
        return f"cost/{self.currency}" if self.of_cost else f"usage/{self.metric_id}"

    @classmethod
    def from_key(cls, key: str, per_subscription: bool) -> "Measure":
        """The inverse of `key`, which does not contain `per_subscription`."""
        if key.startswith(_HELD):
            return replace(cls.from_key(key.removeprefix(_HELD), per_subscription), counts_held=True)
        kind, _, name = key.partition("/")
        if kind == "plan":
            return cls(days_in_plan=True)
        if kind == "balances":
            unit_key, stored = json.loads(name)
            unit = Unit.from_key(unit_key) if unit_key is not None else Unit()
            return cls(unit.metric_id, unit.currency, balances=balances_from_json(stored))
        if kind == "invoices":
            currency, monthly, types, fields = json.loads(name)
            selection = InvoiceSelection(monthly, tuple(types), tuple((key, value) for key, value in fields))
            return cls(currency=currency, invoices=selection)
        if kind == "contracts":
            currency, fields = json.loads(name)
            return cls(currency=currency, contract_fields=tuple((key, value) for key, value in fields))
        if kind == "prices":
            currency, filters = json.loads(name)
            return cls(currency=currency, per_subscription=per_subscription, prices=prices_from_json(filters))
        if kind == "cost":
            return cls(currency=name, per_subscription=per_subscription)
        return cls(metric_id=name, per_subscription=per_subscription)

    def shown(self, value: Decimal, scale: Decimal | None) -> Decimal:
        """The number that thresholds are compared with: the value, or for a percentage 100 × value ÷ scale.

        A percentage is rounded to the last decimal that a threshold may have, away from the side on which thresholds
        are reached. So the rounded number reaches a level exactly when the true ratio does.
        """
        if scale is None or self.balances is None:
            return value
        parts = Fraction(value) * 100 * 10**MAX_DECIMALS / Fraction(scale)
        rising = self.balances.reading is BalanceReading.USED_PERCENT
        return Decimal(math.floor(parts) if rising else math.ceil(parts)).scaleb(-MAX_DECIMALS)

    def stored(self, level: Decimal, scale: Decimal | None) -> Decimal:
        """The value at which `shown` returns that level. Must run under `exact_arithmetic`."""
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
        """A digest of the identity without the organization; the same on every replica."""
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

    @cached_property
    def gauge_hex(self) -> str:
        """The `gauge_id` in 32 digits."""
        return self.gauge_id.hex


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True)

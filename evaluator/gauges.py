"""Gauges: the measured numbers that thresholds watch, and what identifies each."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

from evaluator.periods import Period

Group = tuple[tuple[str, str], ...]  # property keys and values, sorted by key; empty: not grouped


@dataclass(frozen=True)
class Measure:
    """What a gauge adds up: the usage of a metric, or the cost in a currency; exactly one of the two is set.

    per_subscription: whether each subscription has a gauge of its own, over its own billing period, instead of
    the customer.
    """

    metric_id: str | None = None
    currency: str | None = None
    per_subscription: bool = False

    def __post_init__(self) -> None:
        if (self.metric_id is None) == (self.currency is None):
            raise ValueError("a measure is of either a metric or a currency")

    @property
    def of_cost(self) -> bool:
        """Whether it adds up costs."""
        return self.currency is not None

    @cached_property
    def key(self) -> str:
        """The measure as text, which the store keeps beside each gauge."""
        return f"cost/{self.currency}" if self.of_cost else f"usage/{self.metric_id}"

    @classmethod
    def from_key(cls, key: str, per_subscription: bool) -> "Measure":
        """The measure whose `key` is this text."""
        kind, _, name = key.partition("/")
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

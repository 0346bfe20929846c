"""Routing facts: what the router needs of customers, subscriptions and metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from evaluator.aggregation import Aggregation
from evaluator.alert_index import NO_ALERTS, AlertIndex
from evaluator.enforced_limits import Since
from evaluator.limits import NO_LIMITS, Limits
from evaluator.periods import BillingCycle
from evaluator.raw_events import RawEvents

MOST_LEVELS = 5  # of customers that stand one above the other

NO_FIELDS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class CustomerFacts:
    """The routing facts of a customer; changed_epoch: the organization's epoch at their last change.

    excluded: alerts that cover the customer and are disabled for it, each with the one subscription for which it is
    disabled, or None for the whole customer. plan_end: when its plan ends; None where that is not known. limits: the
    customer's own, without those of its plan. being_erased: it takes no usage and no facts, and no alert covers it.
    alerts: the active ones that name the customer: of the customer, of its subscriptions, of it on a plan.
    parent_customer_id: the customer directly above, whose enforced limits count the usage of this one, too.
    below_change_time: when a customer below it was last moved or erased; None: never.
    """

    customer_id: str
    plan_id: str | None
    currency: str
    cycle: BillingCycle
    changed_epoch: int
    changed_time: datetime
    excluded: frozenset[tuple[str, str | None]] = frozenset()
    plan_end: datetime | None = None
    limits: Limits = field(default=NO_LIMITS, compare=False)
    being_erased: bool = False
    alerts: AlertIndex = field(default=NO_ALERTS, compare=False)
    parent_customer_id: str | None = None
    below_change_time: datetime | None = None

    @property
    def counted_since(self) -> Since:
        """Since when the usage that its meters count, its own and of those below, is of the same customers."""
        time, below = self.changed_time, self.below_change_time
        return Since(self.changed_epoch, time if below is None else max(time, below))

    def with_alerts(self, alerts: AlertIndex) -> "CustomerFacts":
        """The same facts with other own alerts."""
        return replace(self, alerts=alerts)

    def excludes(self, alert_id: str, subscription_id: str | None) -> bool:
        """Whether an alert is disabled for the customer, or for one subscription of it."""
        if self.being_erased:
            return True
        return (alert_id, None) in self.excluded or (alert_id, subscription_id) in self.excluded


@dataclass(frozen=True)
class SubscriptionFacts:
    """The routing facts of a subscription; currency and cycle are None where the customer's apply.

    custom_fields: those of the contract under which its usage is billed. deleting: a deletion is noted, which usage
    cancels.
    """

    customer_id: str
    subscription_id: str
    plan_id: str | None
    currency: str | None
    cycle: BillingCycle | None
    changed_epoch: int
    changed_time: datetime
    custom_fields: Mapping[str, str] = field(default_factory=lambda: NO_FIELDS, compare=False)
    deleting: bool = field(default=False, compare=False)

    def same_as(self, other: "SubscriptionFacts") -> bool:
        """Whether another reading of the subscription routes its usage in the same way."""
        return self == other and self.custom_fields == other.custom_fields


@dataclass(frozen=True)
class MetricFacts:
    """The routing facts of a metric.

    unique_property: the property whose values UNIQUE_COUNT counts. deleting: a deletion is noted, which usage of the
    metric cancels. raw_events: those that count in it; None: none do.
    """

    metric_id: str
    aggregation: Aggregation
    unique_property: str | None
    deleting: bool = field(default=False, compare=False)
    raw_events: RawEvents | None = None

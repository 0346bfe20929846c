"""Alerts as the evaluation uses them: condition types, scopes, and the rule of an active alert."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from evaluator.amounts import ZERO
from evaluator.gauges import EVER, Group, Measure
from evaluator.overrides import MostSpecific, Override, RetiredThreshold
from evaluator.thresholds import Direction, Threshold, ThresholdSet

MAX_GROUP_KEYS = 3  # of one alert


class ConditionType(StrEnum):
    """The condition types, by their names in the contract."""

    SPEND_THRESHOLD_REACHED = "spend_threshold_reached"
    MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED = "monthly_invoice_total_spend_threshold_reached"
    USAGE_THRESHOLD_REACHED = "usage_threshold_reached"
    LOW_REMAINING_DAYS_FOR_COMMIT_SEGMENT_REACHED = "low_remaining_days_for_commit_segment_reached"
    LOW_REMAINING_COMMIT_BALANCE_REACHED = "low_remaining_commit_balance_reached"
    LOW_REMAINING_COMMIT_PERCENTAGE_REACHED = "low_remaining_commit_percentage_reached"
    LOW_REMAINING_DAYS_FOR_CONTRACT_CREDIT_SEGMENT_REACHED = "low_remaining_days_for_contract_credit_segment_reached"
    LOW_REMAINING_CONTRACT_CREDIT_BALANCE_REACHED = "low_remaining_contract_credit_balance_reached"
    LOW_REMAINING_CONTRACT_CREDIT_PERCENTAGE_REACHED = "low_remaining_contract_credit_percentage_reached"
    LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_BALANCE_REACHED = (
        "low_remaining_contract_credit_and_commit_balance_reached"
    )
    LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_PERCENTAGE_REACHED = (
        "low_remaining_contract_credit_and_commit_percentage_reached"
    )
    INVOICE_TOTAL_REACHED = "invoice_total_reached"
    LOW_REMAINING_SEAT_BALANCE_REACHED = "low_remaining_seat_balance_reached"
    LOW_CREDIT_BALANCE_REACHED = "low_credit_balance_reached"
    LOW_REMAINING_CREDIT_PERCENTAGE_REACHED = "low_remaining_credit_percentage_reached"
    LOW_REMAINING_DAYS_IN_PLAN_REACHED = "low_remaining_days_in_plan_reached"
    USAGE_EXCEEDED = "usage_exceeded"
    COST_EXCEEDED = "cost_exceeded"
    SPEND_EXCEEDED = "spend_exceeded"
    CREDIT_BALANCE_DEPLETED = "credit_balance_depleted"
    CREDIT_BALANCE_DROPPED = "credit_balance_dropped"
    CREDIT_BALANCE_RECOVERED = "credit_balance_recovered"
    LICENSE_BALANCE_THRESHOLD_REACHED = "license_balance_threshold_reached"

    @property
    def per_subscription(self) -> bool:
        """Whether it measures subscriptions instead of customers."""
        return self in (
            ConditionType.USAGE_EXCEEDED,
            ConditionType.COST_EXCEEDED,
            ConditionType.SPEND_EXCEEDED,
        )

    @property
    def of_one_customer(self) -> bool:
        """Whether its scope must be one customer."""
        return self.name.startswith(("CREDIT_BALANCE_", "LICENSE_"))

    @property
    def takes_limits(self) -> bool:
        """Whether it takes percentage thresholds: it measures usage or spend of a period, which limits are for."""
        return self.per_subscription or self in (
            ConditionType.SPEND_THRESHOLD_REACHED,
            ConditionType.USAGE_THRESHOLD_REACHED,
            ConditionType.MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED,
        )

    @property
    def counts_usage(self) -> bool:
        """Whether it measures streamed usage or its cost, of which reservations can hold some."""
        return self.per_subscription or self in (
            ConditionType.SPEND_THRESHOLD_REACHED,
            ConditionType.USAGE_THRESHOLD_REACHED,
        )

    @property
    def direction(self) -> Direction:
        """The direction in which its gauges reach a threshold."""
        falling = self.name.startswith("LOW_") or self in (
            ConditionType.CREDIT_BALANCE_DEPLETED,
            ConditionType.CREDIT_BALANCE_DROPPED,
        )
        return Direction.FALLING if falling else Direction.RISING

    @property
    def own_threshold(self) -> Threshold | None:
        """The fixed threshold of a type that takes none from the caller: at 0, or at any value above 0."""
        if self is ConditionType.CREDIT_BALANCE_DEPLETED:
            return Threshold(ZERO)
        return Threshold(ZERO, exclusive=True) if self is ConditionType.CREDIT_BALANCE_RECOVERED else None

    @property
    def on_edges_only(self) -> bool:
        """Whether only a balance that changes can reach its threshold, and not one that is first measured there."""
        return self.own_threshold is not None


class ScopeKind(StrEnum):
    """What an alert covers: all customers, those of a plan, one customer (on a plan), or one subscription."""

    ALL_CUSTOMERS = "ALL_CUSTOMERS"
    PLAN = "PLAN"
    CUSTOMER = "CUSTOMER"
    SUBSCRIPTION = "SUBSCRIPTION"
    CUSTOMER_PLAN = "CUSTOMER_PLAN"


@dataclass(frozen=True)
class Scope:
    """The customers or subscriptions that an alert covers; ids that its kind does not use are None."""

    kind: ScopeKind
    plan_id: str | None = None
    customer_id: str | None = None
    subscription_id: str | None = None

    def covers(self, customer_id: str, subscription_id: str | None, plan_id: str | None) -> bool:
        """Whether the alert covers a customer (subscription_id None), or a subscription of it.

        plan_id: the plan of the subscription, or else of the customer.
        """
        if self.kind is ScopeKind.ALL_CUSTOMERS:
            return True
        if self.kind is ScopeKind.PLAN:
            return plan_id is not None and plan_id == self.plan_id
        if self.kind is ScopeKind.CUSTOMER:
            return customer_id == self.customer_id
        if self.kind is ScopeKind.CUSTOMER_PLAN:
            return customer_id == self.customer_id and plan_id == self.plan_id
        return customer_id == self.customer_id and subscription_id == self.subscription_id


@dataclass(frozen=True)
class GroupSelector:
    """A property by which an alert divides usage: only one value of it, or (None) a gauge for each value."""

    key: str
    value: str | None = None


@dataclass(frozen=True)
class AlertRule:
    """An active alert in the form in which it is evaluated.

    groups: sorted by key. watching_epoch, watching_time: since then it has watched its gauges without a gap.
    changed_epoch: the organization's epoch at its last change; a gauge that was last evaluated before must be
    evaluated again. create_epoch, create_time: of its creation. version: rises with each change of the definition.
    reset_version: states that an earlier version wrote count as empty. overrides: the thresholds of single groups.
    retired: thresholds of former versions, the latest last; of one version, those of overrides are behind its own.
    """

    alert_id: str
    display_name: str
    version: int
    condition_type: ConditionType
    scope: Scope
    measure: Measure
    groups: tuple[GroupSelector, ...]
    thresholds: ThresholdSet
    evaluate_on_create: bool
    changed_epoch: int
    watching_epoch: int
    watching_time: datetime
    overrides: tuple[Override, ...] = ()
    create_epoch: int = 0
    create_time: datetime = EVER.start
    reset_version: int = 0
    retired: tuple[RetiredThreshold, ...] = ()

    def retired_for(self, group: Group, keys: Iterable[str]) -> dict[str, Threshold]:
        """Those with these keys (`Threshold.key`) of the thresholds that a group's gauge had in former versions."""
        found = {}
        for key in keys:
            for one in self._retired.get(key, ()):
                if one.was_of(group):
                    found[key] = one.threshold
                    break
        return found

    @cached_property
    def _retired(self) -> Mapping[str, Sequence[RetiredThreshold]]:
        """The thresholds of former versions by their keys, the latest first."""
        found: dict[str, list[RetiredThreshold]] = {}
        for one in reversed(self.retired):
            found.setdefault(one.threshold.key, []).append(one)
        return found

    def thresholds_for(self, group: Group) -> ThresholdSet:
        """The thresholds of a group's gauge: those of the most specific override, or else of the alert."""
        if not self.overrides:
            return self.thresholds
        own = self._own_thresholds.find(group)
        return self.thresholds if own is None else own

    @cached_property
    def _own_thresholds(self) -> MostSpecific[ThresholdSet]:
        direction = self.thresholds.direction
        return MostSpecific((item.binding, ThresholdSet.of(item.thresholds, direction)) for item in self.overrides)

    @cached_property
    def has_percentages(self) -> bool:
        """Whether any of its thresholds is a percentage of a limit."""
        return bool(self.thresholds.percentages) or any(
            threshold.percent_of_limit is not None for item in self.overrides for threshold in item.thresholds
        )

    @cached_property
    def fans_out(self) -> bool:
        """Whether usage decides how many groups it has: one of its group keys has no value."""
        return not self.measure.of_facts and any(selector.value is None for selector in self.groups)

    @property
    def group_keys(self) -> tuple[str, ...]:
        """Its group keys, sorted."""
        return tuple(selector.key for selector in self.groups)

    def selects(self, group: Group) -> bool:
        """Whether it watches the gauge of that group; the gauge has its measure."""
        if self.measure.balances is not None and not self.groups:
            return True  # the measure defines the groups
        return len(group) == len(self.groups) and all(
            selector.key == key and selector.value in (None, value)
            for selector, (key, value) in zip(self.groups, group, strict=True)
        )

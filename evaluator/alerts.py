"""Alerts as the evaluation sees them: whom they cover, what they measure, which lines they draw."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from evaluator.amounts import ZERO
from evaluator.gauges import EVER, Group, Measure
from evaluator.overrides import MostSpecific, Override
from evaluator.thresholds import Direction, Ladder, Threshold

MAX_GROUP_KEYS = 3  # of one alert


class ConditionType(StrEnum):
    """The conditions, by the names that the contract gives them."""

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
        """Whether it belongs to the subscription-alert family."""
        return self in (
            ConditionType.USAGE_EXCEEDED,
            ConditionType.COST_EXCEEDED,
            ConditionType.SPEND_EXCEEDED,
        )

    @property
    def of_one_customer(self) -> bool:
        """Whether it takes no other scope than one customer."""
        return self.name.startswith(("CREDIT_BALANCE_", "LICENSE_"))

    @property
    def takes_limits(self) -> bool:
        """Whether its thresholds may be percentages of a limit: it adds up what a limit limits."""
        return self.per_subscription or self in (
            ConditionType.SPEND_THRESHOLD_REACHED,
            ConditionType.USAGE_THRESHOLD_REACHED,
            ConditionType.MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED,
        )

    @property
    def direction(self) -> Direction:
        """Which way its gauges travel to reach a threshold."""
        falling = self.name.startswith("LOW_") or self in (
            ConditionType.CREDIT_BALANCE_DEPLETED,
            ConditionType.CREDIT_BALANCE_DROPPED,
        )
        return Direction.FALLING if falling else Direction.RISING

    @property
    def own_threshold(self) -> Threshold | None:
        """The one line of a type that takes no thresholds: 0, or whatever is above 0."""
        if self is ConditionType.CREDIT_BALANCE_DEPLETED:
            return Threshold(ZERO)
        return Threshold(ZERO, exclusive=True) if self is ConditionType.CREDIT_BALANCE_RECOVERED else None

    @property
    def on_edges_only(self) -> bool:
        """Whether it tells of a balance that comes to its line, and never of one that was there at first sight."""
        return self.own_threshold is not None


class ScopeKind(StrEnum):
    """Whom an alert covers."""

    ALL_CUSTOMERS = "ALL_CUSTOMERS"
    PLAN = "PLAN"
    CUSTOMER = "CUSTOMER"
    SUBSCRIPTION = "SUBSCRIPTION"


@dataclass(frozen=True)
class Scope:
    """Whom an alert covers; the ids that its kind does not use are unset."""

    kind: ScopeKind
    plan_id: str | None = None
    customer_id: str | None = None
    subscription_id: str | None = None

    def covers(self, customer_id: str, subscription_id: str | None, plan_id: str | None) -> bool:
        """Whether a customer's gauge (no subscription), or a subscription's, lies in this scope.

        plan_id: the plan of whoever the gauge belongs to.
        """
        if self.kind is ScopeKind.ALL_CUSTOMERS:
            return True
        if self.kind is ScopeKind.PLAN:
            return plan_id is not None and plan_id == self.plan_id
        if self.kind is ScopeKind.CUSTOMER:
            return customer_id == self.customer_id
        return customer_id == self.customer_id and subscription_id == self.subscription_id


@dataclass(frozen=True)
class GroupSelector:
    """A property by which an alert divides usage: one value of it, or (None) each value on a gauge of its own."""

    key: str
    value: str | None = None


@dataclass(frozen=True)
class AlertRule:
    """An active alert, ready to be evaluated.

    groups: sorted by key. watching_epoch, watching_time: since when it has watched without a gap.
    changed_epoch: the organization's epoch at its last change; a gauge visited before that has to be visited
    again. create_epoch, create_time: of its creation. version: raised by each change of the definition; what it
    remembers from before reset_version counts no more. overrides: of the ladder, for single groups. retired:
    thresholds that it had in former versions.
    """

    alert_id: str
    name: str
    version: int
    condition_type: ConditionType
    scope: Scope
    measure: Measure
    groups: tuple[GroupSelector, ...]
    ladder: Ladder
    evaluate_on_create: bool
    changed_epoch: int
    watching_epoch: int
    watching_time: datetime
    overrides: tuple[Override, ...] = ()
    create_epoch: int = 0
    create_time: datetime = EVER.start
    reset_version: int = 0
    retired: tuple[Threshold, ...] = ()

    @cached_property
    def retired_by_key(self) -> Mapping[str, Threshold]:
        """The thresholds of former versions, by what states know them by."""
        return {threshold.key: threshold for threshold in self.retired}

    def ladder_for(self, group: Group) -> Ladder:
        """The lines that it draws for the gauge of a group."""
        if not self.overrides:
            return self.ladder
        own = self._ladders.find(group)
        return self.ladder if own is None else own

    @cached_property
    def _ladders(self) -> MostSpecific[Ladder]:
        direction = self.ladder.direction
        return MostSpecific((item.binding, Ladder.of(item.thresholds, direction)) for item in self.overrides)

    @cached_property
    def of_limits(self) -> bool:
        """Whether any of its lines is a percentage of the limit that a gauge has."""
        return bool(self.ladder.unlimited) or any(
            threshold.percent_of_limit is not None for item in self.overrides for threshold in item.thresholds
        )

    @cached_property
    def fans_out(self) -> bool:
        """Whether usage decides how many groups it has: it names no value of a property by which it divides."""
        return not self.measure.of_facts and any(selector.value is None for selector in self.groups)

    @property
    def group_keys(self) -> tuple[str, ...]:
        """The keys that divide its usage, sorted."""
        return tuple(selector.key for selector in self.groups)

    def selects(self, group: Group) -> bool:
        """Whether a gauge of that group is one of its own, of those that measure the same."""
        if self.measure.balances is not None and not self.groups:
            return True  # the measure says by what they differ
        return len(group) == len(self.groups) and all(
            selector.key == key and selector.value in (None, value)
            for selector, (key, value) in zip(self.groups, group, strict=True)
        )

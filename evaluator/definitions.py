"""Alert definitions: the caller's settings of an alert, with the bookkeeping of its versions.

One alert has four forms. `NewAlert` and `AlertPatch` (`evaluator.alert_commands`) are what a caller asks for,
`AlertDefinition` is what the store keeps, and `AlertRule` (`evaluator.alerts`) is what the evaluation uses.
`evaluator.definition_json` has the stored JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

from evaluator.alerts import AlertRule, ConditionType, GroupSelector, Scope, ScopeKind
from evaluator.balances import BalanceSelection
from evaluator.gauges import INVOICE_KEY, Group, InvoiceSelection, Measure
from evaluator.ids import digest_of
from evaluator.overrides import MostSpecific, Override, RetiredThreshold
from evaluator.prices import PriceFilter
from evaluator.selection_json import prices_json
from evaluator.thresholds import Threshold, ThresholdSet

DEFAULT_CURRENCY = "USD"

MAX_SPEND_ALERTS = 50  # of each type on cost, of one subscription or plan, without archived ones


class DefinitionState(StrEnum):
    """Whether an alert is evaluated. An archived alert stays archived."""

    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"
    ARCHIVED = "ARCHIVED"


@dataclass(frozen=True)
class Condition:
    """What an alert measures: its type, and those of the fields below that its type has.

    metric_id: of the usage conditions. currency: of the cost and the invoice conditions; a stored one is always set.
    groups: the properties by which usage is divided, in the caller's order; the seats of a seat balance.
    invoices, balances: which of them are measured. overrides: thresholds of single groups, in the caller's order.
    prices: of the cost and the spend condition, filters of the prices that count, in canonical form.
    contract_fields: of the spend of a customer, custom fields of the subscriptions whose cost counts, sorted.
    counts_held: of usage and cost, whether what open reservations hold counts, too.
    """

    condition_type: ConditionType
    metric_id: str | None = None
    currency: str | None = None
    groups: tuple[GroupSelector, ...] = ()
    invoices: InvoiceSelection | None = None
    overrides: tuple[Override, ...] = ()
    prices: tuple[PriceFilter, ...] = ()
    balances: BalanceSelection | None = None
    contract_fields: tuple[tuple[str, str], ...] = ()
    counts_held: bool = False

    @property
    def selectors(self) -> tuple[GroupSelector, ...]:
        """The keys by which its gauges differ, sorted: its groups, or the invoice where each has a gauge."""
        if self.invoices is not None and not self.invoices.monthly:
            return (GroupSelector(INVOICE_KEY),)
        return tuple(sorted(self.groups, key=lambda selector: selector.key))

    @property
    def measure(self) -> Measure:
        """The measure of its gauges."""
        return Measure(
            metric_id=self.metric_id,
            currency=self.currency,
            per_subscription=self.condition_type.per_subscription,
            invoices=self.invoices,
            prices=self.prices,
            balances=self.balances,
            contract_fields=self.contract_fields,
            days_in_plan=self.condition_type is ConditionType.LOW_REMAINING_DAYS_IN_PLAN_REACHED,
            counts_held=self.counts_held,
        )

    def threshold_set(self, thresholds: tuple[Threshold, ...]) -> ThresholdSet:
        """The caller's thresholds, or the fixed one of its type, in the order in which a gauge meets them."""
        own = self.condition_type.own_threshold
        return ThresholdSet.of(thresholds if own is None else (own,), self.condition_type.direction)


@dataclass(frozen=True)
class AlertDefinition:
    """One alert of one organization.

    uniqueness_key stays after the alert is archived; uniqueness_key_held: whether other alerts still cannot use it.
    natural_key: see `natural_key`; None once archived. backfill_after: the last customer_id that the backfill of the
    last change has evaluated, "" before the first; None when the backfill is complete. The epochs are the
    organization's, see AlertRule; see there also reset_version and retired. labels: the caller's, not evaluated.
    """

    alert_id: str
    display_name: str
    state: DefinitionState
    scope: Scope
    condition: Condition
    thresholds: tuple[Threshold, ...]
    uniqueness_key: str | None
    uniqueness_key_held: bool
    natural_key: str | None
    evaluate_on_create: bool
    version: int
    changed_epoch: int
    watching_epoch: int
    watching_time: datetime
    backfill_after: str | None
    create_time: datetime
    update_time: datetime
    archive_time: datetime | None = None
    create_epoch: int = 0
    reset_version: int = 0
    retired: tuple[RetiredThreshold, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_thresholds(self) -> tuple[Threshold, ...]:
        """The thresholds of the alert, then those of all its overrides."""
        return (*self.thresholds, *(one for item in self.condition.overrides for one in item.thresholds))

    def awaits_backfill_of(self, customer_id: str) -> bool:
        """Whether the backfill of the last change has not evaluated a customer yet."""
        return self.backfill_after is not None and self.backfill_after < customer_id

    def active_rule(self) -> AlertRule | None:
        """The rule by which it is evaluated; None unless the alert is active."""
        return self.to_rule() if self.state is DefinitionState.ACTIVE else None

    def to_rule(self) -> AlertRule:
        """The rule by which it is evaluated, or would be if it were active."""
        return AlertRule(
            alert_id=self.alert_id,
            display_name=self.display_name,
            version=self.version,
            condition_type=self.condition.condition_type,
            scope=self.scope,
            measure=self.condition.measure,
            groups=self.condition.selectors,
            thresholds=self.condition.threshold_set(self.thresholds),
            evaluate_on_create=self.evaluate_on_create,
            changed_epoch=self.changed_epoch,
            watching_epoch=self.watching_epoch,
            watching_time=self.watching_time,
            overrides=self.condition.overrides,
            create_epoch=self.create_epoch,
            create_time=self.create_time,
            reset_version=self.reset_version,
            retired=self.retired,
        )

    def thresholds_for(self, group: Group) -> tuple[Threshold, ...]:
        """The thresholds of a group's gauge, in the caller's order; without the fixed one of some condition types."""
        own = self._own_thresholds.find(group)
        return self.thresholds if own is None else own

    @cached_property
    def _own_thresholds(self) -> MostSpecific[tuple[Threshold, ...]]:
        return MostSpecific((item.binding, item.thresholds) for item in self.condition.overrides)


def natural_key(scope: Scope, condition: Condition) -> str | None:
    """Identifies alerts of which a subscription, plan or customer may have only one; None where it may have many.

    For a subscription or plan: one usage alert for each metric; one cost alert without groups and price filters, and
    one for each (grouping keys, currency, price filters); one spend alert for each (currency, price filters). For a
    customer: one alert of each credit balance type for each currency, and one licence alert for each licence type.
    Alerts that count what is held have keys of their own.
    The key is a digest because the ids and keys together can be longer than an index entry.
    """
    condition_type = condition.condition_type
    if not condition_type.per_subscription and not condition_type.of_one_customer:
        return None
    of: list[Any] = [scope.kind.value, *_scope_ids(scope), condition_type.value]
    if condition_type is ConditionType.USAGE_EXCEEDED:
        of.append(condition.metric_id)
    elif condition_type.of_one_customer:
        of += [condition.currency, condition.balances.license_type if condition.balances else None]
    elif condition_type is ConditionType.SPEND_EXCEEDED:
        of.append(condition.currency)
        if condition.prices:
            of.append(prices_json(condition.prices))
    elif condition.groups or condition.prices:
        of += [sorted(selector.key for selector in condition.groups), condition.currency]
        if condition.prices:
            of.append(prices_json(condition.prices))
    if condition.counts_held:
        of.append("counts_held")
    return f"{condition_type.value}/{digest_of(json.dumps(of)).hex()}"


def _scope_ids(scope: Scope) -> list[str | None]:
    match scope.kind:
        case ScopeKind.PLAN:
            return [scope.plan_id]
        case ScopeKind.CUSTOMER_PLAN:
            return [scope.customer_id, scope.plan_id]
    return [scope.customer_id, scope.subscription_id]

"""Alert definitions: what a caller created, as the store keeps it, and the rule that follows from it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Any

from evaluator.alerts import AlertRule, ConditionType, GroupSelector, Scope, ScopeKind
from evaluator.amounts import format_decimal
from evaluator.balances import BalanceSelection, selection_from_json, selection_json
from evaluator.gauges import INVOICE_KEY, Group, InvoiceSelection, Measure
from evaluator.ids import digest_of
from evaluator.overrides import MostSpecific, Override
from evaluator.prices import FilterOperator, PriceField, PriceFilter
from evaluator.thresholds import Kind, Ladder, Severity, Threshold

DEFAULT_CURRENCY = "USD"

# Spend alerts of one subscription, or of one plan, that are not archived.
MAX_SPEND_ALERTS = 50


class DefinitionState(StrEnum):
    """Whether an alert is evaluated; an archived one never will be again."""

    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"
    ARCHIVED = "ARCHIVED"


@dataclass(frozen=True)
class Condition:
    """What an alert watches: its type, and of the fields below those that its type has.

    metric_id: of the usage conditions. currency: of the cost and the invoice conditions, always set there.
    groups: by what it divides usage, in the order in which the caller named the keys; the seats of a seat balance.
    invoices, balances: of the conditions on those, which ones. overrides: of cost per group, thresholds of single
    groups, in the caller's order. prices: of the spend condition, the prices that count, in canonical form.
    """

    condition_type: ConditionType
    metric_id: str | None = None
    currency: str | None = None
    groups: tuple[GroupSelector, ...] = ()
    invoices: InvoiceSelection | None = None
    overrides: tuple[Override, ...] = ()
    prices: tuple[PriceFilter, ...] = ()
    balances: BalanceSelection | None = None

    @property
    def selectors(self) -> tuple[GroupSelector, ...]:
        """By what its gauges differ, sorted: the groups, or the invoices that each have one."""
        if self.invoices is not None and not self.invoices.monthly:
            return (GroupSelector(INVOICE_KEY),)
        return tuple(sorted(self.groups, key=lambda selector: selector.key))

    @property
    def measure(self) -> Measure:
        """The quantity that its gauges add up."""
        return Measure(
            metric_id=self.metric_id,
            currency=self.currency,
            per_subscription=self.condition_type.per_subscription,
            invoices=self.invoices,
            prices=self.prices,
            balances=self.balances,
            days_in_plan=self.condition_type is ConditionType.LOW_REMAINING_DAYS_IN_PLAN_REACHED,
        )

    def ladder(self, thresholds: tuple[Threshold, ...]) -> Ladder:
        """The thresholds, or the one that the type has of its own, in the order in which its gauges meet them."""
        own = self.condition_type.own_threshold
        return Ladder.of(thresholds if own is None else (own,), self.condition_type.direction)


@dataclass(frozen=True)
class AlertDefinition:
    """One alert of one organization.

    uniqueness_key stays after the alert is archived; uniqueness_key_held says whether it still keeps others
    from using it. natural_key: what a subscription's or plan's alert is unique by; unset once archived, and
    for conditions of which there may be many. visit_after: how far the visit of the gauges from before the
    last change has come, as the last customer_id visited; unset when it is done. The epochs are the
    organization's, see AlertRule; there also reset_version and retired.
    """

    alert_id: str
    name: str
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
    visit_after: str | None
    create_time: datetime
    update_time: datetime
    archive_time: datetime | None = None
    create_epoch: int = 0
    reset_version: int = 0
    retired: tuple[Threshold, ...] = ()

    @property
    def all_thresholds(self) -> tuple[Threshold, ...]:
        """Those of the alert and those of all of its overrides."""
        return (*self.thresholds, *(one for item in self.condition.overrides for one in item.thresholds))

    def rule(self) -> AlertRule | None:
        """The rule that the evaluation follows; None unless the alert is active."""
        return self.watch() if self.state is DefinitionState.ACTIVE else None

    def watch(self) -> AlertRule:
        """The rule that it has, or would have if it were active: what it measures, and by which lines."""
        return AlertRule(
            alert_id=self.alert_id,
            name=self.name,
            version=self.version,
            condition_type=self.condition.condition_type,
            scope=self.scope,
            measure=self.condition.measure,
            groups=self.condition.selectors,
            ladder=self.condition.ladder(self.thresholds),
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
        """The thresholds that the gauge of a group has, in the caller's order."""
        own = self._own_thresholds.find(group)
        return self.thresholds if own is None else own

    @cached_property
    def _own_thresholds(self) -> MostSpecific[tuple[Threshold, ...]]:
        return MostSpecific((item.binding, item.thresholds) for item in self.condition.overrides)


def natural_key(scope: Scope, condition: Condition) -> str | None:
    """What at most one alert of a subscription, a plan or a customer may have; None where there may be many.

    One usage alert for each metric, one cost alert, one more for each (grouping keys, currency), one spend
    alert for each (currency, price filters); of a customer one of each credit balance type for each currency, and
    one licence alert for each type of licence. A digest: the ids and keys together can be longer than an index
    entry may be.
    """
    kind = condition.condition_type
    if not kind.per_subscription and not kind.of_one_customer:
        return None
    of: list[Any] = [scope.kind.value]
    of += [scope.plan_id] if scope.kind is ScopeKind.PLAN else [scope.customer_id, scope.subscription_id]
    of.append(kind.value)
    if kind is ConditionType.USAGE_EXCEEDED:
        of.append(condition.metric_id)
    elif kind.of_one_customer:
        of += [condition.currency, condition.balances.license_type if condition.balances else None]
    elif kind is ConditionType.SPEND_EXCEEDED:
        of.append(condition.currency)
        if condition.prices:
            of.append(_prices_json(condition.prices))
    elif condition.groups:
        of += [sorted(selector.key for selector in condition.groups), condition.currency]
    return f"{kind.value}/{digest_of(json.dumps(of)).hex()}"


def condition_json(condition: Condition) -> dict[str, Any]:
    """The fields of a condition, without its type and without what is unset."""
    shown: dict[str, Any] = {}
    if condition.metric_id is not None:
        shown["metric_id"] = condition.metric_id
    if condition.currency is not None:
        shown["currency"] = condition.currency
    if condition.groups:
        shown["groups"] = [_group_json(selector) for selector in condition.groups]
    if condition.invoices is not None:
        shown["invoices"] = {
            "monthly": condition.invoices.monthly,
            "types": list(condition.invoices.types),
            "contract_fields": [list(pair) for pair in condition.invoices.contract_fields],
        }
    if condition.overrides:
        shown["overrides"] = [
            {"bound": [list(pair) for pair in item.bound], "thresholds": thresholds_json(item.thresholds)}
            for item in condition.overrides
        ]
    if condition.prices:
        shown["prices"] = _prices_json(condition.prices)
    if condition.balances is not None:
        shown["balances"] = selection_json(condition.balances)
    return shown


def condition_from_json(condition_type: ConditionType, stored: Mapping[str, Any]) -> Condition:
    """The condition of which `condition_json` made this."""
    return Condition(
        condition_type=condition_type,
        metric_id=stored.get("metric_id"),
        currency=stored.get("currency"),
        groups=tuple(GroupSelector(group["key"], group.get("value")) for group in stored.get("groups", ())),
        invoices=_invoices(stored["invoices"]) if "invoices" in stored else None,
        overrides=tuple(_override(item) for item in stored.get("overrides", ())),
        prices=tuple(
            PriceFilter(PriceField(field), FilterOperator(operator), tuple(values))
            for field, operator, values in stored.get("prices", ())
        ),
        balances=selection_from_json(stored["balances"]) if "balances" in stored else None,
    )


def thresholds_json(thresholds: Sequence[Threshold]) -> list[dict[str, Any]]:
    """The thresholds in the caller's order; decimals are strings, what is unset is left out."""
    return [_threshold_json(threshold) for threshold in thresholds]


def thresholds_from_json(stored: Sequence[Mapping[str, Any]]) -> tuple[Threshold, ...]:
    """The thresholds of which `thresholds_json` made this."""
    return tuple(_threshold(item) for item in stored)


def _threshold(item: Mapping[str, Any]) -> Threshold:
    percent, resolve_value = _decimal(item, "percent_of_limit"), _decimal(item, "resolve_value")
    return Threshold(
        value=Decimal(item.get("value", "0")),
        code=item.get("code", ""),
        severity=Severity(item["severity"]) if "severity" in item else None,
        recurring_step=_decimal(item, "recurring_step"),
        resolve_value=resolve_value if percent is None else None,
        notify_on=frozenset(Kind(kind) for kind in item["notify_on"]),
        percent_of_limit=percent,
        resolve_percent=None if percent is None else resolve_value,
    )


def _invoices(stored: Mapping[str, Any]) -> InvoiceSelection:
    fields = tuple((key, value) for key, value in stored["contract_fields"])
    return InvoiceSelection(stored["monthly"], tuple(stored["types"]), fields)


def _prices_json(prices: Sequence[PriceFilter]) -> list[list[Any]]:
    return [[item.field.value, item.operator.value, list(item.values)] for item in prices]


def _override(stored: Mapping[str, Any]) -> Override:
    return Override(tuple((key, value) for key, value in stored["bound"]), thresholds_from_json(stored["thresholds"]))


def _group_json(selector: GroupSelector) -> dict[str, str]:
    if selector.value is None:
        return {"key": selector.key}
    return {"key": selector.key, "value": selector.value}


def _threshold_json(threshold: Threshold) -> dict[str, Any]:
    shown: dict[str, Any] = {"notify_on": sorted(kind.value for kind in threshold.notify_on)}
    if threshold.code:
        shown["code"] = threshold.code
    if threshold.severity is not None:
        shown["severity"] = threshold.severity.value
    name, number = threshold.defined_by
    shown[name] = format_decimal(number)
    if (resolve_value := threshold.defined_resolve_value) is not None:
        shown["resolve_value"] = format_decimal(resolve_value)
    return shown


def _decimal(item: Mapping[str, Any], name: str) -> Decimal | None:
    return Decimal(item[name]) if name in item else None

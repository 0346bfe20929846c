"""Quiet gauges: most gauges are far below a new alert, and need no evaluation one by one."""

from collections.abc import Collection, Sequence

from engine.changes.open_change import OpenChange
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transaction
from evaluator.alert_index import WideAlerts
from evaluator.alerts import AlertRule, ScopeKind
from evaluator.gauges import Measure
from evaluator.thresholds import Direction
from evaluator.transitions import AlertState, trip_levels
from store.alerts.drafts import Draft
from store.alerts.quiet_at_creation import WideWatch, WideWatches
from store.usage import quiet_gauges
from store.usage.quiet_gauges import QuietCondition


def wide_watches(rules: RulesRegistry, change: OpenChange, drafts: Collection[Draft]) -> WideWatches | None:
    """What wide alerts watch of the gauges of new alerts, as this process read them last.

    The statement that uses it finds out whether any has changed since. None if this process has not read them, or if
    another change may follow at the same epoch.
    """
    read = rules.of(change.organization_id).read_before(change.epoch) if change.is_last else None
    if read is None:
        return None
    epoch, wide = read
    measures = {one.measure for one in drafts if one.measure is not None}
    return WideWatches(epoch, {measure.key: _watch(_sharing(wide, measure)) for measure in measures})


def _watch(sharing: Collection[AlertRule]) -> WideWatch:
    of_all = [one.watching_epoch for one in sharing if one.scope.kind is ScopeKind.ALL_CUSTOMERS]
    return WideWatch(min(of_all, default=None), max((one.changed_epoch for one in sharing), default=0))


def _sharing(wide: WideAlerts, measure: Measure) -> list[AlertRule]:
    """The wide alerts that may watch the gauges of a measure without groups."""
    return [one for one in wide.on_usage(measure) if not one.groups]


async def settle_quiet(transaction: Transaction, rule: AlertRule, customer_ids: Sequence[str]) -> set[str]:
    """Brings the quiet gauges of an alert up to date; returns the customers for which the alert is evaluated.

    The others have to be evaluated in another transaction: this one holds gauges, not in the order of their keys.
    """
    condition = _condition(transaction, rule)
    if condition is None:
        return set()
    return await quiet_gauges.settle(
        transaction.driver,
        transaction.organization_id,
        condition,
        customer_ids,
        transaction.epoch,
        transaction.now,
    )


def _condition(transaction: Transaction, rule: AlertRule) -> QuietCondition | None:
    """Which gauges are quiet; None where that depends on more than the value of a gauge and one level.

    Such as limits, overrides of groups, facts that are read, what is held, and the custom fields of subscriptions.
    """
    measure, scope = rule.measure, rule.scope
    simple = not (measure.of_facts or measure.per_subscription or measure.contract_fields or rule.groups)
    if not simple or measure.counts_held or scope.kind not in (ScopeKind.ALL_CUSTOMERS, ScopeKind.PLAN):
        return None
    sharing = _sharing(transaction.router.wide, measure)  # without the alerts that name a customer
    level, _ = trip_levels(rule.thresholds, AlertState())
    if level is None or rule.overrides or rule.has_percentages:
        return None
    if rule.thresholds.direction is not Direction.RISING:
        return None
    covering = [one for one in sharing if one.scope.kind is ScopeKind.ALL_CUSTOMERS or one is rule]
    counted_since = min(one.watching_epoch for one in covering)
    others_changed = max((one.changed_epoch for one in sharing if one is not rule), default=0)
    return QuietCondition(
        rule.alert_id,
        measure,
        scope.plan_id,
        level,
        max(counted_since, others_changed),
        rule.changed_epoch,
    )

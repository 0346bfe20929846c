"""Quiet moves: gauges that only new alerts concern, and whose move does not reach these alerts' levels.

After an alert of many customers is created, usage meets a gauge that nothing has evaluated for it in nearly every
event. To evaluate such a gauge costs about ten times as much as to move it, and most of them have nothing to report.
"""

from collections.abc import Sequence
from decimal import Decimal

from engine.evaluation.subjects import Movement
from engine.ingest.routing import bounds_of
from engine.rules.transaction import Transaction
from evaluator.alerts import AlertRule
from evaluator.amounts import exact_arithmetic
from evaluator.transitions import AlertState, trip_levels
from evaluator.watched_gauges import WatchedGauge
from store.usage import quiet_gauges
from store.usage.gauges import Moved
from store.usage.quiet_gauges import Quiet


async def settle_quiet_moves(
    transaction: Transaction, affected: Sequence[tuple[Movement, Moved]]
) -> list[tuple[Movement, Moved]]:
    """Notes that the quiet ones of these gauges are evaluated; returns those that have to be evaluated.

    affected: gauges that this transaction has moved, and that were last evaluated before the rules changed, or that
    reached a trip level; the latter are not quiet.
    """
    levels = _Levels()
    quiet, others = list[Quiet](), list[tuple[Movement, Moved]]()
    with exact_arithmetic():
        for movement, moved in affected:
            level = levels.of_new_alerts(movement.watch, moved)
            if level is not None and moved.value - movement.total + bounds_of(movement)[1] < level:
                quiet.append(Quiet(movement.watch.gauge, level))
            else:
                others.append((movement, moved))
    if quiet:
        await quiet_gauges.settle_moved(
            transaction.driver, transaction.organization_id, quiet, transaction.epoch, transaction.now
        )
    return others


class _Levels:
    """The lowest levels of new alerts, for the gauges of one commit."""

    def __init__(self) -> None:
        self._lowest: dict[str, Decimal | None] = {}  # by alert id

    def of_new_alerts(self, watch: WatchedGauge, moved: Moved) -> Decimal | None:
        """The lowest level of the alerts that are newer than the gauge's evaluation.

        None where it was evaluated under other rules in more than these, or where more than a level decides.
        """
        if moved.has_tripped or moved.scale is not None or watch.gauge.group:
            return None
        newest, level = watch.required_epoch, None
        evaluated_since = max(watch.facts_epoch, watch.continuous_since_epoch)
        for rule in watch.alerts:
            if rule.changed_epoch < newest:
                evaluated_since = max(evaluated_since, rule.changed_epoch)
                continue
            lowest = self._of(rule)
            if lowest is None:
                return None
            level = lowest if level is None else min(level, lowest)
        return level if moved.rules_epoch >= evaluated_since else None

    def _of(self, rule: AlertRule) -> Decimal | None:
        if rule.alert_id not in self._lowest:
            self._lowest[rule.alert_id] = _lowest_level(rule)
        return self._lowest[rule.alert_id]


def _lowest_level(rule: AlertRule) -> Decimal | None:
    """The level below which a new alert has nothing to report; None for other alerts.

    An alert that was changed since its creation may have a state on the gauge.
    """
    if rule.create_epoch != rule.changed_epoch or rule.overrides or rule.has_percentages:
        return None
    above, below = trip_levels(rule.thresholds, AlertState())
    return above if below is None else None

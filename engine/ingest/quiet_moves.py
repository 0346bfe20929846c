"""Quiet moves: gauges that only new alerts concern, and whose move does not reach these alerts' levels.

After an alert of many customers is created, usage meets a gauge that nothing has evaluated for it in nearly every
event. To evaluate such a gauge costs about ten times as much as to move it, and most of them have nothing to report.
"""

from collections.abc import Sequence
from decimal import Decimal

from engine.evaluation.subjects import Movement
from engine.ingest.routing import bounds_of
from engine.rules.transaction import Transaction
from evaluator.amounts import exact_arithmetic
from evaluator.watched_gauges import WatchedGauge
from store.usage import quiet_gauges
from store.usage.gauge_moves import Moved
from store.usage.quiet_gauges import Quiet


async def settle_quiet_moves(
    transaction: Transaction, affected: Sequence[tuple[Movement, Moved]]
) -> list[tuple[Movement, Moved]]:
    """Notes that the quiet ones of these gauges are evaluated; returns those that have to be evaluated.

    affected: gauges that this transaction has moved, and that were last evaluated before the rules changed, or that
    reached a trip level; the latter are not quiet.
    """
    quiet, others = list[Quiet](), list[tuple[Movement, Moved]]()
    with exact_arithmetic():
        for movement, moved in affected:
            level = _level_of_new_alerts(movement.watch, moved)
            if level is not None and moved.value - movement.total + bounds_of(movement)[1] < level:
                quiet.append(Quiet(movement.watch.gauge, level))
            else:
                others.append((movement, moved))
    if quiet:
        await quiet_gauges.settle_moved(
            transaction.driver, transaction.organization_id, quiet, transaction.epoch, transaction.now
        )
    return others


def _level_of_new_alerts(watch: WatchedGauge, moved: Moved) -> Decimal | None:
    """The lowest level of the alerts that are newer than the gauge's evaluation.

    None where it was evaluated under other rules in more than these, or where more than a level decides.
    """
    if moved.has_tripped or moved.scale is not None or watch.gauge.group:
        return None
    if watch.facts_epoch > watch.watching.changed_epoch:
        return None  # the alerts are not what changed last
    level, others_changed = watch.watching.newest
    evaluated_since = max(watch.facts_epoch, watch.continuous_since_epoch, others_changed)
    return level if moved.rules_epoch >= evaluated_since else None

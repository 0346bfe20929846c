"""Silence: thresholds that were reached before an alert with evaluate_on_create false was created do not notify.

Silent is what the backfill after the creation finds in the current periods, what an event finds there before that
backfill, and what late events find in periods that were over at the creation. Everything else that such an alert sees
for the first time has come since: while it was disabled, with a customer that it did not cover, or in a period of
another billing cycle.
"""

from collections.abc import Iterable

from evaluator.alerts import AlertRule
from evaluator.periods import Period
from evaluator.watched_gauges import COUNTING_MARGIN
from store.alerts import backfills
from store.postgres.database import DriverConnection


class Silence:
    """Which alerts are silent about which gauges, as of one transaction."""

    def __init__(self, not_backfilled: set[str]) -> None:
        """`not_backfilled`: the ids of the alerts whose first backfill is not complete."""
        self._not_backfilled = not_backfilled

    @classmethod
    async def read(
        cls, connection: DriverConnection, organization_id: int, evaluated: Iterable[tuple[AlertRule, int]]
    ) -> "Silence":
        """`evaluated`: alerts, each with the rules epoch of a gauge on which it is evaluated.

        Reads the database, because the end of a backfill raises no epoch and so reaches no router. It reads only the
        alerts that can be silent.
        """
        alert_ids = {rule.alert_id for rule, rules_epoch in evaluated if _before_creation(rule, rules_epoch)}
        if not alert_ids:
            return cls(set())
        return cls(await backfills.without_first(connection, organization_id, alert_ids))

    def covers(self, rule: AlertRule, rules_epoch: int, period: Period) -> bool:
        """Whether an alert is silent about a gauge of that period, as it was before the alert was evaluated on it."""
        if rule.condition_type.on_edges_only:
            return rules_epoch < rule.watching_epoch
        if not _before_creation(rule, rules_epoch):
            return False
        if rule.alert_id in self._not_backfilled:
            return period.start <= rule.create_time + COUNTING_MARGIN
        return period.end <= rule.create_time

    def covers_reading(self, rule: AlertRule, rules_epoch: int, *, backfilled: bool) -> bool:
        """Whether an alert is silent about the reading of a gauge of facts.

        backfilled: the alert is evaluated because it is new or changed, and not because a fact changed.
        """
        if rule.condition_type.on_edges_only:
            return rules_epoch < rule.watching_epoch
        return backfilled and _before_creation(rule, rules_epoch) and rule.alert_id in self._not_backfilled


def _before_creation(rule: AlertRule, rules_epoch: int) -> bool:
    """Whether a gauge was last evaluated before an alert with evaluate_on_create false was created."""
    return not rule.evaluate_on_create and rules_epoch < rule.create_epoch

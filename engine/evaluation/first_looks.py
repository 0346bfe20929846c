"""What an alert that was created with evaluate_on_create false keeps to itself: what was past its lines before it.

That is what the visit after its creation finds in the current periods, or an event before that visit comes by; and
what late events find in periods that were over when it was created. Whatever else it sees for the first time has come
since: while it was switched off, with a customer who was not covered, into a period of another cycle.
"""

from collections.abc import Iterable

from evaluator.alerts import AlertRule
from evaluator.periods import Period
from evaluator.watched_gauges import COUNTING_MARGIN
from store.alerts import visits as visiting
from store.postgres.database import DriverConnection


class FirstLooks:
    """Which alerts have not come yet to the end of what existed before them, as of one transaction."""

    def __init__(self, unfinished: set[str]) -> None:
        self._unfinished = unfinished

    @classmethod
    async def read(
        cls, connection: DriverConnection, organization_id: int, looks: Iterable[tuple[AlertRule, int]]
    ) -> "FirstLooks":
        """`looks`: the alerts that look at gauges, each with the epoch at which that gauge was last visited.

        Asks the database, since the end of a visit changes no rule and so reaches no router; and only for those
        alerts that may have something to keep.
        """
        alert_ids = {rule.alert_id for rule, visited_epoch in looks if _before_creation(rule, visited_epoch)}
        if not alert_ids:
            return cls(set())
        return cls(await visiting.at_first_look(connection, organization_id, alert_ids))

    def keeps(self, rule: AlertRule, visited_epoch: int, period: Period) -> bool:
        """Whether a gauge of that period, as it was before the alert saw it, is not to be told."""
        if rule.condition_type.on_edges_only:
            return visited_epoch < rule.watching_epoch
        if not _before_creation(rule, visited_epoch):
            return False
        if rule.alert_id in self._unfinished:
            return period.start <= rule.create_time + COUNTING_MARGIN
        return period.end <= rule.create_time

    def keeps_reading(self, rule: AlertRule, visited_epoch: int, *, new: bool) -> bool:
        """Whether what a gauge of facts reads is not to be told. new: the alert visits it, and no fact changed."""
        if rule.condition_type.on_edges_only:
            return visited_epoch < rule.watching_epoch
        return new and _before_creation(rule, visited_epoch) and rule.alert_id in self._unfinished


def _before_creation(rule: AlertRule, visited_epoch: int) -> bool:
    """Whether nobody has looked at a gauge since an alert was created that is not to tell what was before."""
    return not rule.evaluate_on_create and visited_epoch < rule.create_epoch

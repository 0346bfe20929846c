"""Route changes: which of the routes that a router has found are not valid any more.

A change of a wide alert would concern every customer that the router knows. So it is only noted here, with a number
that rises. A customer compares the numbers when its next event comes, and finds anew only what the changes touch.
"""

from itertools import product

from evaluator.gauges import Measure

MAX_NOTED = 10_000  # touched keys; with more, customers that have not compared them find all routes anew

Touched = tuple[
    Measure | None, str | None
]  # a measure and the plan whose alerts changed; no measure: the plan's limits


class RouteChanges:
    """The changes that touch routes of many customers."""

    def __init__(self) -> None:
        self.revision = 0  # the number of the last change
        self._touched: dict[Touched, int] = {}
        self._forgotten = 0  # changes up to this one are not noted any more

    def touch(self, measure: Measure | None, plan_id: str | None) -> None:
        """Notes that alerts on a measure changed: of a plan's customers, or of all (plan_id None).

        measure: None if the limits of the plan changed.
        """
        if len(self._touched) >= MAX_NOTED:
            self._touched.clear()
            self._forgotten = self.revision
        self.revision += 1
        self._touched[measure, plan_id] = self.revision

    def touch_metric(self, metric_id: str) -> None:
        """Notes that a metric changed."""
        for per_subscription, counts_held in product((False, True), repeat=2):
            measure = Measure(metric_id=metric_id, per_subscription=per_subscription, counts_held=counts_held)
            self.touch(measure, None)

    def all_since(self, revision: int) -> bool:
        """Whether everything that was found before that revision has to be found anew."""
        return revision < self._forgotten

    def since(self, revision: int, measure: Measure, plan_id: str | None) -> bool:
        """Whether a measure of a customer or subscription with that plan was touched after a revision."""
        touched = self._touched
        if touched.get((measure, None), 0) > revision:
            return True
        return (
            plan_id is not None
            and max(touched.get((measure, plan_id), 0), touched.get((None, plan_id), 0)) > revision
        )

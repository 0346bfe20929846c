"""The gauges of balances that alerts watch, found for the segments on which usage draws."""

from evaluator.alerts import AlertRule
from evaluator.balance_values import gauge_of, groups_of, measure_takes
from evaluator.balances import BalanceReading, Holding
from evaluator.gauges import Gauge
from evaluator.routing import Router
from evaluator.watched_gauges import WatchedGauge, watched_fact_gauge
from store.balances.drawdown import Drawable


class BalanceWatches:
    """Finds the gauges of balances that alerts watch. One of each, however many segments move it."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._watches: dict[Gauge, WatchedGauge] = {}
        self._watches_of: dict[tuple[str, str], list[WatchedGauge]] = {}

    def of(self, item: Drawable) -> list[WatchedGauge]:
        """The gauges that count a balance and that usage moves."""
        key = item.customer_id, item.holding.balance_id
        if key not in self._watches_of:
            customer = self._router.customer(item.customer_id)
            self._watches_of[key] = [
                self._watches.setdefault(gauge, watched_fact_gauge(gauge, rules, customer))
                for gauge, rules in self._gauges(item.customer_id, item.holding).items()
            ]
        return self._watches_of[key]

    def _gauges(self, customer_id: str, holding: Holding) -> dict[Gauge, list[AlertRule]]:
        found: dict[Gauge, list[AlertRule]] = {}
        for rule in self._router.fact_rules(self._router.customer(customer_id)):
            selection = rule.measure.balances
            if selection is None or selection.reading is BalanceReading.DAYS_LEFT:
                continue
            if measure_takes(rule.measure, holding):
                for group in groups_of(selection, holding):
                    if rule.selects(group):
                        found.setdefault(gauge_of(customer_id, rule.measure, group), []).append(rule)
        return found

"""Watched gauges: a gauge with the alerts on it, and how to find it among the gauges of one measure and customer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from evaluator.aggregation import Aggregation
from evaluator.alerts import AlertRule
from evaluator.gauges import Gauge, Group, Measure
from evaluator.limits import Limits, limit_of
from evaluator.periods import BillingCycle, Period
from evaluator.prices import PriceFilter
from evaluator.raw_events import RawEvents
from evaluator.routing_facts import CustomerFacts
from evaluator.watching_alerts import ByKeys, WatchingAlerts

# A period is taken as counted from its first event if it starts this long after the alerts began to watch. The margin
# covers events from the future, replicas whose clocks differ, and the wait for a lock. A recount that was not needed
# only costs time.
COUNTING_MARGIN = timedelta(hours=1)

_NEVER = datetime.max.replace(tzinfo=UTC)

KEPT_PERIODS = 4  # of one measure and customer whose gauges stay cached; late events find those of others again


@dataclass(eq=False, slots=True)
class WatchedGauge:
    """A gauge, the alerts that watch it, and how its value is computed.

    required_epoch: a stored gauge that was last evaluated before this epoch must be evaluated again.
    facts_epoch: of the last change of what it needs beside alerts: of its customer, subscription or limits.
    continuous_since_epoch: a stored gauge that was evaluated at or after this epoch has counted every event since.
    counted_since: a period that starts after this time has been counted from its first event.
    limit: of the gauge, where alerts have percentage thresholds. raw_events: those that count in its metric.
    customer_id, gauge_hex: of the gauge. is_additive: whether its events can be summed up before they are counted.
    """

    gauge: Gauge
    watching: WatchingAlerts
    aggregation: Aggregation
    unique_property: str | None
    required_epoch: int
    facts_epoch: int
    continuous_since_epoch: int
    counted_since: datetime
    limit: Decimal | None = None
    raw_events: RawEvents | None = None
    customer_id: str = field(init=False)
    gauge_hex: str = field(init=False)
    is_additive: bool = field(init=False)

    def __post_init__(self) -> None:
        self.customer_id, self.gauge_hex = self.gauge.customer_id, self.gauge.gauge_hex
        self.is_additive = self.aggregation.additive

    @property
    def alerts(self) -> Sequence[AlertRule]:
        """The alerts that watch it, oldest first."""
        return self.watching.rules

    @property
    def counted_from_the_start(self) -> bool:
        """Whether every event of its period has come while an alert watched it."""
        return self.counted_since + COUNTING_MARGIN < self.gauge.period.start


def watched_fact_gauge(gauge: Gauge, alerts: Iterable[AlertRule], customer: CustomerFacts) -> WatchedGauge:
    """A gauge that measures facts instead of usage, with the alerts on it."""
    watching = WatchingAlerts(alerts)
    return WatchedGauge(
        gauge=gauge,
        watching=watching,
        aggregation=Aggregation.SUM,
        unique_property=None,
        required_epoch=max(customer.changed_epoch, watching.changed_epoch),
        facts_epoch=customer.changed_epoch,
        continuous_since_epoch=max(customer.changed_epoch, watching.watching_epoch),
        counted_since=customer.changed_time,
    )


@dataclass(eq=False, slots=True)
class CustomerMeasure:
    """One measure of one customer or subscription, over all its periods and groups.

    prices: of the measure; an event counts only if it passes them. limits: the customer's own, then its plan's.
    raw_events: those that count in its metric.
    by_keys: the alerts on the measure that cover the customer, by their group keys. period: the one used last.
    found: the result of `watched_gauge` for each group in that period. by_start: the same for each period that was
    used, by its start. of_cost: as of the measure.
    only, only_from, only_until: the gauge that every event between two times moves by its own amount, and no other
    gauge of the measure. The times are of the period used last where that is so, or else of no time.
    """

    measure: Measure
    customer_id: str
    subscription_id: str | None
    cycle: BillingCycle
    aggregation: Aggregation
    unique_property: str | None
    changed_epoch: int
    changed_time: datetime
    by_keys: ByKeys
    period: Period
    prices: tuple[PriceFilter, ...] = ()
    limits: tuple[Limits, ...] = ()
    raw_events: RawEvents | None = None
    found: dict[Group, WatchedGauge | None] = field(default_factory=dict)
    by_start: dict[datetime, dict[Group, WatchedGauge | None]] = field(default_factory=dict)

    of_cost: bool = field(init=False)
    only: WatchedGauge = field(init=False)
    only_from: datetime = field(init=False, default=_NEVER)
    only_until: datetime = field(init=False, default=_NEVER)

    def __post_init__(self) -> None:
        self.of_cost = self.measure.of_cost
        self.by_start[self.period.start] = self.found

    def watched_gauge(self, group: Group, time: datetime) -> WatchedGauge | None:
        """The gauge of that group in the period of `time`; None when no alert watches it."""
        period = self.period
        if not period.start <= time < period.end:
            period = self.period = self.cycle.period_at(time)
            self.found = self.by_start.setdefault(period.start, {})
        found = self.found
        if group not in found:
            found[group] = self._find(group, period)
        watch = found[group]
        if watch is not None and not group and self._counts_as_it_is:
            self.only, self.only_from, self.only_until = watch, period.start, period.end
        return watch

    @property
    def _counts_as_it_is(self) -> bool:
        """Whether all events count, with their own amounts, and in no group."""
        return not self.prices and self.aggregation is Aggregation.SUM and self.by_keys.keys() == {()}

    def forget_past_periods(self) -> None:
        """Forgets the gauges of all but the last KEPT_PERIODS periods. No commit may be using the measure."""
        if len(self.by_start) > KEPT_PERIODS:
            for start in sorted(self.by_start)[:-KEPT_PERIODS]:
                del self.by_start[start]
            self.found = self.by_start.setdefault(self.period.start, {})

    def _find(self, group: Group, period: Period) -> WatchedGauge | None:
        alike = self.by_keys.get(tuple(key for key, _ in group))
        watching = None if alike is None else alike.watching(group)
        if watching is None:
            return None
        # A changed limit must not cause a re-evaluation of gauges without percentage thresholds.
        limits = self.limits if watching.has_percentages else ()
        facts_epoch = max(self.changed_epoch, *(one.changed_epoch for one in limits), 0)
        return WatchedGauge(
            gauge=Gauge(self.customer_id, self.subscription_id, self.measure, group, period),
            watching=watching,
            aggregation=self.aggregation,
            unique_property=self.unique_property,
            required_epoch=max(facts_epoch, watching.changed_epoch),
            facts_epoch=facts_epoch,
            continuous_since_epoch=max(self.changed_epoch, watching.watching_epoch),
            counted_since=max(self.changed_time, watching.watching_time),
            limit=limit_of(limits, self.measure.unit, group),
            raw_events=self.raw_events,
        )

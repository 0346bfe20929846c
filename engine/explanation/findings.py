"""What an explanation finds: checks with their reasons, gauges with their thresholds, and the first reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from evaluator.aggregation import Aggregation
from evaluator.definitions import AlertDefinition
from evaluator.gauges import EVER, Gauge
from evaluator.periods import BillingCycle, Period
from evaluator.thresholds import Threshold, ThresholdSet
from evaluator.transitions import AlertState
from store.usage.event_samples import EventSample
from store.usage.holding_reservations import Holding
from store.views.held_of_gauges import Held


class Check(StrEnum):
    """A check of the evaluation, in its order."""

    SCOPE = "SCOPE"
    STATE = "STATE"
    EXCLUSION = "EXCLUSION"
    BACKFILL = "BACKFILL"
    PERIOD = "PERIOD"
    DATA = "DATA"


class Reason(StrEnum):
    """Why an alert has not notified. The contract explains each (`ExplanationReason`)."""

    PASSED = "PASSED"
    OTHER_CUSTOMER = "OTHER_CUSTOMER"
    OTHER_PLAN = "OTHER_PLAN"
    NO_SUBSCRIPTION = "NO_SUBSCRIPTION"
    ALERT_ARCHIVED = "ALERT_ARCHIVED"
    ALERT_DISABLED = "ALERT_DISABLED"
    DISABLED_FOR_CUSTOMER = "DISABLED_FOR_CUSTOMER"
    GROUP_LIMIT = "GROUP_LIMIT"
    CUSTOMER_BEING_ERASED = "CUSTOMER_BEING_ERASED"
    NOT_EVALUATED_YET = "NOT_EVALUATED_YET"
    PERIOD_OVER = "PERIOD_OVER"
    METRIC_UNKNOWN = "METRIC_UNKNOWN"
    NOTHING_COUNTED = "NOTHING_COUNTED"
    OTHER_UNIT = "OTHER_UNIT"
    FILTERED = "FILTERED"
    NOT_GROUPED = "NOT_GROUPED"
    NO_THRESHOLDS = "NO_THRESHOLDS"
    NO_LIMIT = "NO_LIMIT"
    NOT_REACHED = "NOT_REACHED"
    REACHED_SILENTLY = "REACHED_SILENTLY"
    NOT_REQUESTED = "NOT_REQUESTED"
    NOTIFIED = "NOTIFIED"


# Of several gauges, the one whose reason comes first here says why the alert has not notified about the customer.
FURTHEST_FIRST = (
    Reason.NOTIFIED,
    Reason.NOT_REQUESTED,
    Reason.REACHED_SILENTLY,
    Reason.NOT_EVALUATED_YET,
    Reason.GROUP_LIMIT,
    Reason.NOT_REACHED,
    Reason.NO_LIMIT,
    Reason.NO_THRESHOLDS,
    Reason.NOTHING_COUNTED,
)


@dataclass(frozen=True)
class StepResult:
    """A check with its result; PASSED: it does not keep the alert from notifying. summary: one sentence."""

    check: Check
    reason: Reason
    summary: str


@dataclass(frozen=True)
class Next:
    """What must happen to a gauge so that the alert notifies that a threshold is reached.

    level: the value at which it does. amount: the least amount of one event that does it; None where no single event
    can be named. events: how many more events it takes, where they count one by one.
    """

    level: Decimal
    amount: Decimal | None = None
    events: Decimal | None = None


@dataclass(frozen=True)
class LimitSource:
    """The limit of a gauge, and whose it is: a plan's, or the customer's (plan_id None)."""

    amount: Decimal
    plan_id: str | None


@dataclass(frozen=True)
class ExplainedGauge:
    """A gauge with what decides whether the alert notifies about it.

    value: None where it is not known without counting all stored events, or where nothing is measured. thresholds:
    those of the gauge, with their levels. state: as it was recorded. awaits: the next evaluation changes the state
    without any change of the value. late_until: the end of the grace of its period; None where it has no period.
    only_changes: the type of the alert notifies of balances that change, and not of one that is first read there.
    held: what open reservations hold of it; None where that is not read, or nothing can be held. holding: the
    reservations of which it is the most.
    """

    gauge: Gauge
    value: Decimal | None
    thresholds: ThresholdSet
    state: AlertState
    reason: Reason
    awaits: bool = False
    next: Next | None = None
    sequence: int = 0
    change_time: datetime | None = None
    change_reason: str | None = None
    update_time: datetime | None = None
    aggregation: Aggregation | None = None
    cycle: BillingCycle | None = None
    late_until: datetime | None = None
    limit: LimitSource | None = None
    only_changes: bool = False
    held: Held | None = None
    holding: Sequence[Holding] = ()

    def threshold_of(self, key: str) -> Threshold | None:
        """The threshold with that key."""
        found = [one for one in self.all_thresholds if one.key == key]
        return found[0] if found else None

    @property
    def all_thresholds(self) -> Sequence[Threshold]:
        """The thresholds, in the order in which the value meets them; then those without a level."""
        recurring = () if self.thresholds.recurring is None else (self.thresholds.recurring,)
        return (*self.thresholds.fixed, *recurring, *self.thresholds.percentages)


@dataclass(frozen=True)
class Explanation:
    """Why an alert has notified about a customer, or has not, as of `time`.

    truncated: there are more gauges. groups: how many the alert has met, and the most it may meet; None without
    groups. notified_time: when it has notified in the period, of an alert that a step keeps from being evaluated now.
    """

    definition: AlertDefinition
    customer_id: str
    time: datetime
    steps: Sequence[StepResult]
    gauges: Sequence[ExplainedGauge] = ()
    truncated: bool = False
    counted: EventSample | None = None
    groups: tuple[int, int] | None = None
    notified_time: datetime | None = None

    @property
    def deciding_gauge(self) -> ExplainedGauge | None:
        """The gauge that got furthest."""
        return min(self.gauges, key=lambda one: FURTHEST_FIRST.index(one.reason), default=None)

    @property
    def deciding_step(self) -> StepResult | None:
        """The first step that blocks; None when the alert has notified all the same, or none blocks."""
        gauge = self.deciding_gauge
        if gauge is not None and gauge.reason is Reason.NOTIFIED:
            return None
        return next((one for one in self.steps if one.reason is not Reason.PASSED), None)

    @property
    def reason(self) -> Reason:
        """The first reason that keeps the alert from notifying; NOTIFIED if it has notified before."""
        if self.notified_time is not None:
            return Reason.NOTIFIED
        if (step := self.deciding_step) is not None:
            return step.reason
        gauge = self.deciding_gauge
        return Reason.NOTHING_COUNTED if gauge is None else gauge.reason


def end_of_grace(period: Period, grace: timedelta) -> datetime:
    """Until when late events of a period are counted."""
    return EVER.end if period.end > EVER.end - grace else period.end + grace

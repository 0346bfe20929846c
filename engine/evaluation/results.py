"""What an evaluation found: transitions with their evidence, the new values of gauges, and exclusions."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from evaluator.alerts import AlertRule
from evaluator.exclusions import Excluded
from evaluator.gauges import Gauge
from evaluator.notifications import Notification
from evaluator.transitions import Transition


@dataclass(frozen=True)
class RecordedTransition:
    """A transition with its alert and gauge; notification is unset when its threshold does not notify of its kind.

    late: the period of the gauge was closed. limit: the effective limit of the gauge, where the alert has thresholds
    in percent of it.
    """

    transition: Transition
    rule: AlertRule
    gauge: Gauge
    late: bool
    ingest_time: datetime
    notification: Notification | None
    limit: Decimal | None = None


@dataclass(frozen=True)
class Result:
    """What an evaluation found, and the value of each of its gauges afterwards.

    excluded: what routers need not watch any more after the transaction is committed.
    """

    transitions: list[RecordedTransition] = field(default_factory=list)
    values: list[tuple[Gauge, Decimal]] = field(default_factory=list)
    excluded: set[Excluded] = field(default_factory=set)

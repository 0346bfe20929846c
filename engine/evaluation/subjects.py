"""What is evaluated: locked gauges, what moves them, and what they showed before."""

from dataclasses import dataclass, field
from decimal import Decimal

from evaluator.aggregation import Aggregation, Tally
from evaluator.alerts import AlertRule
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balance_values import FactValue as Reading
from evaluator.events import UsageEvent
from evaluator.thresholds import ThresholdSet
from evaluator.transitions import Cause, Step
from evaluator.watched_gauges import WatchedGauge as Watch
from store.usage import gauges
from store.usage.gauges import NEVER_EVALUATED


@dataclass(eq=False, slots=True)
class Movement:
    """The events of one commit that move one gauge, in the order of their arrival, each with its amount."""

    watch: Watch
    entries: list[tuple[Decimal, UsageEvent]] = field(default_factory=list)
    total: Decimal = ZERO
    falls: bool = False  # whether any amount is negative


@dataclass(eq=False, slots=True)
class Subject:
    """A locked gauge that has to be evaluated.

    before: its tally without the entries; None until it is recounted. visited_epoch: of its last visit.
    untouched: no event can have been counted for it before this transaction. scale: see `Measure.shown`, as
    stored.
    reading: of a gauge of facts that has no entries: what it reads now. cause: of that, if it was time.
    first_look: an alert is new, and what it finds was there before it. forgotten: the alert whose state is to be
    forgotten, and evaluated afresh.
    """

    movement: Movement
    visited_epoch: int
    before: Tally | None
    untouched: bool = False
    scale: Decimal | None = None
    reading: Reading | None = None
    cause: Cause | None = None
    first_look: bool = False
    forgotten: str | None = None

    @property
    def stale(self) -> bool:
        """Whether the rules or the facts changed since it was last visited."""
        return self.visited_epoch < self.movement.watch.required_epoch


def before_move(movement: Movement, moved: gauges.Moved, created_customers: set[str]) -> Subject:
    """The subject of an additive gauge that `gauges.move` has moved."""
    with exact_arithmetic():
        tally = Tally(moved.value - movement.total)
    subject = _subject(movement, tally, moved.rules_epoch, created_customers)
    subject.scale = moved.scale
    return subject


def before_fold(movement: Movement, locked: gauges.Locked, created_customers: set[str]) -> Subject:
    """The subject of a gauge that `gauges.lock` has locked."""
    tally = Tally(locked.value, locked.latest_event_time, locked.latest_event_id)
    subject = _subject(movement, tally, locked.rules_epoch, created_customers)
    # A server of an earlier version counted it last, and did not say which of the events of that time it shows.
    unsaid = movement.watch.aggregation is Aggregation.LATEST and tally.latest_time and tally.latest_id is None
    if unsaid and any(event.event_time == tally.latest_time for _, event in movement.entries):
        subject.before = None
    return subject


def _subject(movement: Movement, tally: Tally, visited_epoch: int, created_customers: set[str]) -> Subject:
    watch = movement.watch
    if visited_epoch >= watch.continuous_since_epoch and visited_epoch != NEVER_EVALUATED:
        return Subject(movement, visited_epoch, tally)
    if visited_epoch == NEVER_EVALUATED and (
        watch.gauge.customer_id in created_customers or watch.counted_from_the_start
    ):
        return Subject(movement, visited_epoch, Tally(), untouched=True)
    return Subject(movement, visited_epoch, None)


def path_of(subject: Subject) -> tuple[Decimal, list[Step], Decimal | None]:
    """What the gauge showed before, what it shows step by step, and its scale. Counts the entries."""
    watch, tally, reading = subject.movement.watch, subject.before, subject.reading
    assert tally is not None
    measure = watch.gauge.measure
    if reading is not None:
        assert reading.value is not None
        value = measure.shown(reading.value, reading.scale)
        # A balance that nobody has looked at, or a percentage of nothing, did not read 0 before.
        unknown = measure.invoices is None and (
            subject.visited_epoch == NEVER_EVALUATED or (subject.scale is None) != (reading.scale is None)
        )
        base = value if unknown else measure.shown(tally.value, subject.scale)
        return base, [Step(value, subject.cause)], reading.scale
    base = measure.shown(tally.value, subject.scale)
    steps = [step_of(subject, tally, amount, event) for amount, event in subject.movement.entries]
    return base, steps, subject.scale


def step_of(subject: Subject, tally: Tally, amount: Decimal, event: UsageEvent) -> Step:
    """What a gauge shows after one more event, which this adds to the tally."""
    watch = subject.movement.watch
    unique_value = event.properties.get(watch.unique_property) if watch.unique_property else None
    tally.add(watch.aggregation, amount, event.event_time, event.event_id, unique_value)
    value = watch.gauge.measure.shown(tally.value, subject.scale)
    return Step(value, Cause(event.event_id, event.event_time))


def ladder_of(watch: Watch, rule: AlertRule) -> ThresholdSet:
    """The thresholds that an alert has on a gauge."""
    return rule.thresholds_for(watch.gauge.group).with_limit(watch.limit)


def unique_values(movement: Movement) -> set[str]:
    """The values that a UNIQUE_COUNT counts of the events that move a gauge."""
    name = movement.watch.unique_property
    return {event.properties[name] for _, event in movement.entries if name is not None and name in event.properties}

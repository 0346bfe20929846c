"""The subjects of an evaluation: locked gauges, the events that move them, and the values that they had before."""

from dataclasses import dataclass, field
from decimal import Decimal

from evaluator.aggregation import Aggregation, Tally
from evaluator.alerts import AlertRule
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balance_values import FactValue
from evaluator.events import UsageEvent
from evaluator.thresholds import ThresholdSet
from evaluator.transitions import Cause, Step
from evaluator.watched_gauges import WatchedGauge
from store.usage import gauge_moves, gauges
from store.usage.gauges import NEVER_EVALUATED

Entry = tuple[Decimal, UsageEvent]  # an event that moves a gauge, and by how much


class HeldUsage(UsageEvent):
    """What a reservation begins to hold, or holds no more, in the form of an event that is not stored.

    event_id: that of the reservation.
    """

    __slots__ = ()


@dataclass(eq=False, slots=True)
class Movement:
    """The events of one commit that move one gauge, in the order of their arrival, each with its amount.

    falls: whether any amount is negative. plain: events that move the gauge by their own quantity or cost; no entries
    are made of them until they are asked for, because few gauges of a commit are evaluated. None: there are entries.
    held: the reservations that begin to hold, or hold no more (below 0), each with its id and the amount, which is a
    part of the entries.
    """

    watch: WatchedGauge
    _entries: list[Entry] = field(default_factory=list)
    total: Decimal = ZERO
    falls: bool = False
    plain: list[UsageEvent] | None = None
    held: list[tuple[str, Decimal]] | None = None

    @property
    def entries(self) -> list[Entry]:
        """The events with their amounts."""
        if self.plain is not None:
            of_cost = self.watch.gauge.measure.of_cost
            amounts = [event.cost if of_cost else event.quantity for event in self.plain]
            self._entries = [
                (amount, event) for amount, event in zip(amounts, self.plain, strict=True) if amount is not None
            ]
            self.plain = None
        return self._entries

    def add(self, amount: Decimal, event: UsageEvent) -> None:
        """Adds one event. Must run under `exact_arithmetic`."""
        self.entries.append((amount, event))
        self.total += amount
        if amount < ZERO:
            self.falls = True


def first_event(movement: Movement) -> UsageEvent | None:
    """The first of its stored events; None where only reservations move it."""
    return next((event for _, event in movement.entries if not isinstance(event, HeldUsage)), None)


@dataclass(eq=False, slots=True)
class Subject:
    """A locked gauge that is to be evaluated.

    rules_epoch: the epoch at which it was last evaluated. before: its tally without the entries; None until it is
    recounted. untouched: no event can have been counted for it before this transaction. scale: see `Measure.shown`,
    as stored.
    reading: the present value of a gauge of facts, which has no entries. after: the tally that voided events leave;
    there are no entries then. cause: set where time alone or voided events changed it.
    epoch: the rules epoch that the gauge gets where some of its alerts are left out; None: that of the transaction.
    backfilled: the evaluation is that of a new or changed alert, so the reading may be older than the alert.
    reset_alert: the id of the alert whose state is forgotten before it is evaluated.
    """

    movement: Movement
    rules_epoch: int
    before: Tally | None
    untouched: bool = False
    scale: Decimal | None = None
    reading: FactValue | None = None
    after: Tally | None = None
    cause: Cause | None = None
    epoch: int | None = None
    backfilled: bool = False
    reset_alert: str | None = None

    @property
    def stale(self) -> bool:
        """Whether the rules or the facts have changed since it was last evaluated."""
        return self.rules_epoch < self.movement.watch.required_epoch

    @property
    def tally(self) -> Tally:
        """The tally before the entries, once it is known."""
        assert self.before is not None
        return self.before


def before_move(movement: Movement, moved: gauge_moves.Moved, registered_customers: set[str]) -> Subject:
    """The subject of an additive gauge that `gauge_moves.move` has moved."""
    with exact_arithmetic():
        tally = Tally(moved.value - movement.total)
    subject = _subject(movement, tally, moved.rules_epoch, registered_customers)
    subject.scale = moved.scale
    return subject


def before_fold(movement: Movement, locked: gauges.Locked, registered_customers: set[str]) -> Subject:
    """The subject of a gauge that `gauges.lock` has locked."""
    tally = Tally(locked.value, locked.latest_event_time, locked.latest_event_id)
    subject = _subject(movement, tally, locked.rules_epoch, registered_customers)
    # A server of an earlier version counted it last, and did not store which event of that time LATEST shows.
    unknown = movement.watch.aggregation is Aggregation.LATEST and tally.latest_time and tally.latest_id is None
    if unknown and any(event.event_time == tally.latest_time for _, event in movement.entries):
        subject.before = None
    return subject


def _subject(movement: Movement, tally: Tally, rules_epoch: int, registered_customers: set[str]) -> Subject:
    """registered_customers: those that this transaction registered, so no event of theirs is stored."""
    watch = movement.watch
    if rules_epoch >= watch.continuous_since_epoch and rules_epoch != NEVER_EVALUATED:
        return Subject(movement, rules_epoch, tally)
    if rules_epoch == NEVER_EVALUATED and (
        watch.gauge.customer_id in registered_customers or watch.counted_from_the_start
    ):
        return Subject(movement, rules_epoch, Tally(), untouched=True)
    return Subject(movement, rules_epoch, None)


def path_of(subject: Subject) -> tuple[Decimal, list[Step], Decimal | None]:
    """The value that the gauge showed before, the values that it takes step by step, and its scale.

    Counts the entries, or takes over what voided events leave: the subject's tally is the one of now afterwards.
    """
    watch, tally, reading = subject.movement.watch, subject.tally, subject.reading
    measure = watch.gauge.measure
    if reading is not None:
        assert reading.value is not None
        value = measure.shown(reading.value, reading.scale)
        # A balance that was never read, or a percentage of nothing, did not read 0 before.
        unknown = measure.invoices is None and (
            subject.rules_epoch == NEVER_EVALUATED or (subject.scale is None) != (reading.scale is None)
        )
        base = value if unknown else measure.shown(tally.value, subject.scale)
        return base, [Step(value, subject.cause)], reading.scale
    base = measure.shown(tally.value, subject.scale)
    if (after := subject.after) is not None:
        tally.value, tally.latest_time, tally.latest_id = after.value, after.latest_time, after.latest_id
        return base, [Step(measure.shown(tally.value, subject.scale), subject.cause)], subject.scale
    steps = [step_of(subject, tally, amount, event) for amount, event in subject.movement.entries]
    return base, steps, subject.scale


def evaluations_of(subject: Subject) -> int:
    """About how many alerts have to be evaluated on a gauge; at least 1."""
    watching, before = subject.movement.watch.watching, subject.before
    if subject.reading is not None or before is None:
        return len(watching.rules)
    after = before.value + subject.movement.total if subject.after is None else subject.after.value
    return max(1, watching.reached_by(max(before.value, after)))


def step_of(subject: Subject, tally: Tally, amount: Decimal, event: UsageEvent) -> Step:
    """The step of one more event, which this adds to the tally."""
    watch = subject.movement.watch
    unique_value = event.properties.get(watch.unique_property) if watch.unique_property else None
    tally.add(watch.aggregation, amount, event.event_time, event.event_id, unique_value)
    value = watch.gauge.measure.shown(tally.value, subject.scale)
    return Step(value, Cause(event.event_id, event.event_time))


def thresholds_of(watch: WatchedGauge, rule: AlertRule) -> ThresholdSet:
    """The thresholds that an alert has on a gauge."""
    return rule.thresholds_for(watch.gauge.group).with_limit(watch.limit)


def unique_values(movement: Movement) -> set[str]:
    """The values that a UNIQUE_COUNT counts of the events that move a gauge."""
    name = movement.watch.unique_property
    return {event.properties[name] for _, event in movement.entries if name is not None and name in event.properties}

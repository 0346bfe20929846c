"""The evaluation of gauges inside a transaction that has locked them; ingest and visits share it."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from evaluator.aggregation import Aggregation, Tally
from evaluator.alerts import AlertRule
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.balance_readings import Reading
from evaluator.events import UsageEvent
from evaluator.exclusions import Excluded
from evaluator.gauges import Gauge
from evaluator.notifications import Notification
from evaluator.routing import Watch
from evaluator.transitions import AlertState, Cause, Step, Transition, evaluate, mark_silently, trip_levels
from server.ingest.first_looks import FirstLooks
from server.ingest.guard import Guarded, Look, guard
from store import evaluations, gauges, recounts
from store.evaluations import StoredState
from store.gauges import NEVER_VISITED, Connection

REASON_USAGE = "USAGE"  # an event moved the gauge
REASON_FACT = "FACT"  # the billing system posted a fact, or time brought one due
REASON_DEFINITION = "DEFINITION"  # the alert or the customer's facts are what changed


PART = 500  # gauges that are evaluated at a time: whoever has much keeps this process from nobody for long


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


@dataclass(frozen=True)
class Found:
    """A transition, with where it belongs; notification is unset when its threshold asks not to be told.

    limit: of the gauge, where the rule draws lines in percent of it.
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

    excluded: what routers need not watch any more once the transaction is committed.
    """

    found: list[Found]
    values: list[tuple[Gauge, Decimal]]
    excluded: set[Excluded]


class Evaluation:
    """Evaluates the gauges of one organization in one transaction."""

    def __init__(
        self, connection: Connection, organization_id: int, organization: str, epoch: int, now: datetime
    ) -> None:
        self._connection = connection
        self._organization_id = organization_id
        self._organization = organization
        self._epoch = epoch
        self._now = now

    async def run(self, subjects: Sequence[Subject]) -> Result:
        """Counts, evaluates and writes everything but the events themselves."""
        await self._recount([subject for subject in subjects if subject.before is None])
        await self._find_unseen_values(subjects)
        guarded = await self._guard(subjects)
        result = Result([], [], guarded.excluded)
        for start in range(0, len(subjects), PART):
            await self._look(subjects[start : start + PART], guarded, result)
        if guarded.disabled:
            await evaluations.write_notifications(
                self._connection, self._organization_id, guarded.disabled, self._now
            )
        return result

    async def _look(self, subjects: Sequence[Subject], guarded: Guarded, result: Result) -> None:
        """Evaluates gauges and writes what that came to; adds it to the result."""
        all_gauges = [subject.movement.watch.gauge for subject in subjects]
        states = await evaluations.states(self._connection, self._organization_id, all_gauges)
        looks = [
            (rule, one.visited_epoch)
            for one in subjects
            if one.stale or one.first_look
            for rule in one.movement.watch.alerts
        ]
        first_looks = await FirstLooks.read(self._connection, self._organization_id, looks)
        found: list[Found] = []
        visited: list[gauges.Visited] = []
        changed: list[StoredState] = []
        with exact_arithmetic():
            for subject in subjects:
                self._evaluate(subject, states, first_looks, guarded.quiet, found, visited, changed)
        notifications: dict[str, evaluations.Record] = {
            one.notification.notification_id: one.notification for one in found if one.notification is not None
        }
        async with self._connection.pipeline():
            await gauges.write(self._connection, self._organization_id, visited, self._now)
            if changed:
                await evaluations.write_states(self._connection, self._organization_id, changed)
            if notifications:
                await evaluations.write_notifications(
                    self._connection, self._organization_id, list(notifications.values()), self._now
                )
        result.found.extend(found)
        result.values.extend((item.gauge, item.value) for item in visited)

    async def _guard(self, subjects: Sequence[Subject]) -> Guarded:
        looks = []
        for subject in subjects:
            first = subject.movement.entries[0][1] if subject.movement.entries else None
            cause = Cause(first.event_id, first.event_time) if first else None
            looks.append(Look(subject.movement.watch, subject.visited_epoch, cause))
        return await guard(self._connection, self._organization_id, self._organization, self._epoch, self._now, looks)

    async def _recount(self, subjects: Sequence[Subject]) -> None:
        """Counts from the stored events what nobody has counted, or not without a gap."""
        if not subjects:
            return
        wanted = [
            recounts.Recount(
                subject.movement.watch.gauge,
                subject.movement.watch.aggregation,
                subject.movement.watch.unique_property,
                [event.event_id for _, event in subject.movement.entries],
            )
            for subject in subjects
        ]
        counted = await recounts.recount(self._connection, self._organization_id, wanted)
        for subject, (tally, count) in zip(subjects, counted, strict=True):
            subject.before, subject.untouched = tally, count == 0
        unique = [
            item
            for item, (_, count) in zip(wanted, counted, strict=True)
            if item.aggregation is Aggregation.UNIQUE_COUNT and count
        ]
        if unique:
            await recounts.recount_values(self._connection, self._organization_id, unique)

    async def _find_unseen_values(self, subjects: Sequence[Subject]) -> None:
        values = [
            (subject.movement.watch.gauge, value)
            for subject in subjects
            if subject.movement.watch.aggregation is Aggregation.UNIQUE_COUNT
            for value in sorted(_unique_values(subject.movement))
        ]
        if not values:
            return
        new = await gauges.count_values(self._connection, self._organization_id, values)
        by_gauge = {subject.movement.watch.gauge.gauge_id: subject for subject in subjects}
        for gauge_id, value in new:
            tally = by_gauge[gauge_id].before
            assert tally is not None
            tally.unseen.add(value)

    def _evaluate(
        self,
        subject: Subject,
        states: Mapping[tuple[UUID, str], StoredState],
        first_looks: FirstLooks,
        quiet: Set[tuple[UUID, str]],
        found: list[Found],
        visited: list[gauges.Visited],
        changed: list[StoredState],
    ) -> None:
        watch, tally = subject.movement.watch, subject.before
        assert tally is not None
        gauge, reading = watch.gauge, subject.reading
        if reading is not None and reading.value is None:
            visited.append(gauges.Visited(gauge, tally.value, tally.latest_time, None, None, self._epoch))
            return
        base, steps, scale = _path(subject)
        above: list[Decimal] = []
        below: list[Decimal] = []
        for rule in watch.alerts:
            if (gauge.gauge_id, rule.alert_id) in quiet:
                continue
            stored = states.get((gauge.gauge_id, rule.alert_id))
            forgotten = rule.alert_id == subject.forgotten
            if stored is None or forgotten or stored.alert_version < rule.reset_version:
                state = AlertState()
            else:
                state = stored.state
            ladder = rule.ladder_for(gauge.group).with_limit(watch.limit)
            path: Sequence[Step] = steps
            if reading is not None:
                if not forgotten and first_looks.keeps_reading(rule, subject.visited_epoch, new=subject.first_look):
                    state, path = mark_silently(ladder, steps[0].value, self._now), []
            elif (subject.stale or forgotten) and not subject.untouched:
                if not forgotten and first_looks.keeps(rule, subject.visited_epoch, gauge.period):
                    state = mark_silently(ladder, base, self._now)
                else:
                    path = [Step(base, None), *steps]
            evaluation = evaluate(ladder, state, base, path, self._now, rule.retired_by_key)
            sequence = stored.sequence if stored else 0
            limit = watch.limit if rule.of_limits else None
            notification = self._notification(rule, gauge, sequence + 1, evaluation.transitions, limit)
            late = gauge.period.end <= self._now
            found += [
                Found(one, rule, gauge, late, self._now, notification if one.notified else None, limit)
                for one in evaluation.transitions
            ]
            # A gauge that came and went within this commit is past nothing, but its numbering has to go on.
            if evaluation.state.reached or stored or evaluation.transitions:
                new = self._stored(rule, gauge, evaluation.state, stored, notification, bool(evaluation.transitions))
                if evaluation.transitions:
                    new = replace(new, change_reason=_reason(subject, evaluation.transitions[-1]))
                if new != stored:
                    changed.append(new)
            highest, lowest = trip_levels(ladder, evaluation.state)
            above += [] if highest is None else [gauge.measure.stored(highest, scale)]
            below += [] if lowest is None else [gauge.measure.stored(lowest, scale)]
        visited.append(
            gauges.Visited(
                gauge,
                tally.value if reading is None or reading.value is None else reading.value,
                tally.latest_time,
                min(above, default=None),
                max(below, default=None),
                self._epoch,
                scale,
            )
        )

    def _notification(
        self,
        rule: AlertRule,
        gauge: Gauge,
        sequence: int,
        transitions: Sequence[Transition],
        limit: Decimal | None,
    ) -> Notification | None:
        told = tuple(transition for transition in transitions if transition.notified)
        if not told:
            return None
        late = gauge.period.end <= self._now
        return Notification(self._organization, rule, gauge, sequence, self._now, late, told, limit)

    def _stored(
        self,
        rule: AlertRule,
        gauge: Gauge,
        state: AlertState,
        stored: StoredState | None,
        notification: Notification | None,
        moved: bool,
    ) -> StoredState:
        return StoredState(
            gauge=gauge,
            alert_id=rule.alert_id,
            alert_version=rule.version,
            state=state,
            sequence=notification.sequence if notification else stored.sequence if stored else 0,
            change_time=self._now if moved or stored is None else stored.change_time,
            change_reason=REASON_USAGE if moved else stored.change_reason if stored else REASON_DEFINITION,
        )


def _path(subject: Subject) -> tuple[Decimal, list[Step], Decimal | None]:
    """What the gauge showed before, what it shows step by step, and its scale. Counts the entries."""
    watch, tally, reading = subject.movement.watch, subject.before, subject.reading
    assert tally is not None
    measure = watch.gauge.measure
    if reading is not None:
        assert reading.value is not None
        value = measure.shown(reading.value, reading.scale)
        # A balance that nobody has looked at, or a percentage of nothing, did not read 0 before.
        unknown = measure.invoices is None and (
            subject.visited_epoch == NEVER_VISITED or (subject.scale is None) != (reading.scale is None)
        )
        base = value if unknown else measure.shown(tally.value, subject.scale)
        return base, [Step(value, subject.cause)], reading.scale
    base = measure.shown(tally.value, subject.scale)
    steps = []
    for amount, event in subject.movement.entries:
        unique_value = event.properties.get(watch.unique_property) if watch.unique_property else None
        tally.add(watch.aggregation, amount, event.event_time, unique_value)
        value = measure.shown(tally.value, subject.scale)
        steps.append(Step(value, Cause(event.event_id, event.event_time)))
    return base, steps, subject.scale


def _reason(subject: Subject, last: Transition) -> str:
    """What made the last transition happen."""
    if subject.reading is not None:
        return REASON_DEFINITION if subject.first_look else REASON_FACT
    return REASON_DEFINITION if last.cause is None else REASON_USAGE


def _unique_values(movement: Movement) -> set[str]:
    name = movement.watch.unique_property
    return {event.properties[name] for _, event in movement.entries if name is not None and name in event.properties}


def before_move(movement: Movement, moved: gauges.Moved, created_customers: set[str]) -> Subject:
    """The subject of an additive gauge that `gauges.move` has moved."""
    with exact_arithmetic():
        tally = Tally(moved.value - movement.total)
    subject = _subject(movement, tally, moved.visited_epoch, created_customers)
    subject.scale = moved.scale
    return subject


def before_fold(movement: Movement, locked: gauges.Locked, created_customers: set[str]) -> Subject:
    """The subject of a gauge that `gauges.lock` has locked."""
    tally = Tally(locked.value, locked.latest_event_time)
    return _subject(movement, tally, locked.visited_epoch, created_customers)


def _subject(movement: Movement, tally: Tally, visited_epoch: int, created_customers: set[str]) -> Subject:
    watch = movement.watch
    if visited_epoch >= watch.continuous_since_epoch and visited_epoch != NEVER_VISITED:
        return Subject(movement, visited_epoch, tally)
    if visited_epoch == NEVER_VISITED and (
        watch.gauge.customer_id in created_customers or watch.counted_from_the_start
    ):
        return Subject(movement, visited_epoch, Tally(), untouched=True)
    return Subject(movement, visited_epoch, None)

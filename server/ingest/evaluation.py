"""The evaluation of gauges inside a transaction that has locked them; ingest and visits share it."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from evaluator.aggregation import Aggregation
from evaluator.alerts import AlertRule
from evaluator.amounts import exact_arithmetic
from evaluator.exclusions import Excluded
from evaluator.gauges import Gauge
from evaluator.notifications import Notification
from evaluator.transitions import AlertState, Cause, Step, Transition, evaluate, mark_silently, trip_levels
from runtime.turns import Slices
from server.ingest.first_looks import FirstLooks
from server.ingest.guard import Guarded, Look, guard
from server.ingest.subjects import Subject, path_of, unique_values
from store import evaluations, gauges, recounts
from store.evaluations import StoredState
from store.gauges import Connection

REASON_USAGE = "USAGE"  # an event moved the gauge
REASON_FACT = "FACT"  # the billing system posted a fact, or time brought one due
REASON_DEFINITION = "DEFINITION"  # the alert or the customer's facts are what changed

PART = 500  # gauges that are evaluated at a time: whoever has much keeps this process from nobody for long


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
            slices = Slices(self._organization_id)
            await slices.begin()
            for subject in subjects:
                await slices.pause()
                self._evaluate(subject, states, first_looks, guarded.quiet, found, visited, changed)
        notifications: dict[str, evaluations.Record] = {}
        for one in found:
            if one.notification is not None:
                notifications[one.notification.notification_id] = one.notification
                await slices.pause()
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
            for value in sorted(unique_values(subject.movement))
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
        base, steps, scale = path_of(subject)
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


def _reason(subject: Subject, last: Transition) -> str:
    """What made the last transition happen."""
    if subject.reading is not None:
        return REASON_DEFINITION if subject.first_look else REASON_FACT
    return REASON_DEFINITION if last.cause is None else REASON_USAGE

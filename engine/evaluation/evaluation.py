"""The evaluation of gauges inside a transaction that has locked them; ingest and visits share it."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from engine.evaluation.careful import Item, Probe, Unrecordable, guilty_events
from engine.evaluation.first_looks import FirstLooks
from engine.evaluation.guard import Guarded, Look, guard
from engine.evaluation.subjects import Subject, ladder_of, path_of, unique_values
from evaluator.aggregation import Aggregation, Tally
from evaluator.alerts import AlertRule
from evaluator.amounts import exact_arithmetic
from evaluator.change_reasons import ChangeReason
from evaluator.exclusions import Excluded
from evaluator.gauges import Gauge
from evaluator.notifications import Notification
from evaluator.transitions import AlertState, Cause, Step, Transition, evaluate, silent_state, trip_levels
from runtime.turns import Slices
from store.alerts.states import StoredState, read_states, write_states
from store.notifications.writing import NewNotification, write_notifications
from store.postgres.database import DriverConnection
from store.usage import gauges, recounts

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
        self,
        connection: DriverConnection,
        organization_id: int,
        organization: str,
        epoch: int,
        now: datetime,
        *,
        careful: bool = False,
    ) -> None:
        """careful: `run` finds out what cannot be stored, see `engine.evaluation.careful`."""
        self._connection = connection
        self._organization_id = organization_id
        self._organization = organization
        self._epoch = epoch
        self._now = now
        self._careful = careful

    async def run(self, subjects: Sequence[Subject]) -> Result:
        """Counts, evaluates and writes everything but the events themselves.

        Raises Unrecordable where it is careful and some of it cannot be stored.
        """
        unrecordable = Unrecordable(None)
        await self._recount([subject for subject in subjects if subject.before is None])
        await self._find_unseen_values(subjects)
        guarded = await self._guard(subjects)
        result = Result([], [], guarded.excluded)
        for start in range(0, len(subjects), PART):
            await self._look(subjects[start : start + PART], guarded, result, unrecordable)
        if unrecordable.cause is not None:
            raise unrecordable
        if guarded.disabled:
            await write_notifications(self._connection, self._organization_id, guarded.disabled, self._now)
        return result

    async def _look(
        self, subjects: Sequence[Subject], guarded: Guarded, result: Result, unrecordable: Unrecordable
    ) -> None:
        """Evaluates gauges and writes what that came to; adds it to the result.

        Where it is careful and not all can be stored, adds that to `unrecordable` and writes nothing.
        """
        all_gauges = [subject.movement.watch.gauge for subject in subjects]
        states = await read_states(self._connection, self._organization_id, all_gauges)
        looks = [
            (rule, one.visited_epoch)
            for one in subjects
            if one.stale or one.first_look
            for rule in one.movement.watch.alerts
        ]
        first_looks = await FirstLooks.read(self._connection, self._organization_id, looks)
        found: list[Found] = []
        visited: list[gauges.Evaluated] = []
        changed: list[StoredState] = []
        before = [replace(_tally(one), unseen=set(_tally(one).unseen)) for one in subjects] if self._careful else []
        with exact_arithmetic():
            slices = Slices(self._organization_id)
            await slices.begin()
            for subject in subjects:
                await slices.pause()
                self._evaluate(subject, states, first_looks, guarded.quiet, found, visited, changed)
        notifications: dict[str, NewNotification] = {}
        for one in found:
            if one.notification is not None:
                notifications[one.notification.notification_id] = one.notification
                await slices.pause()
        if self._careful:
            probe = Probe(self._connection, self._organization_id, self._now)
            if refused := await probe.refused(_items(subjects, found, changed)):
                unrecordable.cause = probe.error
                with exact_arithmetic():
                    self._accuse(refused, dict(zip(subjects, before, strict=True)), states, first_looks, unrecordable)
                return
        async with self._connection.pipeline():
            await gauges.write(self._connection, self._organization_id, visited, self._now)
            if changed:
                await write_states(self._connection, self._organization_id, changed)
            if notifications:
                await write_notifications(
                    self._connection, self._organization_id, list(notifications.values()), self._now
                )
        result.found.extend(found)
        result.values.extend((item.gauge, item.value) for item in visited)

    def _accuse(
        self,
        refused: Sequence[Item],
        before: Mapping[Subject, Tally],
        states: Mapping[tuple[UUID, str], StoredState],
        first_looks: FirstLooks,
        unrecordable: Unrecordable,
    ) -> None:
        """Finds the events on whose account something would be stored that cannot be."""
        for item in refused:
            subject, rule = item.subject, item.rule
            gauge = subject.movement.watch.gauge
            if not subject.movement.entries or subject.reading is not None:
                unrecordable.customers.setdefault(gauge.customer_id, rule.alert_id)
                continue
            tally = before[subject]
            state, lead = self._beginning(
                subject,
                rule,
                states.get((gauge.gauge_id, rule.alert_id)),
                gauge.measure.shown(tally.value, subject.scale),
                first_looks,
            )
            for event in guilty_events(item, tally, state, lead, self._now):
                unrecordable.events.setdefault(event.identity, rule.alert_id)

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
        visited: list[gauges.Evaluated],
        changed: list[StoredState],
    ) -> None:
        watch, tally = subject.movement.watch, subject.before
        assert tally is not None
        gauge, reading = watch.gauge, subject.reading
        if reading is not None and reading.value is None:
            visited.append(gauges.Evaluated(gauge, tally.value, tally.latest_time, None, None, self._epoch))
            return
        base, steps, scale = path_of(subject)
        above: list[Decimal] = []
        below: list[Decimal] = []
        for rule in watch.alerts:
            if (gauge.gauge_id, rule.alert_id) in quiet:
                continue
            stored = states.get((gauge.gauge_id, rule.alert_id))
            ladder = ladder_of(watch, rule)
            state, lead = self._beginning(subject, rule, stored, base, first_looks)
            path: Sequence[Step] = [*lead, *steps] if lead else steps
            if (
                reading is not None
                and rule.alert_id != subject.forgotten
                and first_looks.keeps_reading(rule, subject.visited_epoch, new=subject.first_look)
            ):
                state, path = silent_state(ladder, steps[0].value, self._now), []
            evaluation = evaluate(ladder, state, base, path, self._now, rule.retired_by_key)
            sequence = stored.sequence if stored else 0
            limit = watch.limit if rule.has_percentages else None
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
            gauges.Evaluated(
                gauge,
                tally.value if reading is None or reading.value is None else reading.value,
                tally.latest_time,
                min(above, default=None),
                max(below, default=None),
                self._epoch,
                scale,
                tally.latest_id,
            )
        )

    def _beginning(
        self,
        subject: Subject,
        rule: AlertRule,
        stored: StoredState | None,
        base: Decimal,
        first_looks: FirstLooks,
    ) -> tuple[AlertState, list[Step]]:
        """What an alert knows of a gauge that showed `base`, and what it steps through ahead of the events."""
        forgotten = rule.alert_id == subject.forgotten
        state = (
            AlertState() if stored is None or forgotten or stored.alert_version < rule.reset_version else stored.state
        )
        if subject.reading is not None or subject.untouched or not (subject.stale or forgotten):
            return state, []
        watch = subject.movement.watch
        if not forgotten and first_looks.keeps(rule, subject.visited_epoch, watch.gauge.period):
            return silent_state(ladder_of(watch, rule), base, self._now), []
        return state, [Step(base, None)]

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
            change_reason=ChangeReason.USAGE if moved else _last_reason(stored),
        )


def _tally(subject: Subject) -> Tally:
    assert subject.before is not None
    return subject.before


def _items(subjects: Sequence[Subject], found: Sequence[Found], changed: Sequence[StoredState]) -> list[Item]:
    """What is to be stored, by gauge and alert."""
    by_gauge = {subject.movement.watch.gauge.gauge_id: subject for subject in subjects}
    notifications = {(one.gauge.gauge_id, one.rule.alert_id): one.notification for one in found if one.notification}
    return [
        Item(subject, rule, one, notifications.get((one.gauge.gauge_id, one.alert_id)))
        for one in changed
        for subject in (by_gauge[one.gauge.gauge_id],)
        for rule in subject.movement.watch.alerts
        if rule.alert_id == one.alert_id
    ]


def _last_reason(stored: StoredState | None) -> ChangeReason | None:
    if stored is None:
        return ChangeReason.DEFINITION
    return None if stored.change_reason is None else ChangeReason(stored.change_reason)


def _reason(subject: Subject, last: Transition) -> ChangeReason:
    """What made the last transition happen."""
    if subject.reading is not None:
        return ChangeReason.DEFINITION if subject.first_look else ChangeReason.FACT
    return ChangeReason.DEFINITION if last.cause is None else ChangeReason.USAGE

"""The evaluation of one gauge: each alert that watches it is followed through the gauge's steps. Does no I/O."""

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from uuid import UUID

from engine.evaluation.results import RecordedTransition
from engine.evaluation.silence import Silence
from engine.evaluation.subjects import Subject, path_of, thresholds_of
from evaluator.alerts import AlertRule
from evaluator.change_reasons import ChangeReason
from evaluator.notifications import Notification
from evaluator.thresholds import ThresholdSet
from evaluator.transitions import AlertState, Evaluation, Step, Transition, evaluate, silent_state, trip_levels
from store.alerts.states import StoredState
from store.usage import gauges

ALERTS_AT_ONCE = 20  # alerts that are evaluated on one gauge without a pause


@dataclass(frozen=True)
class Findings:
    """What the evaluation of some gauges found, to be written."""

    transitions: list[RecordedTransition] = field(default_factory=list)
    evaluated: list[gauges.Evaluated] = field(default_factory=list)
    states: list[StoredState] = field(default_factory=list)  # those that changed

    @property
    def size(self) -> int:
        """How many states and transitions there are."""
        return len(self.states) + len(self.transitions)

    def take(self) -> "Findings":
        """What was found so far, which these findings have no more."""
        taken = Findings([*self.transitions], [*self.evaluated], [*self.states])
        for own in (self.transitions, self.evaluated, self.states):
            own.clear()
        return taken


@dataclass(frozen=True)
class GaugeEvaluation:
    """Evaluates gauges one after the other, and collects what it finds. Must run under `exact_arithmetic`.

    organization: its name. epoch: the rules epoch that the gauges get, unless a subject has another. states: those
    stored, by gauge id and alert id. not_evaluated: gauge ids and alert ids that are left out.
    """

    organization: str
    epoch: int
    now: datetime
    states: Mapping[tuple[UUID, str], StoredState]
    silence: Silence
    not_evaluated: Set[tuple[UUID, str]]
    findings: Findings = field(default_factory=Findings)

    def evaluate(self, subject: Subject) -> Iterator[None]:
        """Evaluates all alerts that watch a gauge; continue it to its end. Yields where the work may be interrupted.

        Thousands of alerts can watch one gauge. Until the end, findings have what was found of the gauge so far.
        """
        watch, tally, reading = subject.movement.watch, subject.tally, subject.reading
        gauge = watch.gauge
        epoch = self.epoch if subject.epoch is None else subject.epoch
        if reading is not None and reading.value is None:
            nothing = gauges.Evaluated(gauge, tally.value, tally.latest_time, None, None, epoch)
            self.findings.evaluated.append(nothing)
            return
        base, steps, scale = path_of(subject)
        rules: Sequence[AlertRule] = watch.alerts
        above: list[Decimal] = []
        below: list[Decimal] = []
        if reading is None:
            peak = max(base, max((step.value for step in steps), default=base))
            rules, following = watch.watching.concerned(peak, self._with_state.get(gauge.gauge_id, ()))
            above += [] if following is None else [following]
        for number, rule in enumerate(rules, 1):
            key = gauge.gauge_id, rule.alert_id
            if key in self.not_evaluated:
                continue
            thresholds = thresholds_of(watch, rule)
            state = self._evaluate_alert(subject, rule, thresholds, self.states.get(key), base, steps)
            highest, lowest = trip_levels(thresholds, state)
            above += [] if highest is None else [gauge.measure.stored(highest, scale)]
            below += [] if lowest is None else [gauge.measure.stored(lowest, scale)]
            if not number % ALERTS_AT_ONCE:
                yield
        self.findings.evaluated.append(
            gauges.Evaluated(
                gauge,
                tally.value if reading is None or reading.value is None else reading.value,
                tally.latest_time,
                min(above, default=None),
                max(below, default=None),
                epoch,
                scale,
                tally.latest_id,
            )
        )

    @cached_property
    def _with_state(self) -> Mapping[UUID, Collection[str]]:
        """The ids of the alerts that have a state, by gauge id."""
        found: dict[UUID, list[str]] = {}
        for gauge_id, alert_id in self.states:
            found.setdefault(gauge_id, []).append(alert_id)
        return found

    def beginning(
        self, subject: Subject, rule: AlertRule, stored: StoredState | None, base: Decimal
    ) -> tuple[AlertState, list[Step]]:
        """The state of an alert on a gauge that showed `base`, and the steps that come before those of the events."""
        reset = rule.alert_id == subject.reset_alert
        state = AlertState() if stored is None or reset or stored.alert_version < rule.reset_version else stored.state
        if subject.reading is not None or subject.untouched or not (subject.stale or reset):
            return state, []
        watch = subject.movement.watch
        if not reset and self.silence.covers(rule, subject.rules_epoch, watch.gauge.period):
            return silent_state(thresholds_of(watch, rule), base, self.now), []
        return state, [Step(base, None)]

    def _evaluate_alert(
        self,
        subject: Subject,
        rule: AlertRule,
        thresholds: ThresholdSet,
        stored: StoredState | None,
        base: Decimal,
        steps: Sequence[Step],
    ) -> AlertState:
        """Evaluates one alert on a gauge; returns its state after the steps."""
        state, lead = self.beginning(subject, rule, stored, base)
        path: Sequence[Step] = [*lead, *steps] if lead else steps
        if (
            subject.reading is not None
            and rule.alert_id != subject.reset_alert
            and self.silence.covers_reading(rule, subject.rules_epoch, backfilled=subject.backfilled)
        ):
            state, path = silent_state(thresholds, steps[0].value, self.now), []
        retired = rule.retired_for(subject.movement.watch.gauge.group, state.reached)
        evaluation = evaluate(thresholds, state, base, path, self.now, retired)
        notification = None
        if evaluation.transitions:
            notification = self._collect_transitions(subject, rule, stored, evaluation.transitions)
        self._collect_state(subject, rule, stored, evaluation, notification)
        return evaluation.state

    def _collect_transitions(
        self, subject: Subject, rule: AlertRule, stored: StoredState | None, transitions: Sequence[Transition]
    ) -> Notification | None:
        """Collects the transitions of one alert; returns the notification of them, if any threshold asks for it."""
        watch = subject.movement.watch
        gauge, limit = watch.gauge, watch.limit if rule.has_percentages else None
        late = gauge.period.end <= self.now
        notified = tuple(one for one in transitions if one.notified)
        notification = None
        if notified:
            sequence = (stored.sequence if stored else 0) + 1
            notification = Notification(self.organization, rule, gauge, sequence, self.now, late, notified, limit)
        self.findings.transitions.extend(
            RecordedTransition(one, rule, gauge, late, self.now, notification if one.notified else None, limit)
            for one in transitions
        )
        return notification

    def _collect_state(
        self,
        subject: Subject,
        rule: AlertRule,
        stored: StoredState | None,
        evaluation: Evaluation,
        notification: Notification | None,
    ) -> None:
        """Collects the state of one alert if it has to be stored.

        A gauge that came and went within this commit has reached nothing, but its sequence has to go on.
        """
        state, transitions = evaluation.state, evaluation.transitions
        if not (state.reached or stored or transitions):
            return
        reason = stored.change_reason if stored else ChangeReason.DEFINITION
        new = StoredState(
            gauge=subject.movement.watch.gauge,
            alert_id=rule.alert_id,
            alert_version=rule.version,
            state=state,
            sequence=notification.sequence if notification else stored.sequence if stored else 0,
            change_time=self.now if transitions or stored is None else stored.change_time,
            change_reason=_reason(subject, transitions[-1]) if transitions else reason,
        )
        if new != stored:
            self.findings.states.append(new)


def _reason(subject: Subject, last: Transition) -> ChangeReason:
    """What made the last transition happen."""
    if subject.reading is not None:
        return ChangeReason.DEFINITION if subject.backfilled else ChangeReason.FACT
    return ChangeReason.DEFINITION if last.cause is None else ChangeReason.USAGE

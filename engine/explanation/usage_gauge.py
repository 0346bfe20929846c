"""One gauge of usage or cost, explained: it is evaluated as the next event of it would be, and nothing is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from engine.evaluation.gauge_evaluation import GaugeEvaluation
from engine.evaluation.silence import Silence
from engine.evaluation.subjects import Subject, path_of, thresholds_of
from engine.explanation.findings import ExplainedGauge, LimitSource, Next, Reason, end_of_grace
from engine.explanation.next_notification import next_notification
from evaluator.alerts import AlertRule
from evaluator.amounts import exact_arithmetic
from evaluator.gauges import Group
from evaluator.limits import Limits
from evaluator.thresholds import ThresholdSet, TransitionKind
from evaluator.transitions import AlertState, Evaluation, evaluate
from evaluator.watched_gauges import CustomerMeasure
from store.alerts.states import StoredState

_NO_STATE = AlertState()


@dataclass(frozen=True)
class Situation:
    """What decides about the gauges of one alert and customer.

    groups: how many the alert has met in the period, and the most that it may meet; None where it has no groups.
    """

    rule: AlertRule
    now: datetime
    grace: timedelta
    silence: Silence
    groups: tuple[int, int] | None = None


def explain_usage_gauge(
    situation: Situation,
    measured: CustomerMeasure,
    subject: Subject,
    stored: StoredState | None,
    update_time: datetime | None,
    limit: LimitSource | None,
) -> ExplainedGauge:
    """Explains a gauge. subject: without entries; `before` is None where the value is not known.

    stored: the state of the alert on it. update_time: when it last moved; None if it does not exist.
    """
    rule, watch = situation.rule, subject.movement.watch
    with exact_arithmetic():
        thresholds = thresholds_of(watch, rule)
        recorded = _NO_STATE if stored is None or stored.alert_version < rule.reset_version else stored.state
        value, settled = _settled(situation, subject, stored, thresholds)
        awaits = settled is None or _differ(settled.state, recorded)
        has_room = not _beyond_groups(situation, subject)
        following: Next | None = None
        if settled is not None and value is not None and has_room:
            following = next_notification(thresholds, settled, value, measured.aggregation, situation.now)
    return ExplainedGauge(
        gauge=watch.gauge,
        value=value,
        thresholds=thresholds,
        state=recorded,
        reason=_reason(
            thresholds, recorded, awaits=awaits, has_room=has_room, nothing=_nothing(subject, update_time)
        ),
        awaits=awaits,
        next=following,
        sequence=stored.sequence if stored else 0,
        change_time=stored.change_time if stored else None,
        change_reason=stored.change_reason if stored else None,
        update_time=update_time,
        aggregation=measured.aggregation,
        cycle=measured.cycle,
        late_until=end_of_grace(watch.gauge.period, situation.grace),
        limit=limit,
    )


def reason_of_state(thresholds: ThresholdSet, state: AlertState) -> Reason | None:
    """What the reached thresholds of a gauge say; None when none is reached."""
    by_key = {one.key: one for one in (*thresholds.fixed, *thresholds.percentages)}
    if thresholds.recurring is not None:
        by_key[thresholds.recurring.key] = thresholds.recurring
    reached = [(by_key[key], known) for key, known in state.reached.items() if key in by_key]
    if not reached:
        return None
    loud = [threshold for threshold, known in reached if not known.silent]
    if not loud:
        return Reason.REACHED_SILENTLY
    if any(TransitionKind.REACHED in threshold.notify_on for threshold in loud):
        return Reason.NOTIFIED
    return Reason.NOT_REQUESTED


def reason_of_thresholds(thresholds: ThresholdSet) -> Reason | None:
    """Why no value can reach any threshold; None when one can."""
    if thresholds.fixed or thresholds.recurring is not None:
        return None
    return Reason.NO_LIMIT if thresholds.percentages else Reason.NO_THRESHOLDS


def limit_source(
    limits: tuple[Limits, ...], measured: CustomerMeasure, plan_id: str | None, group: Group
) -> LimitSource | None:
    """The limit of a gauge, and whether it is the customer's or its plan's. limits: of `Router.limits_of`."""
    for index, one in enumerate(limits):
        if (amount := one.find(measured.measure.unit, group)) is not None:
            return LimitSource(amount, plan_id if index else None)
    return None


def _settled(
    situation: Situation, subject: Subject, stored: StoredState | None, thresholds: ThresholdSet
) -> tuple[Decimal | None, Evaluation | None]:
    """The value of the gauge, and its evaluation as it is now, before any event; None where they are not known."""
    if subject.before is None:
        return None, None
    rule, gauge = situation.rule, subject.movement.watch.gauge
    base, _, _ = path_of(subject)
    states: Mapping[tuple[UUID, str], StoredState] = {}
    evaluation = GaugeEvaluation("", 0, situation.now, states, situation.silence, frozenset())
    state, lead = evaluation.beginning(subject, rule, stored, base)
    retired = rule.retired_for(gauge.group, state.reached)
    return base, evaluate(thresholds, state, base, lead, situation.now, retired)


def _differ(one: AlertState, other: AlertState) -> bool:
    """Whether two states differ in what is reached, apart from the times."""
    return {key: (known.level, known.silent) for key, known in one.reached.items()} != {
        key: (known.level, known.silent) for key, known in other.reached.items()
    }


def _beyond_groups(situation: Situation, subject: Subject) -> bool:
    """Whether the gauge is of a group that is new to an alert which has met as many groups as it may."""
    rule = situation.rule
    if situation.groups is None or not rule.fans_out or subject.rules_epoch >= rule.watching_epoch:
        return False
    met, most = situation.groups
    return met >= most


def _nothing(subject: Subject, update_time: datetime | None) -> bool:
    """Whether no event has been counted on the gauge."""
    return update_time is None and (subject.untouched or (subject.before is not None and not subject.before.value))


def _reason(thresholds: ThresholdSet, state: AlertState, *, awaits: bool, has_room: bool, nothing: bool) -> Reason:
    if (found := reason_of_state(thresholds, state)) is not None:
        return found
    if awaits:
        return Reason.NOT_EVALUATED_YET
    if (found := reason_of_thresholds(thresholds)) is not None:
        return found
    if not has_room:
        return Reason.GROUP_LIMIT
    return Reason.NOTHING_COUNTED if nothing else Reason.NOT_REACHED

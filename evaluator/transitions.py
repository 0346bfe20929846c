"""The evaluation: which thresholds of one alert the path of one gauge reaches and resolves.

`evaluate` is the only function that decides this. Ingest, backfills, timers, simulations and tests all call it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType

from evaluator.thresholds import MAX_RECURRENCES_REPORTED, Direction, Threshold, ThresholdSet, TransitionKind

_NO_THRESHOLDS: Mapping[str, Threshold] = MappingProxyType({})


@dataclass(frozen=True)
class Cause:
    """What moved a gauge: a usage event, the voiding of events, or time alone.

    event_id: the caller's id of the event; unset where time moved the gauge. event_time: the time of the event as the
    caller gave it, or the time at which the gauge changed. voided_events: how many events of the gauge were voided,
    the latest of which this one is; 0 where none was.
    """

    event_id: str | None
    event_time: datetime
    voided_events: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """A value that a gauge took, and its cause (None where an alert or a fact is new instead)."""

    value: Decimal
    cause: Cause | None


@dataclass(frozen=True)
class Reached:
    """The state of a threshold that is reached.

    level: the level; of a recurring threshold the furthest level reached. time: when it was first found reached.
    silent: reached before the alert was evaluated, so no notification was sent; none is sent when it resolves either.
    recurrences, silent_recurrences: of a recurring threshold, how many levels are reached, and how many of them
    silently.
    """

    level: Decimal
    time: datetime
    silent: bool = False
    recurrences: int = 0
    silent_recurrences: int = 0


@dataclass(frozen=True)
class AlertState:
    """The reached thresholds of one alert on one gauge, by `Threshold.key`."""

    reached: Mapping[str, Reached] = field(default_factory=dict)

    @property
    def in_alarm(self) -> bool:
        """Whether any threshold is reached."""
        return bool(self.reached)


@dataclass(frozen=True)
class Transition:
    """A threshold was reached or resolved by one step of a gauge.

    level: the level of the threshold on this gauge. furthest: no other transition of this kind in the same evaluation
    has a level further on; in a notification, none of those that it shows. notified: whether the threshold asks for
    notifications of this kind.
    """

    kind: TransitionKind
    threshold: Threshold
    level: Decimal
    previous_value: Decimal
    value: Decimal
    cause: Cause | None
    notified: bool
    furthest: bool = False


@dataclass(frozen=True)
class Evaluation:
    """The state after all steps, and the transitions in the order in which they happened."""

    state: AlertState
    transitions: tuple[Transition, ...]


def evaluate(
    thresholds: ThresholdSet,
    state: AlertState,
    previous_value: Decimal,
    steps: Iterable[Step],
    now: datetime,
    retired: Mapping[str, Threshold] = _NO_THRESHOLDS,
) -> Evaluation:
    """Follows a gauge from `previous_value` through `steps`.

    A step that brings the value to the level of a threshold or beyond it makes the threshold REACHED; a step that
    brings the value back makes it RESOLVED. One step can do so to several thresholds, which are reported in the order
    in which the value met them. A threshold that is reached already is not reported again.

    A reached threshold that the alert does not have any more (`retired`, by key), or whose limit is gone, is
    RESOLVED. So is a recurring threshold whose levels have moved, at its furthest level; its new levels are then
    REACHED.
    Must run under `exact_arithmetic`.
    """
    current = _keys(thresholds)
    reached = {
        key: known
        for key, known in state.reached.items()
        if key in current and not (known.recurrences and known.level != thresholds.recurring_level(known.recurrences))
    }
    here = Step(previous_value, None)
    gone = retired
    if thresholds.percentages:
        gone = {**retired, **{threshold.key: threshold for threshold in thresholds.percentages}}
    left = [
        _transition(TransitionKind.RESOLVED, gone[key], known.level, previous_value, here)
        for key, known in state.reached.items()
        if key not in reached and key in gone and not known.silent
    ]
    transitions = _in_order(thresholds, TransitionKind.RESOLVED, left)
    for step in steps:
        fixed = _fixed(thresholds, reached, previous_value, step, now)
        recurring = _recurring(thresholds, reached, previous_value, step, now)
        transitions += _in_order(thresholds, TransitionKind.RESOLVED, recurring + fixed)
        transitions += _in_order(thresholds, TransitionKind.REACHED, fixed + recurring)
        previous_value = step.value
    return Evaluation(AlertState(reached), mark_furthest(transitions, thresholds.direction))


def mark_furthest(transitions: Iterable[Transition], direction: Direction) -> tuple[Transition, ...]:
    """Marks the transition of each kind with the furthest level in the direction of that kind; of equals the last."""
    marked = list(transitions)
    for kind in TransitionKind:
        outward = (direction is Direction.RISING) is (kind is TransitionKind.REACHED)
        best: int | None = None
        for index, transition in enumerate(marked):
            if transition.kind is kind and (
                best is None
                or transition.level == marked[best].level
                or (transition.level > marked[best].level) is outward
            ):
                best = index
        if best is not None:
            marked[best] = replace(marked[best], furthest=True)
    return tuple(marked)


def silent_state(thresholds: ThresholdSet, value: Decimal, now: datetime) -> AlertState:
    """The state of a gauge whose past is not reported: what is reached at `value` is reached silently."""
    reached = {
        threshold.key: Reached(threshold.value, now, silent=True)
        for threshold in thresholds.fixed
        if thresholds.is_reached(value, threshold)
    }
    number = thresholds.recurrences_reached(value)
    if number and thresholds.recurring is not None:
        level = thresholds.recurring_level(number)
        reached[thresholds.recurring.key] = Reached(level, now, True, number, number)
    return AlertState(reached)


def trip_levels(thresholds: ThresholdSet, state: AlertState) -> tuple[Decimal | None, Decimal | None]:
    """The nearest levels above and below the gauge at which `evaluate` may find a transition.

    A value strictly between them changes nothing; at a level itself `evaluate` decides. None: no such level.
    """
    ahead: list[Decimal] = []
    behind: list[Decimal] = []
    for threshold in thresholds.fixed:
        if threshold.key not in state.reached:
            ahead.append(threshold.value)
        else:
            behind.append(threshold.value if threshold.resolve_value is None else threshold.resolve_value)
    if thresholds.recurring is not None:
        known = state.reached.get(thresholds.recurring.key)
        number = known.recurrences if known else 0
        ahead.append(thresholds.recurring_level(number + 1))
        if number:
            behind.append(thresholds.recurring_level(number))
    if thresholds.direction is Direction.RISING:
        return min(ahead, default=None), max(behind, default=None)
    return min(behind, default=None), max(ahead, default=None)


def _keys(thresholds: ThresholdSet) -> set[str]:
    keys = {threshold.key for threshold in thresholds.fixed}
    if thresholds.recurring is not None:
        keys.add(thresholds.recurring.key)
    return keys


def _fixed(
    thresholds: ThresholdSet, reached: dict[str, Reached], previous_value: Decimal, step: Step, now: datetime
) -> list[Transition]:
    """The fixed thresholds that one step reached (nearest first) or resolved (furthest first)."""
    found = []
    for threshold in thresholds.fixed:
        known = reached.get(threshold.key)
        if known is None and thresholds.is_reached(step.value, threshold):
            reached[threshold.key] = Reached(threshold.value, now)
            found.append(_transition(TransitionKind.REACHED, threshold, threshold.value, previous_value, step))
        elif known is not None and known.level != threshold.value:  # the limit of a percentage threshold has changed
            reached[threshold.key] = replace(known, level=threshold.value)
    for threshold in reversed(thresholds.fixed):
        known = reached.get(threshold.key)
        if known is not None and thresholds.is_resolved(step.value, threshold):
            del reached[threshold.key]
            if not known.silent:
                found.append(_transition(TransitionKind.RESOLVED, threshold, threshold.value, previous_value, step))
    return found


def _recurring(
    thresholds: ThresholdSet, reached: dict[str, Reached], previous_value: Decimal, step: Step, now: datetime
) -> list[Transition]:
    """The levels of the recurring threshold that one step reached (nearest first) or resolved (furthest first)."""
    recurring = thresholds.recurring
    if recurring is None:
        return []
    known = reached.get(recurring.key)
    before, after = (known.recurrences if known else 0), thresholds.recurrences_reached(step.value)
    silent = min(known.silent_recurrences, after) if known else 0
    if after == before:
        return []
    if after:
        reached[recurring.key] = Reached(thresholds.recurring_level(after), now, silent == after, after, silent)
    else:
        del reached[recurring.key]
    if after > before:
        reported = range(max(before, after - MAX_RECURRENCES_REPORTED) + 1, after + 1)
    else:
        silent_before = known.silent_recurrences if known else 0
        reported = range(before, max(after, silent_before, before - MAX_RECURRENCES_REPORTED), -1)
    kind = TransitionKind.REACHED if after > before else TransitionKind.RESOLVED
    return [
        _transition(kind, recurring, thresholds.recurring_level(number), previous_value, step) for number in reported
    ]


def _in_order(thresholds: ThresholdSet, kind: TransitionKind, transitions: list[Transition]) -> list[Transition]:
    """Those of one kind: the nearest first when they were reached, the furthest first when they were resolved."""
    backwards = (thresholds.direction is Direction.RISING) is (kind is TransitionKind.RESOLVED)
    own = [transition for transition in transitions if transition.kind is kind]
    return sorted(own, key=lambda transition: transition.level, reverse=backwards)


def _transition(
    kind: TransitionKind, threshold: Threshold, level: Decimal, previous_value: Decimal, step: Step
) -> Transition:
    return Transition(kind, threshold, level, previous_value, step.value, step.cause, kind in threshold.notify_on)

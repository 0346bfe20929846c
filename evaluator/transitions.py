"""The evaluation: what the thresholds of one alert say about the path of one gauge.

This is the only place that knows what "reached" means. Ingest, the visits after an edit, and the tests all call
`evaluate`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType

from evaluator.thresholds import MAX_STEPS_REPORTED, Direction, Kind, Ladder, Threshold

_NOTHING: Mapping[str, Threshold] = MappingProxyType({})


@dataclass(frozen=True)
class Cause:
    """What moved a gauge: a usage event, or time alone.

    event_id: the caller's id of the event; unset where it was time. event_time: when the usage happened, in the
    customer's own words, or when time brought the gauge there.
    """

    event_id: str | None
    event_time: datetime


@dataclass(frozen=True, slots=True)
class Step:
    """A value that a gauge took, and what moved it there (nothing, where an alert or a fact is what is new)."""

    value: Decimal
    cause: Cause | None


@dataclass(frozen=True)
class Reached:
    """A threshold that a gauge is past.

    level: the line; of a recurring threshold the furthest rung. time: when it was first seen past it.
    silent: past it since before the alert looked, so that nobody was told; its RESOLVED is not told either.
    rungs, silent_rungs: of a recurring threshold how many it is past, and how many of them silently.
    """

    level: Decimal
    time: datetime
    silent: bool = False
    rungs: int = 0
    silent_rungs: int = 0


@dataclass(frozen=True)
class AlertState:
    """What an alert remembers of one gauge: which thresholds it is past, by their keys."""

    reached: Mapping[str, Reached] = field(default_factory=dict)

    @property
    def in_alarm(self) -> bool:
        """Whether any threshold is reached."""
        return bool(self.reached)


@dataclass(frozen=True)
class Transition:
    """A threshold was reached or resolved by one step of a gauge.

    level: the line that was crossed. furthest: no other line of this kind in the same evaluation lies further on; in
    a notification, none that it shows. notified: whether the threshold's owner wants to be told of this kind.
    """

    kind: Kind
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
    ladder: Ladder,
    state: AlertState,
    previous_value: Decimal,
    steps: Iterable[Step],
    now: datetime,
    retired: Mapping[str, Threshold] = _NOTHING,
) -> Evaluation:
    """Follows a gauge from `previous_value` through `steps`.

    A threshold is REACHED by the step that brings the value to it or past it, and RESOLVED by the step that
    brings it back; one step can do so to several, which are reported in the order in which the gauge met them.
    A state that is already past a line says nothing again. A threshold that the alert does not have any more
    (`retired`, by key), or that lost its line with its limit, is RESOLVED where it was reached; so is one that
    recurs from elsewhere now, at its furthest rung, and the new rungs are reached. Must run under `exact_arithmetic`.
    """
    current = _keys(ladder)
    reached = {
        key: known
        for key, known in state.reached.items()
        if key in current and not (known.rungs and known.level != ladder.rung(known.rungs))
    }
    here = Step(previous_value, None)
    gone = retired
    if ladder.unlimited:
        gone = {**retired, **{threshold.key: threshold for threshold in ladder.unlimited}}
    left = [
        _transition(Kind.RESOLVED, gone[key], known.level, previous_value, here)
        for key, known in state.reached.items()
        if key not in reached and key in gone and not known.silent
    ]
    transitions = _in_order(ladder, Kind.RESOLVED, left)
    for step in steps:
        lines = _fixed(ladder, reached, previous_value, step, now)
        rungs = _rungs(ladder, reached, previous_value, step, now)
        transitions += _in_order(ladder, Kind.RESOLVED, rungs + lines)
        transitions += _in_order(ladder, Kind.REACHED, lines + rungs)
        previous_value = step.value
    return Evaluation(AlertState(reached), mark_furthest(transitions, ladder.direction))


def mark_furthest(transitions: Iterable[Transition], direction: Direction) -> tuple[Transition, ...]:
    """Marks, for each kind, the transition whose line lies furthest the way that kind goes; of equals the last."""
    marked = list(transitions)
    for kind in Kind:
        outward = (direction is Direction.RISING) is (kind is Kind.REACHED)
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


def mark_silently(ladder: Ladder, value: Decimal, now: datetime) -> AlertState:
    """The state of a gauge whose past is not to be told: past every line that `value` is past, silently."""
    reached = {
        threshold.key: Reached(threshold.value, now, silent=True)
        for threshold in ladder.fixed
        if ladder.past(value, threshold)
    }
    rungs = ladder.rungs_past(value)
    if rungs and ladder.recurring is not None:
        reached[ladder.recurring.key] = Reached(ladder.rung(rungs), now, True, rungs, rungs)
    return AlertState(reached)


def trip_levels(ladder: Ladder, state: AlertState) -> tuple[Decimal | None, Decimal | None]:
    """The nearest levels above and below the gauge at which `evaluate` may find something.

    A value strictly between them changes nothing; at a level itself `evaluate` decides. None: no such level.
    """
    ahead: list[Decimal] = []
    behind: list[Decimal] = []
    for threshold in ladder.fixed:
        if threshold.key not in state.reached:
            ahead.append(threshold.value)
        else:
            behind.append(threshold.value if threshold.resolve_value is None else threshold.resolve_value)
    if ladder.recurring is not None:
        known = state.reached.get(ladder.recurring.key)
        rungs = known.rungs if known else 0
        ahead.append(ladder.rung(rungs + 1))
        if rungs:
            behind.append(ladder.rung(rungs))
    if ladder.direction is Direction.RISING:
        return min(ahead, default=None), max(behind, default=None)
    return min(behind, default=None), max(ahead, default=None)


def _keys(ladder: Ladder) -> set[str]:
    keys = {threshold.key for threshold in ladder.fixed}
    if ladder.recurring is not None:
        keys.add(ladder.recurring.key)
    return keys


def _fixed(
    ladder: Ladder, reached: dict[str, Reached], previous_value: Decimal, step: Step, now: datetime
) -> list[Transition]:
    """The fixed thresholds that one step reached (nearest first) or resolved (furthest first)."""
    found = []
    for threshold in ladder.fixed:
        known = reached.get(threshold.key)
        if known is None and ladder.past(step.value, threshold):
            reached[threshold.key] = Reached(threshold.value, now)
            found.append(_transition(Kind.REACHED, threshold, threshold.value, previous_value, step))
        elif known is not None and known.level != threshold.value:  # its limit has changed
            reached[threshold.key] = replace(known, level=threshold.value)
    for threshold in reversed(ladder.fixed):
        known = reached.get(threshold.key)
        if known is not None and ladder.resolved(step.value, threshold):
            del reached[threshold.key]
            if not known.silent:
                found.append(_transition(Kind.RESOLVED, threshold, threshold.value, previous_value, step))
    return found


def _rungs(
    ladder: Ladder, reached: dict[str, Reached], previous_value: Decimal, step: Step, now: datetime
) -> list[Transition]:
    """The rungs of the recurring threshold that one step reached (nearest first) or resolved (furthest first)."""
    recurring = ladder.recurring
    if recurring is None:
        return []
    known = reached.get(recurring.key)
    before, after = (known.rungs if known else 0), ladder.rungs_past(step.value)
    silent = min(known.silent_rungs, after) if known else 0
    if after == before:
        return []
    if after:
        reached[recurring.key] = Reached(ladder.rung(after), now, silent == after, after, silent)
    else:
        del reached[recurring.key]
    if after > before:
        told = range(max(before, after - MAX_STEPS_REPORTED) + 1, after + 1)
    else:
        unheard = known.silent_rungs if known else 0
        told = range(before, max(after, unheard, before - MAX_STEPS_REPORTED), -1)
    kind = Kind.REACHED if after > before else Kind.RESOLVED
    return [_transition(kind, recurring, ladder.rung(rung), previous_value, step) for rung in told]


def _in_order(ladder: Ladder, kind: Kind, transitions: list[Transition]) -> list[Transition]:
    """Those of one kind: the nearest first when they were reached, the furthest first when they were resolved."""
    backwards = (ladder.direction is Direction.RISING) is (kind is Kind.RESOLVED)
    own = [transition for transition in transitions if transition.kind is kind]
    return sorted(own, key=lambda transition: transition.level, reverse=backwards)


def _transition(kind: Kind, threshold: Threshold, level: Decimal, previous_value: Decimal, step: Step) -> Transition:
    return Transition(kind, threshold, level, previous_value, step.value, step.cause, kind in threshold.notify_on)

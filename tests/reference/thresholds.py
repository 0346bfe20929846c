"""Thresholds: which of them a gauge reaches and resolves between two values."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

REACHED, RESOLVED = "REACHED", "RESOLVED"
BOTH = frozenset({REACHED, RESOLVED})

REPORTED_STEPS = 20  # at most, of a jump over more steps of a recurring threshold

Key = Fraction | tuple[str, Fraction]  # what a state knows a threshold by: its value, or ("limit", percentage)


@dataclass(frozen=True)
class Threshold:
    """A fixed value, a step that recurs above the highest fixed value, or a percentage of the gauge's limit.

    percent: of the limit, which gives the threshold a value (`at_limit`); without a limit it has none. exclusive:
    reached above the value, and not yet at it. resolve: the value at which it resolves; by default it resolves below
    its own. notify_on: the kinds of transitions that are sent.
    """

    value: Fraction | None = None
    step: Fraction | None = None
    resolve: Fraction | None = None
    notify_on: frozenset[str] = frozenset({REACHED})
    code: str = ""
    exclusive: bool = False
    percent: Fraction | None = None

    @property
    def key(self) -> Key | None:
        """What a state knows the threshold by; None for a step."""
        return self.value if self.percent is None else ("limit", self.percent)

    def at_limit(self, limit: Fraction | None) -> "Threshold":
        """The threshold on a gauge with that limit."""
        if self.percent is None:
            return self
        return replace(self, value=None if limit is None else self.percent * limit / 100)

    def is_reached(self, value: Fraction) -> bool:
        """Whether a fixed threshold is reached at that value."""
        assert self.value is not None
        return value > self.value if self.exclusive else value >= self.value

    def is_resolved(self, value: Fraction) -> bool:
        """Whether a fixed threshold that was reached resolves at that value."""
        return not self.is_reached(value) if self.resolve is None else value <= self.resolve


@dataclass(frozen=True)
class Transition:
    """A threshold was reached or resolved; event_id is None where no event did it."""

    kind: str
    level: Fraction
    previous: Fraction
    value: Fraction
    event_id: str | None


@dataclass
class State:
    """What an alert knows of a gauge.

    past: the fixed values and percentages that are reached; True where that was never notified. levels: of these
    percentages, at the last evaluation. steps: the number of steps that are
    reached, of which `silent_steps` were never notified. stairs: where the steps begin and the height of each, while
    any is reached. sequence: the number of notifications.
    """

    past: dict[Key, bool] = field(default_factory=dict)
    levels: dict[Key, Fraction] = field(default_factory=dict)
    steps: int = 0
    silent_steps: int = 0
    stairs: tuple[Fraction, Fraction] | None = None
    sequence: int = 0

    @property
    def furthest_step(self) -> Fraction | None:
        """The level of the highest step that is reached."""
        return self.stairs and self.stairs[0] + self.steps * self.stairs[1]


def mark_silently(thresholds: Sequence[Threshold], state: State, value: Fraction) -> None:
    """Sets the state of a gauge at that value without any transition."""
    fixed, recurring, foot = _ordered(thresholds)
    state.past = {one.key: True for one in fixed if one.key is not None and one.is_reached(value)}
    _note_levels(fixed, state)
    state.steps = state.silent_steps = _steps_reached(recurring, foot, value)
    state.stairs = _stairs(recurring, foot) if state.steps else None


def follow(
    thresholds: Sequence[Threshold],
    state: State,
    previous: Fraction,
    path: Iterable[tuple[Fraction, str | None]],
    former: Sequence[Threshold] = (),
) -> list[tuple[Transition, Threshold]]:
    """The transitions along a path, of which each point is a value and the event that led to it; changes the state.

    former: the thresholds of earlier versions of the alert, the latest first. What is reached and is no threshold any
    more resolves before the path begins.
    """
    fixed, recurring, foot = _ordered(thresholds)
    without_limit = [one for one in thresholds if one.percent is not None and one.value is None]
    gone = [*without_limit, *former]
    left = _resolve_former(state, {one.key for one in fixed}, _stairs(recurring, foot), gone)
    found = [(Transition(RESOLVED, level, previous, previous, None), one) for level, one in left]
    for value, event_id in path:
        resolved: list[tuple[Fraction, Threshold]] = []
        reached: list[tuple[Fraction, Threshold]] = []
        before, after = state.steps, _steps_reached(recurring, foot, value)
        if recurring is not None and recurring.step is not None:
            reported = range(before, max(after, state.silent_steps, before - REPORTED_STEPS), -1)
            resolved += [(foot + number * recurring.step, recurring) for number in reported]
        for one in reversed(fixed):
            assert one.value is not None
            assert one.key is not None
            if one.key in state.past and one.is_resolved(value):
                if not state.past.pop(one.key):
                    resolved.append((one.value, one))
            elif one.key not in state.past and one.is_reached(value):
                state.past[one.key] = False
                reached.insert(0, (one.value, one))
        if recurring is not None and recurring.step is not None:
            reported = range(max(before, after - REPORTED_STEPS) + 1, after + 1)
            reached += [(foot + number * recurring.step, recurring) for number in reported]
        state.steps, state.silent_steps = after, min(state.silent_steps, after)
        state.stairs = _stairs(recurring, foot) if after else None
        _note_levels(fixed, state)
        for kind, levels in ((RESOLVED, resolved), (REACHED, reached)):
            levels.sort(key=lambda item: item[0], reverse=kind == RESOLVED)
            found += [(Transition(kind, level, previous, value, event_id), one) for level, one in levels]
        previous = value
    return found


def furthest(transitions: Sequence[Transition]) -> frozenset[int]:
    """The index of the furthest transition of each kind; of equal levels, the last."""
    indexes: dict[str, int] = {}
    for index, one in enumerate(transitions):
        further = one.level - transitions[indexes.setdefault(one.kind, index)].level
        if (further if one.kind == REACHED else -further) >= 0:
            indexes[one.kind] = index
    return frozenset(indexes.values())


def _resolve_former(
    state: State,
    keys: set[Key | None],
    stairs: tuple[Fraction, Fraction] | None,
    former: Sequence[Threshold],
) -> list[tuple[Fraction, Threshold]]:
    """What resolves because it is no threshold any more, the furthest first; of steps only the highest."""
    left: list[tuple[Fraction, Threshold]] = []
    if state.stairs is not None and state.stairs != stairs:
        foot, step = state.stairs
        if state.steps > state.silent_steps:
            left.append((foot + state.steps * step, next(one for one in former if one.step == step)))
        state.steps, state.silent_steps, state.stairs = 0, 0, None
    for key in state.past.keys() - keys:
        level = key if isinstance(key, Fraction) else state.levels[key]
        if not state.past.pop(key):
            left.append((level, next(one for one in former if one.key == key)))
    return sorted(left, key=lambda item: item[0], reverse=True)


def _note_levels(fixed: Sequence[Threshold], state: State) -> None:
    """Notes the levels of the percentages that are reached."""
    at = {one.key: one.value for one in fixed if one.percent is not None}
    state.levels = {key: level for key in state.past if (level := at.get(key)) is not None}


def _stairs(recurring: Threshold | None, foot: Fraction) -> tuple[Fraction, Fraction] | None:
    return None if recurring is None or recurring.step is None else (foot, recurring.step)


def _ordered(thresholds: Sequence[Threshold]) -> tuple[list[Threshold], Threshold | None, Fraction]:
    """The thresholds with a value from the lowest, the recurring one, and the value at which its steps begin."""
    valued = [one for one in thresholds if one.value is not None]
    # Of equal levels, the fixed values come before the percentages.
    fixed = sorted(valued, key=lambda one: (one.value or Fraction(0), one.percent is not None))
    recurring = next((one for one in thresholds if one.step is not None), None)
    foot = max((one.value or Fraction(0) for one in fixed if one.percent is None), default=Fraction(0))
    return fixed, recurring, foot


def _steps_reached(recurring: Threshold | None, foot: Fraction, value: Fraction) -> int:
    return max(0, (value - foot) // recurring.step) if recurring is not None and recurring.step is not None else 0

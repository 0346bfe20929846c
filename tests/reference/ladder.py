"""The plain reference model of thresholds: what an alert's lines say about the path of a gauge."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

STEPS_TOLD = 20  # of a jump over more steps of a recurring line


@dataclass(frozen=True)
class Line:
    """A threshold: a value, or a step that recurs past the furthest value; told: the kinds that are sent."""

    value: Fraction | None
    step: Fraction | None = None
    resolve: Fraction | None = None
    told: frozenset[str] = frozenset({"REACHED"})


@dataclass(frozen=True)
class Crossing:
    """A line was reached or resolved; event_id is unset when the alert itself was what was new."""

    kind: str
    level: Fraction
    previous: Fraction
    value: Fraction
    event_id: str | None


@dataclass
class State:
    """What an alert knows of a gauge: the fixed values it is past (True: silently), the steps, how often it sent.

    stairs: where the steps begin and how high each is, as long as it is past any.
    """

    past: dict[Fraction, bool] = field(default_factory=dict)
    steps: int = 0
    silent_steps: int = 0
    stairs: tuple[Fraction, Fraction] | None = None
    sequence: int = 0

    @property
    def furthest_step(self) -> Fraction | None:
        """The highest step that it is past."""
        return self.stairs and self.stairs[0] + self.steps * self.stairs[1]


def mark_silently(lines: Sequence[Line], state: State, value: Fraction) -> None:
    """The state of a gauge whose past is told to nobody."""
    fixed, recurring, foot = _ladder(lines)
    state.past = {line.value: True for line in fixed if line.value is not None and value >= line.value}
    state.steps = state.silent_steps = _steps_past(recurring, foot, value)
    state.stairs = _stairs(recurring, foot) if state.steps else None


def crossings(
    lines: Sequence[Line],
    state: State,
    previous: Fraction,
    steps: Iterable[tuple[Fraction, str | None]],
    former: Sequence[Line] = (),
) -> list[tuple[Crossing, Line]]:
    """Follows the gauge through the steps, each a value and what brought it; changes the state on the way.

    What it is past and is no line any more (`former`, the latest first) it leaves before the first step.
    """
    fixed, recurring, foot = _ladder(lines)
    left = _leave(state, {line.value for line in fixed}, _stairs(recurring, foot), former)
    found = [(Crossing("RESOLVED", level, previous, previous, None), line) for level, line in left]
    for value, event_id in steps:
        resolved: list[tuple[Fraction, Line]] = []
        reached: list[tuple[Fraction, Line]] = []
        before, after = state.steps, _steps_past(recurring, foot, value)
        if recurring is not None and recurring.step is not None:
            heard = range(before, max(after, state.silent_steps, before - STEPS_TOLD), -1)
            resolved += [(foot + number * recurring.step, recurring) for number in heard]
        for line in reversed(fixed):
            assert line.value is not None
            back = value < line.value if line.resolve is None else value <= line.resolve
            if line.value in state.past and back:
                if not state.past.pop(line.value):
                    resolved.append((line.value, line))
            elif line.value not in state.past and value >= line.value:
                state.past[line.value] = False
                reached.insert(0, (line.value, line))
        if recurring is not None and recurring.step is not None:
            heard = range(max(before, after - STEPS_TOLD) + 1, after + 1)
            reached += [(foot + number * recurring.step, recurring) for number in heard]
        state.steps, state.silent_steps = after, min(state.silent_steps, after)
        state.stairs = _stairs(recurring, foot) if after else None
        for kind, crossed in (("RESOLVED", resolved), ("REACHED", reached)):
            found += [(Crossing(kind, level, previous, value, event_id), line) for level, line in crossed]
        previous = value
    return found


def furthest(crossings: Sequence[Crossing]) -> frozenset[int]:
    """Of each kind the place of the one whose level lies furthest the way it goes, of equals the last."""
    places: dict[str, int] = {}
    for place, one in enumerate(crossings):
        further = one.level - crossings[places.setdefault(one.kind, place)].level
        if (further if one.kind == "REACHED" else -further) >= 0:
            places[one.kind] = place
    return frozenset(places.values())


def _leave(
    state: State,
    values: set[Fraction | None],
    stairs: tuple[Fraction, Fraction] | None,
    former: Sequence[Line],
) -> list[tuple[Fraction, Line]]:
    """What resolves because it is no line any more, the furthest first; of steps, which may begin elsewhere, one."""
    left: list[tuple[Fraction, Line]] = []
    if state.stairs is not None and state.stairs != stairs:
        foot, step = state.stairs
        if state.steps > state.silent_steps:
            left.append((foot + state.steps * step, next(line for line in former if line.step == step)))
        state.steps, state.silent_steps, state.stairs = 0, 0, None
    for value in sorted(state.past.keys() - values, reverse=True):
        if not state.past.pop(value):
            left.append((value, next(line for line in former if line.value == value)))
    return left


def _stairs(recurring: Line | None, foot: Fraction) -> tuple[Fraction, Fraction] | None:
    return None if recurring is None or recurring.step is None else (foot, recurring.step)


def _ladder(lines: Sequence[Line]) -> tuple[list[Line], Line | None, Fraction]:
    """The fixed lines from below, the line that recurs, and where its steps begin."""
    fixed = sorted((line for line in lines if line.value is not None), key=lambda line: line.value or 0)
    recurring = next((line for line in lines if line.step is not None), None)
    return fixed, recurring, (fixed[-1].value or Fraction(0)) if fixed else Fraction(0)


def _steps_past(recurring: Line | None, foot: Fraction, value: Fraction) -> int:
    return max(0, (value - foot) // recurring.step) if recurring is not None and recurring.step is not None else 0

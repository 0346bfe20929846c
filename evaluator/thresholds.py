"""Thresholds: at which level each is reached, and at which value it resolves.

`evaluator.transitions` decides which of them the path of a gauge reaches.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from evaluator.amounts import ZERO, format_decimal

MAX_THRESHOLDS = 20  # of one alert
# When one step of a gauge passes more levels of a recurring threshold, only the last of them are reported.
MAX_RECURRENCES_REPORTED = 20


class Direction(StrEnum):
    """The direction in which the value of a gauge moves when it reaches a threshold."""

    RISING = "RISING"  # reached at or above the level
    FALLING = "FALLING"  # reached at or below the level


class TransitionKind(StrEnum):
    """What happened to a threshold."""

    REACHED = "REACHED"
    RESOLVED = "RESOLVED"


class Severity(StrEnum):
    """How important the caller says a threshold is. Tidemark shows it and does not use it."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


@dataclass(frozen=True)
class Threshold:
    """One threshold; with `recurring_step` it repeats at every step without end.

    value: the level. Unused by a recurring threshold, whose levels follow `ThresholdSet.recurring_base`.
    percent_of_limit: the level as a percentage of the gauge's limit; each gauge then has a value of its own
        (`at_limit`). resolve_percent: the same for resolve_value.
    recurring_step: > 0, the distance between two levels of a recurring threshold.
    resolve_value: hysteresis; the threshold resolves when the value is back here. Unset: it resolves as soon as the
        level is no longer reached.
    notify_on: the kinds of transitions that are sent; the others are only recorded.
    exclusive: it is reached beyond the level, and not at the level itself.
    """

    value: Decimal = ZERO
    code: str = ""
    severity: Severity | None = None
    recurring_step: Decimal | None = None
    resolve_value: Decimal | None = None
    notify_on: frozenset[TransitionKind] = frozenset({TransitionKind.REACHED})
    exclusive: bool = False
    percent_of_limit: Decimal | None = None
    resolve_percent: Decimal | None = None

    @property
    def key(self) -> str:
        """Identifies the threshold in stored states. Only the level counts, so that other edits keep the state."""
        if self.recurring_step is not None:
            return f"every:{format_decimal(self.recurring_step)}"
        if self.percent_of_limit is not None:
            return f"limit:{format_decimal(self.percent_of_limit)}"
        return format_decimal(self.value)

    @property
    def defined_by(self) -> tuple[str, Decimal]:
        """The field of the contract that defines the level, and the number in it."""
        if self.recurring_step is not None:
            return "recurring_step", self.recurring_step
        if self.percent_of_limit is not None:
            return "percent_of_limit", self.percent_of_limit
        return "value", self.value

    @property
    def defined_resolve_value(self) -> Decimal | None:
        """The contract's resolve_value: a percentage if the threshold is a percentage."""
        return self.resolve_value if self.percent_of_limit is None else self.resolve_percent

    def at_limit(self, limit: Decimal) -> "Threshold":
        """This percentage threshold, with the level that it has at `limit`.

        Must run under `exact_arithmetic`.
        """
        assert self.percent_of_limit is not None
        resolve_value = None
        # Every percentage of 0 is 0: the threshold would resolve at the level at which it is reached.
        if self.resolve_percent is not None and limit > ZERO:
            resolve_value = (self.resolve_percent * limit).scaleb(-2)
        return replace(self, value=(self.percent_of_limit * limit).scaleb(-2), resolve_value=resolve_value)


@dataclass(frozen=True)
class ThresholdSet:
    """The thresholds that apply to one gauge, in the order in which its value meets them.

    fixed: those with one level. recurring: the one that repeats. percentages: those whose level needs the gauge's
    limit, while it has none; `with_limit` turns them into fixed ones.
    """

    direction: Direction
    fixed: tuple[Threshold, ...]
    recurring: Threshold | None
    percentages: tuple[Threshold, ...] = ()

    @classmethod
    def of(cls, thresholds: tuple[Threshold, ...], direction: Direction) -> "ThresholdSet":
        """Sorts `thresholds`, of which at most one recurs."""
        percentages = tuple(one for one in thresholds if one.percent_of_limit is not None)
        recurring = [one for one in thresholds if one.recurring_step is not None]
        fixed = [one for one in thresholds if one.recurring_step is None and one.percent_of_limit is None]
        return cls(direction, _sorted(fixed, direction), recurring[0] if recurring else None, percentages)

    def with_limit(self, limit: Decimal | None) -> "ThresholdSet":
        """The thresholds of a gauge with this limit; None: the gauge has no limit.

        Must run under `exact_arithmetic`.
        """
        if limit is None or not self.percentages:
            return self
        levels = [threshold.at_limit(limit) for threshold in self.percentages]
        return replace(self, fixed=_sorted([*self.fixed, *levels], self.direction), percentages=())

    def is_reached(self, value: Decimal, threshold: Threshold) -> bool:
        """Whether `value` is at the level of a fixed threshold, or beyond it."""
        if value == threshold.value:
            return not threshold.exclusive
        return (value > threshold.value) is (self.direction is Direction.RISING)

    def is_resolved(self, value: Decimal, threshold: Threshold) -> bool:
        """Whether `value` has come back far enough for a reached threshold to resolve."""
        if threshold.resolve_value is None:
            return not self.is_reached(value, threshold)
        if self.direction is Direction.RISING:
            return value <= threshold.resolve_value
        return value >= threshold.resolve_value

    @property
    def recurring_base(self) -> Decimal:
        """The number from which the levels of the recurring threshold are counted: the furthest fixed value, or 0.

        Percentages do not count: the recurring levels would move with the limit.
        """
        values = [threshold.value for threshold in self.fixed if threshold.percent_of_limit is None]
        return values[-1] if values else ZERO

    def recurring_level(self, number: int) -> Decimal:
        """The level of the recurring threshold's recurrence `number`, counted from 1."""
        assert self.recurring is not None
        assert self.recurring.recurring_step is not None
        distance = self.recurring.recurring_step * number
        return (
            self.recurring_base + distance if self.direction is Direction.RISING else self.recurring_base - distance
        )

    def recurrences_reached(self, value: Decimal) -> int:
        """How many levels of the recurring threshold are reached at `value`; 0 without one."""
        if self.recurring is None:
            return 0
        assert self.recurring.recurring_step is not None
        base = self.recurring_base
        distance = value - base if self.direction is Direction.RISING else base - value
        if distance < self.recurring.recurring_step:
            return 0
        return int(distance // self.recurring.recurring_step)

    def next_level(self, value: Decimal, reached: Collection[str]) -> Decimal | None:
        """The nearest level that `value` would reach next; None without one.

        reached: the keys of thresholds that are reached until they resolve. Must run under `exact_arithmetic`.
        """
        levels = [one.value for one in self.fixed if one.key not in reached and not self.is_reached(value, one)]
        if self.recurring is not None:
            levels.append(self.recurring_level(self.recurrences_reached(value) + 1))
        nearest = min if self.direction is Direction.RISING else max
        return nearest(levels, default=None)


def _sorted(fixed: list[Threshold], direction: Direction) -> tuple[Threshold, ...]:
    return tuple(sorted(fixed, key=lambda threshold: threshold.value, reverse=direction is Direction.FALLING))

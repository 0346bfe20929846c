"""Thresholds: the lines an alert draws, and which of them a value is past."""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from evaluator.amounts import ZERO, format_decimal

MAX_THRESHOLDS = 20  # of one alert
# A jump over more steps than this of a recurring threshold reports the last ones only.
MAX_STEPS_REPORTED = 20


class Direction(StrEnum):
    """Which way a gauge travels to reach a threshold."""

    RISING = "RISING"  # reached at or above
    FALLING = "FALLING"  # reached at or below


class Kind(StrEnum):
    """What a transition says of its threshold."""

    REACHED = "REACHED"
    RESOLVED = "RESOLVED"


class Severity(StrEnum):
    """How much a threshold matters to the one who set it; Tidemark only carries it."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


@dataclass(frozen=True)
class Threshold:
    """One line, or with `recurring_step` an endless ladder of them.

    value: the line; of a recurring threshold unused (its ladder begins at the alert's furthest fixed line).
    recurring_step: > 0, the distance between the rungs.
    resolve_value: hysteresis; the gauge has to come back this far before the threshold resolves. Unset: it
        resolves as soon as the gauge is no longer past the line.
    notify_on: the kinds that are sent; the others are recorded only.
    exclusive: it is reached beyond the line, and not yet at it.
    """

    value: Decimal = ZERO
    code: str = ""
    severity: Severity | None = None
    recurring_step: Decimal | None = None
    resolve_value: Decimal | None = None
    notify_on: frozenset[Kind] = frozenset({Kind.REACHED})
    exclusive: bool = False

    @property
    def key(self) -> str:
        """What the state knows this threshold by: its line, whatever else about it is edited."""
        if self.recurring_step is not None:
            return f"every:{format_decimal(self.recurring_step)}"
        return format_decimal(self.value)


@dataclass(frozen=True)
class Ladder:
    """The thresholds of one alert in the order in which a gauge that travels in `direction` meets them."""

    direction: Direction
    fixed: tuple[Threshold, ...]
    recurring: Threshold | None

    @classmethod
    def of(cls, thresholds: tuple[Threshold, ...], direction: Direction) -> "Ladder":
        """Sorts `thresholds`; at most one of them may recur."""
        fixed = [threshold for threshold in thresholds if threshold.recurring_step is None]
        fixed.sort(key=lambda threshold: threshold.value, reverse=direction is Direction.FALLING)
        recurring = [threshold for threshold in thresholds if threshold.recurring_step is not None]
        return cls(direction, tuple(fixed), recurring[0] if recurring else None)

    def past(self, value: Decimal, threshold: Threshold) -> bool:
        """Whether `value` is at the threshold's line or beyond it."""
        if value == threshold.value:
            return not threshold.exclusive
        return (value > threshold.value) is (self.direction is Direction.RISING)

    def resolved(self, value: Decimal, threshold: Threshold) -> bool:
        """Whether `value` has come back far enough for a reached threshold to resolve."""
        if threshold.resolve_value is None:
            return not self.past(value, threshold)
        if self.direction is Direction.RISING:
            return value <= threshold.resolve_value
        return value >= threshold.resolve_value

    @property
    def foot(self) -> Decimal:
        """Where the recurring rungs are counted from: the furthest fixed line, or zero."""
        return self.fixed[-1].value if self.fixed else ZERO

    def rung(self, number: int) -> Decimal:
        """The line of the recurring threshold's rung `number`, counted from 1."""
        assert self.recurring is not None
        assert self.recurring.recurring_step is not None
        distance = self.recurring.recurring_step * number
        return self.foot + distance if self.direction is Direction.RISING else self.foot - distance

    def rungs_past(self, value: Decimal) -> int:
        """How many rungs of the recurring threshold `value` is past."""
        if self.recurring is None:
            return 0
        assert self.recurring.recurring_step is not None
        distance = value - self.foot if self.direction is Direction.RISING else self.foot - value
        if distance < self.recurring.recurring_step:
            return 0
        return int(distance // self.recurring.recurring_step)

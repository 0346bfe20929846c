"""Thresholds: the lines an alert draws, and which of them a value is past."""

from dataclasses import dataclass, replace
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
    percent_of_limit: the line as a percentage of the limit that a gauge has; each gauge then has a value of its own
        (`at_limit`). resolve_percent: the same for resolve_value.
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
    percent_of_limit: Decimal | None = None
    resolve_percent: Decimal | None = None

    @property
    def key(self) -> str:
        """What the state knows this threshold by: its line, whatever else about it is edited."""
        if self.recurring_step is not None:
            return f"every:{format_decimal(self.recurring_step)}"
        if self.percent_of_limit is not None:
            return f"limit:{format_decimal(self.percent_of_limit)}"
        return format_decimal(self.value)

    @property
    def defined_by(self) -> tuple[str, Decimal]:
        """The field of the contract that defines the line, and what it says."""
        if self.recurring_step is not None:
            return "recurring_step", self.recurring_step
        if self.percent_of_limit is not None:
            return "percent_of_limit", self.percent_of_limit
        return "value", self.value

    @property
    def defined_resolve_value(self) -> Decimal | None:
        """What the contract's resolve_value says: of a threshold in percent a percentage too."""
        return self.resolve_value if self.percent_of_limit is None else self.resolve_percent

    def at_limit(self, limit: Decimal) -> "Threshold":
        """A threshold in percent of a limit, with the line that it has at this one.

        Must run under `exact_arithmetic`.
        """
        assert self.percent_of_limit is not None
        resolve_value = None
        # Every percentage of 0 is 0: it would resolve where it is reached.
        if self.resolve_percent is not None and limit > ZERO:
            resolve_value = (self.resolve_percent * limit).scaleb(-2)
        return replace(self, value=(self.percent_of_limit * limit).scaleb(-2), resolve_value=resolve_value)


@dataclass(frozen=True)
class Ladder:
    """The thresholds of one alert in the order in which a gauge that travels in `direction` meets them.

    unlimited: those in percent of a limit, which have no line as long as there is none.
    """

    direction: Direction
    fixed: tuple[Threshold, ...]
    recurring: Threshold | None
    unlimited: tuple[Threshold, ...] = ()

    @classmethod
    def of(cls, thresholds: tuple[Threshold, ...], direction: Direction) -> "Ladder":
        """Sorts `thresholds`; at most one of them may recur."""
        unlimited = tuple(threshold for threshold in thresholds if threshold.percent_of_limit is not None)
        recurring = [threshold for threshold in thresholds if threshold.recurring_step is not None]
        fixed = [one for one in thresholds if one.recurring_step is None and one.percent_of_limit is None]
        return cls(direction, _sorted(fixed, direction), recurring[0] if recurring else None, unlimited)

    def with_limit(self, limit: Decimal | None) -> "Ladder":
        """The ladder of a gauge that has this limit; None: it has none.

        Must run under `exact_arithmetic`.
        """
        if limit is None or not self.unlimited:
            return self
        lines = [threshold.at_limit(limit) for threshold in self.unlimited]
        return replace(self, fixed=_sorted([*self.fixed, *lines], self.direction), unlimited=())

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
        """Where the recurring rungs are counted from: the furthest value, or zero.

        Not from a percentage: the rungs would have to move with the limit.
        """
        values = [threshold.value for threshold in self.fixed if threshold.percent_of_limit is None]
        return values[-1] if values else ZERO

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


def _sorted(fixed: list[Threshold], direction: Direction) -> tuple[Threshold, ...]:
    return tuple(sorted(fixed, key=lambda threshold: threshold.value, reverse=direction is Direction.FALLING))

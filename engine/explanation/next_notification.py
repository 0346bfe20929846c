"""What a gauge needs to cause a notification: found by evaluating it at the levels of its thresholds."""

from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_CEILING, Decimal

from engine.explanation.findings import Next
from evaluator.aggregation import Aggregation
from evaluator.amounts import ZERO
from evaluator.thresholds import Direction, ThresholdSet, TransitionKind
from evaluator.transitions import Evaluation, Step, Transition, evaluate

_COUNTED_ONE_BY_ONE = (Aggregation.COUNT, Aggregation.UNIQUE_COUNT)
_ONE = Decimal(1)


def next_notification(
    thresholds: ThresholdSet,
    settled: Evaluation,
    value: Decimal,
    aggregation: Aggregation | None,
    now: datetime,
) -> Next | None:
    """The nearest value of a gauge at which the alert notifies that a threshold is reached; None without one.

    settled: the evaluation of the gauge as it is. aggregation: how events become the value; None where facts do. Must
    run under `exact_arithmetic`.
    """
    if (waiting := _notified(settled.transitions)) is not None:
        return Next(waiting.level, amount=None if aggregation is None else ZERO)
    levels = {one.value for one in thresholds.fixed if one.key not in settled.state.reached}
    if thresholds.recurring is not None:
        known = settled.state.reached.get(thresholds.recurring.key)
        levels.add(thresholds.recurring_level((known.recurrences if known else 0) + 1))
    for level in sorted(levels, reverse=thresholds.direction is Direction.FALLING):
        found = evaluate(thresholds, settled.state, value, [Step(level, None)], now)
        if _notified(found.transitions) is not None:
            return _next(level, value, aggregation)
    return None


def _notified(transitions: Iterable[Transition]) -> Transition | None:
    """The first transition that notifies that a threshold is reached."""
    reached = (one for one in transitions if one.kind is TransitionKind.REACHED and one.notified)
    return next(reached, None)


def _next(level: Decimal, value: Decimal, aggregation: Aggregation | None) -> Next:
    """What events must do to bring a gauge from a value to a level."""
    if aggregation is None:
        return Next(level)
    if aggregation in _COUNTED_ONE_BY_ONE:
        return Next(level, events=max((level - value).to_integral_value(ROUND_CEILING), _ONE))
    if aggregation is Aggregation.SUM:
        return Next(level, amount=level - value)
    return Next(level, amount=level)  # MAX and LATEST take the quantity of one event

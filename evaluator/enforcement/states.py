"""States: what a limit and its meter show at a moment."""

from datetime import datetime

from evaluator.enforcement.decisions import LimitState
from evaluator.enforcement.targets import Charge


def limit_state(charge: Charge, now: datetime) -> LimitState:
    """The limit and its meter as they are; without the reset time of a rolling window, which ends at `now`.

    Must run under `exact_arithmetic`.
    """
    target, cell, _ = charge
    meter, limit = cell.meter, target.limit
    assert meter is not None, "the meter of a target is known"
    span = meter.span or limit.window.span_at(now, target.holder.cycle)
    reset_time = None if meter.span is None else span.end
    return LimitState(limit, meter, cell.counted, cell.held, cell.remaining(limit.amount), span, reset_time)

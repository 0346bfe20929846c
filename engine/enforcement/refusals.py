"""Refusals: what the operator event of a hard limit that refused usage says."""

from evaluator.amounts import format_decimal
from evaluator.enforcement.decisions import LimitState
from webhooks.operator_events import LimitRefusal


def refusal_of(state: LimitState) -> LimitRefusal:
    """The refusal by a limit in this state."""
    meter, unit = state.meter, state.limit.unit
    access = {"currency": unit.currency} if unit.currency is not None else {"metric_id": unit.metric_id or ""}
    return LimitRefusal(
        state.limit.limit_id,
        meter.customer_id,
        meter.subscription_id,
        access,
        meter.group,
        format_decimal(state.limit.amount),
        format_decimal(state.counted),
        format_decimal(state.held),
        state.limit.window.kind.value,
        state.span.start,
        state.span.end,
    )

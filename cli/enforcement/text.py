"""Decisions as lines for people."""

from collections.abc import Iterator
from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from cli.client.times import to_datetime
from cli.console import bad, good, named, quiet, warn
from generated.tidemark.v1 import decision_pb2
from generated.tidemark.v1.decision_pb2 import Decision, DecisionOutcome, LimitState

_MARKS = {
    decision_pb2.DECISION_OUTCOME_ALLOWED: good,
    decision_pb2.DECISION_OUTCOME_CAPPED: warn,
    decision_pb2.DECISION_OUTCOME_DENIED: bad,
}


def lines_of_decision(decision: Decision) -> Iterator[str]:
    """The lines of a decision: the outcome first, then the limits that it depends on."""
    mark = _MARKS.get(decision.outcome, quiet)
    outcome = mark(_short(DecisionOutcome.Name(decision.outcome), "DECISION_OUTCOME_"))
    cost = f", cost {decision.granted_cost}" if decision.granted_cost else ""
    yield f"{outcome}  quantity {decision.granted_quantity}{cost}{_why(decision)}"
    if decision.HasField("limit"):
        yield f"  {quiet('limit')} {_limit(decision.limit)}"
    for state in decision.over:
        yield f"  {warn('over')} {_limit(state)}"
    if decision.HasField("retry_after"):
        seconds = max(round(decision.retry_after.ToTimedelta().total_seconds()), 1)
        yield f"  {quiet('try again in')} {timedelta(seconds=seconds)}"
    elif decision.outcome == decision_pb2.DECISION_OUTCOME_DENIED and decision.HasField("limit"):
        yield f"  {quiet('no time will make it fit')}"


def _why(decision: Decision) -> str:
    if decision.reason == decision_pb2.DECISION_REASON_LIMIT:
        return ": a hard limit leaves less"
    if decision.reason == decision_pb2.DECISION_REASON_BALANCE:
        return f": the balances have {decision.balance.remaining} left"
    return ""


def _limit(state: LimitState) -> str:
    group = "".join(f" {one.key}={one.value}" for one in state.groups)
    of = f" of {state.customer_id}" + (f"/{state.subscription_id}" if state.subscription_id else "")
    unit = state.quantity.metric_id if state.HasField("quantity") else state.spend.currency
    return (
        f"{named(state.limit_id)}{of}, {unit}{group}: {state.remaining} left of {state.amount}"
        f" ({state.counted} counted, {state.held} held) until {_time(state.window_end_time)}"
    )


def _time(time: Timestamp) -> str:
    return f"{to_datetime(time):%Y-%m-%d %H:%M:%S}Z"


def _short(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()

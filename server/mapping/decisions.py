"""Decisions as messages of the contract."""

from datetime import timedelta

from evaluator.amounts import format_decimal
from evaluator.balances import Unit
from evaluator.enforcement.decisions import CreditState, Decision, LimitState, Outcome, OveragePolicy, Reason
from generated.tidemark.v1 import access_pb2, decision_pb2, gauge_pb2
from server.calls.validation import Violations, to_timestamp
from server.mapping.limits import enforcement_value, window_message

OUTCOMES = {
    Outcome.ALLOWED: decision_pb2.DECISION_OUTCOME_ALLOWED,
    Outcome.CAPPED: decision_pb2.DECISION_OUTCOME_CAPPED,
    Outcome.DENIED: decision_pb2.DECISION_OUTCOME_DENIED,
}
_REASONS = {
    None: decision_pb2.DECISION_REASON_NONE,
    Reason.LIMIT: decision_pb2.DECISION_REASON_LIMIT,
    Reason.BALANCE: decision_pb2.DECISION_REASON_BALANCE,
}
POLICIES = {
    OveragePolicy.DEFAULT: decision_pb2.USAGE_OVERAGE_POLICY_UNSPECIFIED,
    OveragePolicy.REJECT: decision_pb2.USAGE_OVERAGE_POLICY_REJECT,
    OveragePolicy.CAP: decision_pb2.USAGE_OVERAGE_POLICY_CAP,
    OveragePolicy.OVERFLOW: decision_pb2.USAGE_OVERAGE_POLICY_OVERFLOW,
}
_POLICY_OF = {number: policy for policy, number in POLICIES.items()}


def read_policy(
    violations: Violations, path: str, number: decision_pb2.UsageOveragePolicy.ValueType
) -> OveragePolicy:
    """What to do with usage that does not fit."""
    policy = _POLICY_OF.get(number)
    if policy is None:
        violations.add(path, f"{number} is not a policy that this service knows")
        return OveragePolicy.DEFAULT
    return policy


def decision_message(decision: Decision) -> decision_pb2.Decision:
    """The message for a decision."""
    shown = decision_pb2.Decision()
    write_decision(shown, decision)
    return shown


def write_decision(shown: decision_pb2.Decision, decision: Decision) -> None:
    """Fills in the message for a decision, which may be a part of another one: a message that is set is copied."""
    shown.outcome = OUTCOMES[decision.outcome]
    shown.reason = _REASONS[decision.reason]
    shown.granted_quantity = format_decimal(decision.granted_quantity)
    if decision.granted_cost is not None:
        shown.granted_cost = format_decimal(decision.granted_cost)
    if decision.limit is not None:
        shown.limit.CopyFrom(limit_state_message(decision.limit))
    if decision.credit is not None:
        shown.balance.CopyFrom(_balance_message(decision.credit))
    if decision.over:
        shown.over.extend(map(limit_state_message, decision.over))
    if decision.retry_after is not None:
        shown.retry_after.FromTimedelta(max(decision.retry_after, timedelta(0)))


def limit_state_message(state: LimitState) -> decision_pb2.LimitState:
    """The message for the state of a limit."""
    limit, meter = state.limit, state.meter
    return decision_pb2.LimitState(
        limit_id=limit.limit_id,
        customer_id=meter.customer_id,
        subscription_id=meter.subscription_id or "",
        spend=_spend(limit.unit),
        quantity=_quantity(limit.unit),
        groups=[gauge_pb2.GroupValue(key=key, value=value) for key, value in meter.group],
        amount=format_decimal(limit.amount),
        counted=format_decimal(state.counted),
        held=format_decimal(state.held),
        remaining=format_decimal(state.remaining),
        window=window_message(limit.window),
        window_start_time=to_timestamp(state.span.start),
        window_end_time=to_timestamp(state.span.end),
        reset_time=None if state.reset_time is None else to_timestamp(state.reset_time),
        enforcement=enforcement_value(limit.enforcement),
    )


def _balance_message(state: CreditState) -> decision_pb2.BalanceState:
    return decision_pb2.BalanceState(
        spend=_spend(state.unit),
        quantity=_quantity(state.unit),
        remaining="" if state.available is None else format_decimal(state.available),
    )


def _spend(unit: Unit) -> access_pb2.SpendAccess | None:
    return None if unit.currency is None else access_pb2.SpendAccess(currency=unit.currency)


def _quantity(unit: Unit) -> access_pb2.QuantityAccess | None:
    return None if unit.metric_id is None else access_pb2.QuantityAccess(metric_id=unit.metric_id)

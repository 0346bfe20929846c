"""Decisions as messages of the contract."""

from datetime import timedelta

from evaluator.amounts import format_decimal
from evaluator.balances import Unit
from evaluator.enforced_limits import EnforcedLimit
from evaluator.enforcement.decisions import CreditState, Decision, LimitState, Outcome, OveragePolicy, Reason
from evaluator.enforcement.meters import Meter
from generated.tidemark.v1 import access_pb2, decision_pb2, gauge_pb2
from server.calls.validation import Violations, shared_timestamp
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


def write_decision(shown: decision_pb2.Decision, decision: Decision) -> None:
    """Fills in the message for a decision, which may be a part of another one: a message that is set is copied."""
    shown.outcome = OUTCOMES[decision.outcome]
    shown.reason = _REASONS[decision.reason]
    shown.granted_quantity = format_decimal(decision.granted_quantity)
    if decision.granted_cost is not None:
        shown.granted_cost = format_decimal(decision.granted_cost)
    if decision.limit is not None:
        write_limit_state(shown.limit, decision.limit)
    if decision.credit is not None:
        shown.balance.CopyFrom(_balance_message(decision.credit))
    if decision.over:
        for state in decision.over:
            write_limit_state(shown.over.add(), state)
    if decision.retry_after is not None:
        shown.retry_after.FromTimedelta(max(decision.retry_after, timedelta(0)))


def limit_state_message(state: LimitState) -> decision_pb2.LimitState:
    """The message for the state of a limit."""
    shown = decision_pb2.LimitState()
    write_limit_state(shown, state)
    return shown


def write_limit_state(shown: decision_pb2.LimitState, state: LimitState) -> None:
    """Fills in the message for the state of a limit, which may be a part of another one."""
    span, reset_time = state.meter.span, state.reset_time
    resets = span is not None and reset_time is not None and reset_time == span.end
    shown.CopyFrom(_identity(state.limit, state.meter, resets))
    shown.counted = format_decimal(state.counted)
    shown.held = format_decimal(state.held)
    shown.remaining = format_decimal(state.remaining)
    if span is None:  # of a rolling window
        shown.window_start_time.CopyFrom(shared_timestamp(state.span.start))
        shown.window_end_time.CopyFrom(shared_timestamp(state.span.end))
    if reset_time is not None and not resets:
        shown.reset_time.CopyFrom(shared_timestamp(reset_time))


# What does not change of a state from one decision to the next, by meter and limit, and whether its window's end is
# the reset time; each with its limit. Copying it takes a tenth of the time of making it.
_identities: dict[tuple[str, str, bool], tuple[EnforcedLimit, decision_pb2.LimitState]] = {}
_MOST_IDENTITIES = 5_000  # about 5 MB


def _identity(limit: EnforcedLimit, meter: Meter, resets: bool) -> decision_pb2.LimitState:
    """A state's limit and meter, with the times of its window unless it is rolling. It must be copied, never changed.

    A meter's key does not name the organization; the limit is one of it. It names the window's times.
    resets: whether the end of the window is the reset time.
    """
    key = meter.key, limit.limit_id, resets
    known = _identities.get(key)
    if known is not None and known[0] is limit:
        return known[1]
    shown = decision_pb2.LimitState(
        limit_id=limit.limit_id,
        customer_id=meter.customer_id,
        subscription_id=meter.subscription_id or "",
        spend=_spend(limit.unit),
        quantity=_quantity(limit.unit),
        groups=[gauge_pb2.GroupValue(key=key, value=value) for key, value in meter.group],
        amount=format_decimal(limit.amount),
        window=window_message(limit.window),
        enforcement=enforcement_value(limit.enforcement),
    )
    if meter.span is not None:
        shown.window_start_time.CopyFrom(shared_timestamp(meter.span.start))
        shown.window_end_time.CopyFrom(shared_timestamp(meter.span.end))
        if resets:
            shown.reset_time.CopyFrom(shared_timestamp(meter.span.end))
    if len(_identities) >= _MOST_IDENTITIES:
        _identities.clear()
    _identities[key] = limit, shown
    return shown


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

"""Recharge policies and recharges as messages of the contract, and the checks of what callers send."""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration

from evaluator.amounts import ZERO, exact_arithmetic, format_decimal
from evaluator.balances import Unit
from evaluator.recharges import PolicyState, RechargeState, RechargeTerms
from generated.tidemark.v1 import access_pb2, account_service_pb2, recharge_pb2
from server.calls.validation import Violations, to_timestamp
from store.recharges.policies import PolicyFact, StoredPolicy
from store.recharges.recharges import Result, StoredRecharge

MAX_COOLDOWN = timedelta(days=31)
MIN_REPORT_TIMEOUT = timedelta(minutes=1)
MAX_REPORT_TIMEOUT = timedelta(days=90)
DEFAULT_FAILURE_COOLDOWN = timedelta(hours=1)
DEFAULT_REPORT_TIMEOUT = timedelta(days=7)
DEFAULT_ATTEMPTS = 3
MAX_ATTEMPTS = 100

Number = TypeVar("Number", bound=int)
State = TypeVar("State")

_POLICY_STATES = {
    PolicyState.ENABLED: recharge_pb2.RECHARGE_POLICY_STATE_ENABLED,
    PolicyState.DISABLED: recharge_pb2.RECHARGE_POLICY_STATE_DISABLED,
}
STATES = {state: recharge_pb2.RechargeState.Value(f"RECHARGE_STATE_{state}") for state in RechargeState}


def read_policy(violations: Violations, path: str, sent: recharge_pb2.RechargePolicy, now: datetime) -> PolicyFact:
    """The policy that was sent. Raises InvalidArgument."""
    customer_id = violations.identifier(f"{path}.customer_id", sent.customer_id)
    balance_id = violations.identifier(f"{path}.balance_id", sent.balance_id)
    below = _not_negative(violations, f"{path}.below", sent.below)
    up_to, fixed, min_amount = _read_size(violations, path, sent, below)
    max_amount = None
    if sent.max_amount_per_period:
        max_amount = _positive(violations, f"{path}.max_amount_per_period", sent.max_amount_per_period)
    _check_count(violations, f"{path}.max_count_per_period", sent.max_count_per_period, None)
    _check_count(violations, f"{path}.max_attempts", sent.max_attempts, MAX_ATTEMPTS)
    cooldown = _read_duration(violations, f"{path}.cooldown", sent, "cooldown", timedelta())
    after_failure = _read_duration(
        violations, f"{path}.failure_cooldown", sent, "failure_cooldown", max(cooldown, DEFAULT_FAILURE_COOLDOWN)
    )
    timeout = _read_duration(
        violations,
        f"{path}.report_timeout",
        sent,
        "report_timeout",
        DEFAULT_REPORT_TIMEOUT,
        MIN_REPORT_TIMEOUT,
        MAX_REPORT_TIMEOUT,
    )
    as_of_time = now
    if sent.HasField("as_of_time"):
        as_of_time = violations.past_time(f"{path}.as_of_time", sent.as_of_time, now)
    violations.raise_if_any()
    terms = RechargeTerms(
        below=below,
        up_to=up_to,
        fixed=fixed,
        min_amount=min_amount,
        max_amount=max_amount,
        max_count=sent.max_count_per_period or None,
        cooldown=cooldown,
        failure_cooldown=after_failure,
        max_attempts=sent.max_attempts or DEFAULT_ATTEMPTS,
        report_timeout=timeout,
    )
    return PolicyFact(customer_id, balance_id, terms, as_of_time)


def _read_size(
    violations: Violations, path: str, sent: recharge_pb2.RechargePolicy, below: Decimal
) -> tuple[Decimal | None, Decimal | None, Decimal]:
    """The level up to which is recharged, or the fixed amount, and the least amount."""
    match sent.WhichOneof("size"):
        case "up_to":
            level = violations.decimal(f"{path}.up_to.level", sent.up_to.level)
            if sent.up_to.level and level <= below:
                violations.add(f"{path}.up_to.level", "it is not more than below")
            least = ZERO
            if sent.up_to.min_amount:
                least = _not_negative(violations, f"{path}.up_to.min_amount", sent.up_to.min_amount)
                with exact_arithmetic():
                    if least > level - below:
                        violations.add(f"{path}.up_to.min_amount", "it is more than level less below")
            return level, None, least
        case "fixed":
            return None, _positive(violations, f"{path}.fixed.amount", sent.fixed.amount), ZERO
    violations.add(f"{path}.size", "one of up_to and fixed is required")
    return None, None, ZERO


def _not_negative(violations: Violations, path: str, text: str) -> Decimal:
    amount = violations.decimal(path, text)
    if amount < ZERO:
        violations.add(path, "it is negative")
    return amount


def _positive(violations: Violations, path: str, text: str) -> Decimal:
    amount = violations.decimal(path, text)
    if text and amount <= ZERO and not any(item.path == path for item in violations.found):
        violations.add(path, "it is not more than 0")
    return amount


def _check_count(violations: Violations, path: str, number: int, most: int | None) -> None:
    if number < 0:
        violations.add(path, f"it is {number}; it is not negative")
    elif most is not None and number > most:
        violations.add(path, f"it is {number}; at most {most} are allowed")


def _read_duration(
    violations: Violations,
    path: str,
    sent: recharge_pb2.RechargePolicy,
    name: str,
    default: timedelta,
    shortest: timedelta = timedelta(),
    longest: timedelta = MAX_COOLDOWN,
) -> timedelta:
    """A duration with both bounds included; `default` where it is unset."""
    if not sent.HasField(name):  # type: ignore[arg-type]
        return default
    duration: Duration = getattr(sent, name)
    seconds, nanos = duration.seconds, duration.nanos
    least, most = int(shortest.total_seconds()), int(longest.total_seconds())
    if not 0 <= nanos <= 999_999_999 or seconds < least or (seconds, nanos) > (most, 0):
        violations.add(path, f"it lies between {least} s and {longest.days} days")
        return default
    return timedelta(seconds=seconds, microseconds=nanos // 1000)


def policy_message(stored: StoredPolicy) -> recharge_pb2.RechargePolicy:
    """The message for a policy."""
    policy, terms, standing = stored.policy, stored.policy.terms, stored.policy.standing
    message = recharge_pb2.RechargePolicy(
        customer_id=policy.customer_id,
        balance_id=policy.balance_id,
        below=format_decimal(terms.below),
        max_amount_per_period="" if terms.max_amount is None else format_decimal(terms.max_amount),
        max_count_per_period=terms.max_count or 0,
        cooldown=_duration(terms.cooldown),
        failure_cooldown=_duration(terms.failure_cooldown),
        max_attempts=terms.max_attempts,
        report_timeout=_duration(terms.report_timeout),
        as_of_time=to_timestamp(stored.as_of_time),
        state=_POLICY_STATES[standing.state],
        failed_attempts=standing.failed_attempts,
        open_recharge_id=standing.open_recharge_id or "",
        create_time=to_timestamp(stored.create_time),
        update_time=to_timestamp(stored.update_time),
    )
    if terms.up_to is not None:
        message.up_to.level = format_decimal(terms.up_to)
        message.up_to.min_amount = format_decimal(terms.min_amount) if terms.min_amount else ""
    elif terms.fixed is not None:
        message.fixed.amount = format_decimal(terms.fixed)
    if standing.disabled_reason is not None:
        message.disabled_reason = disabled_reason_number(standing.disabled_reason)
    if standing.disable_time is not None:
        message.disable_time.CopyFrom(to_timestamp(standing.disable_time))
    if standing.wait_reason is not None:
        message.wait_reason = recharge_pb2.RechargeWaitReason.Value(f"RECHARGE_WAIT_REASON_{standing.wait_reason}")
    if standing.wait_end_time is not None:
        message.wait_end_time.CopyFrom(to_timestamp(standing.wait_end_time))
    return message


def disabled_reason_number(reason: str) -> recharge_pb2.RechargePolicyDisabledReason.ValueType:
    """The number of a reason for which a policy switched itself off."""
    return recharge_pb2.RechargePolicyDisabledReason.Value(f"RECHARGE_POLICY_DISABLED_REASON_{reason}")


def cancel_reason_number(reason: str) -> recharge_pb2.RechargeCancelReason.ValueType:
    """The number of a reason for which a recharge was canceled."""
    return recharge_pb2.RechargeCancelReason.Value(f"RECHARGE_CANCEL_REASON_{reason}")


def recharge_message(stored: StoredRecharge) -> recharge_pb2.Recharge:
    """The message for a recharge."""
    message = recharge_pb2.Recharge(
        recharge_id=stored.recharge_id,
        customer_id=stored.customer_id,
        balance_id=stored.balance_id,
        sequence=stored.sequence,
        state=STATES[stored.state],
        attempt=stored.attempt,
        amount=format_decimal(stored.amount),
        remaining=format_decimal(stored.remaining),
        create_time=to_timestamp(stored.create_time),
        expire_time=to_timestamp(stored.expire_time),
    )
    write_access(message, stored.unit)
    if stored.end_time is not None:
        message.end_time.CopyFrom(to_timestamp(stored.end_time))
    if stored.cancel_reason is not None:
        message.cancel_reason = cancel_reason_number(stored.cancel_reason)
    if stored.report_time is not None:
        message.report_time.CopyFrom(to_timestamp(stored.report_time))
    if (result := stored.result) is None:
        return message
    if stored.state is RechargeState.PAID:
        message.paid.amount = "" if stored.paid_amount is None else format_decimal(stored.paid_amount)
        message.paid.segment_number = stored.segment_number or 0
        message.paid.payment_reference = result.payment_reference
    else:
        message.failed.failure_message = result.failure_message
        message.failed.permanent = result.permanent
        message.failed.payment_reference = result.payment_reference
        message.failed.SetInParent()
    return message


def write_access(message: recharge_pb2.Recharge, unit: Unit) -> None:
    """Sets what the balance of a recharge is held in."""
    if unit.metric_id is not None:
        message.quantity.CopyFrom(access_pb2.QuantityAccess(metric_id=unit.metric_id))
    else:
        message.spend.CopyFrom(access_pb2.SpendAccess(currency=unit.currency or ""))


def read_result(violations: Violations, sent: account_service_pb2.ReportRechargeRequest) -> Result:
    """What became of a payment. The caller raises the violations."""
    match sent.WhichOneof("result"):
        case "paid":
            amount = None
            if sent.paid.amount:
                amount = _positive(violations, "paid.amount", sent.paid.amount)
            if sent.paid.segment_number < 0:
                violations.add(
                    "paid.segment_number", f"it is {sent.paid.segment_number}; segments are numbered from 1"
                )
            reference = violations.identifier("paid.payment_reference", sent.paid.payment_reference, required=False)
            return Result(RechargeState.PAID, amount, sent.paid.segment_number or None, reference)
        case "failed":
            failure_message = violations.text("failed.failure_message", sent.failed.failure_message)
            reference = violations.identifier(
                "failed.payment_reference", sent.failed.payment_reference, required=False
            )
            return Result(
                RechargeState.FAILED,
                payment_reference=reference,
                failure_message=failure_message,
                permanent=sent.failed.permanent,
            )
    violations.add("result", "one of paid and failed is required")
    return Result(RechargeState.FAILED)


def read_policy_state(
    violations: Violations, path: str, number: recharge_pb2.RechargePolicyState.ValueType
) -> PolicyState | None:
    """The state of a filter; None where it is unset."""
    return _read_state(violations, path, number, {known: state for state, known in _POLICY_STATES.items()}.get)


def read_recharge_state(
    violations: Violations, path: str, number: recharge_pb2.RechargeState.ValueType
) -> RechargeState | None:
    """The state of a filter; None where it is unset."""
    return _read_state(violations, path, number, {known: state for state, known in STATES.items()}.get)


def _read_state(
    violations: Violations, path: str, number: Number, state_of: Callable[[Number], State | None]
) -> State | None:
    if not number:
        return None
    state = state_of(number)
    if state is None:
        violations.add(path, f"there is no state {number}")
    return state


def _duration(value: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(value)
    return duration

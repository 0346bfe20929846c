"""Recharges: when a customer's balance runs low, whether a recharge of it is requested, and of how much.

Pure: the caller reads a policy and its balance under the customer's wallet, and stores what `advance` returns.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from evaluator.amounts import ZERO
from evaluator.balances import Unit
from evaluator.ids import digest_id
from evaluator.periods import Period

RECHARGE_ID_PREFIX = "rch_"
POLICY_ID_PREFIX = "rcp_"


class RechargeState(StrEnum):
    """What became of a recharge."""

    REQUESTED = "REQUESTED"  # open: it waits for a report
    PAID = "PAID"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"  # no report came in time
    CANCELED = "CANCELED"


class CancelReason(StrEnum):
    """Why a recharge was canceled."""

    POLICY_DELETED = "POLICY_DELETED"
    BALANCE_VOIDED = "BALANCE_VOIDED"


class PolicyState(StrEnum):
    """Whether a policy requests recharges."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


class DisabledReason(StrEnum):
    """Why a policy switched itself off."""

    ATTEMPTS_FAILED = "ATTEMPTS_FAILED"  # as many in a row as it allows
    PERMANENT_FAILURE = "PERMANENT_FAILURE"  # the caller reported that another attempt would fail, too
    BALANCE_VOIDED = "BALANCE_VOIDED"


class WaitReason(StrEnum):
    """Why a policy requests nothing although its balance is low."""

    COOLDOWN = "COOLDOWN"
    MAX_COUNT = "MAX_COUNT"
    MAX_AMOUNT = "MAX_AMOUNT"


class LastResult(StrEnum):
    """How the last recharge of a policy ended."""

    PAID = "PAID"
    FAILED = "FAILED"  # reported, or expired
    PERMANENT = "PERMANENT"


@dataclass(frozen=True, slots=True)
class RechargeTerms:
    """What the caller put. Amounts are in the unit of the balance.

    below: a recharge is requested while less remains. up_to: what then has to remain; or fixed: the amount of each
    recharge. min_amount: the least that is requested of what the cap leaves. max_amount, max_count: of the recharges
    of one billing period that are paid or open. cooldown: after one was paid; failure_cooldown: after one failed or
    expired. max_attempts: in a row that may fail. report_timeout: the time for a report.
    """

    below: Decimal
    up_to: Decimal | None
    fixed: Decimal | None
    min_amount: Decimal
    max_amount: Decimal | None
    max_count: int | None
    cooldown: timedelta
    failure_cooldown: timedelta
    max_attempts: int
    report_timeout: timedelta


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a policy stands. `due_time`: when time alone next changes something; None: never.

    last_sequence: the number of its last recharge, 0 before the first. wait_end_time: when what `wait_reason` names
    ends.
    """

    state: PolicyState = PolicyState.ENABLED
    disabled_reason: DisabledReason | None = None
    disable_time: datetime | None = None
    failed_attempts: int = 0
    last_sequence: int = 0
    open_recharge_id: str | None = None
    last_result: LastResult | None = None
    last_end_time: datetime | None = None
    wait_reason: WaitReason | None = None
    wait_end_time: datetime | None = None
    due_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy of a balance, with where it stands."""

    customer_id: str
    balance_id: str
    policy_id: str
    terms: RechargeTerms
    standing: Standing


@dataclass(frozen=True, slots=True)
class BalanceReading:
    """What a policy sees of its balance.

    remaining: over the active segments, granted less what was drawn and adjusted; amounts that are held count as
    remaining. next_change: when a segment next begins or ends. period: the customer's billing period. used_amount,
    used_count: of the policy's recharges in it that are paid, or open without being the policy's present one.
    """

    unit: Unit
    remaining: Decimal
    next_change: datetime | None
    voided: bool
    period: Period
    used_amount: Decimal = ZERO
    used_count: int = 0


@dataclass(frozen=True, slots=True)
class NewRecharge:
    """A recharge that is requested. attempt: 1, and one more after each failure in a row."""

    recharge_id: str
    sequence: int
    attempt: int
    amount: Decimal
    remaining: Decimal
    expire_time: datetime


@dataclass(frozen=True, slots=True)
class PolicyStep:
    """What becomes of a policy.

    ended, end_state: its open recharge that ends without a report. disabled: it has switched itself off.
    """

    standing: Standing
    ended: str | None = None
    end_state: RechargeState | None = None
    cancel_reason: CancelReason | None = None
    disabled: DisabledReason | None = None
    requested: NewRecharge | None = None


def recharge_id_of(organization_id: int, policy_id: str, sequence: int) -> str:
    """The id of a recharge. It follows from the policy and the number, so that no two are made of one."""
    return digest_id(RECHARGE_ID_PREFIX, organization_id, policy_id, sequence)


def advance(organization_id: int, policy: Policy, reading: BalanceReading, now: datetime) -> PolicyStep:
    """What becomes of a policy at `now`. Must run under `exact_arithmetic`.

    An open recharge whose time is over counts as failed. A policy is switched off by too many failures in a row, and
    with its balance. Otherwise a recharge is requested if the balance is low, none is open, and nothing has to be
    waited for.
    """
    step = _ended(policy, reading, now)
    step = _disabled(policy, step, reading, now)
    standing = step.standing
    if standing.open_recharge_id is not None:
        return step
    if standing.state is PolicyState.DISABLED:
        return _with(step, wait_reason=None, wait_end_time=None, due_time=None)
    if reading.remaining >= policy.terms.below:
        return _with(step, wait_reason=None, wait_end_time=None, due_time=reading.next_change)
    return _wanted(organization_id, policy, step, reading, now)


def _ended(policy: Policy, reading: BalanceReading, now: datetime) -> PolicyStep:
    """Ends an open recharge that has expired, or whose balance was voided."""
    standing = policy.standing
    if (recharge_id := standing.open_recharge_id) is None:
        return PolicyStep(standing)
    if reading.voided:
        ended = replace(standing, open_recharge_id=None)
        return PolicyStep(ended, recharge_id, RechargeState.CANCELED, CancelReason.BALANCE_VOIDED)
    if standing.due_time is None or standing.due_time > now:
        return PolicyStep(standing)
    return PolicyStep(failed(standing, now), recharge_id, RechargeState.EXPIRED)


def _disabled(policy: Policy, step: PolicyStep, reading: BalanceReading, now: datetime) -> PolicyStep:
    standing = step.standing
    if standing.state is PolicyState.DISABLED or standing.open_recharge_id is not None:
        return step
    if reading.voided:
        reason = DisabledReason.BALANCE_VOIDED
    elif standing.last_result is LastResult.PERMANENT:
        reason = DisabledReason.PERMANENT_FAILURE
    elif standing.failed_attempts >= policy.terms.max_attempts:
        reason = DisabledReason.ATTEMPTS_FAILED
    else:
        return step
    off = replace(standing, state=PolicyState.DISABLED, disabled_reason=reason, disable_time=now)
    return replace(step, standing=off, disabled=reason)


def _wanted(
    organization_id: int, policy: Policy, step: PolicyStep, reading: BalanceReading, now: datetime
) -> PolicyStep:
    """Requests a recharge of a low balance, or notes what it has to wait for."""
    terms, standing = policy.terms, step.standing
    cooled = _cooldown_end(terms, standing)
    if cooled is not None and cooled > now:
        return _waiting(step, WaitReason.COOLDOWN, cooled, reading)
    if terms.max_count is not None and reading.used_count >= terms.max_count:
        return _waiting(step, WaitReason.MAX_COUNT, reading.period.end, reading)
    amount = _amount(terms, reading)
    if amount is None:
        return _waiting(step, WaitReason.MAX_AMOUNT, reading.period.end, reading)
    sequence, expire_time = standing.last_sequence + 1, now + terms.report_timeout
    recharge_id = recharge_id_of(organization_id, policy.policy_id, sequence)
    requested = NewRecharge(
        recharge_id, sequence, standing.failed_attempts + 1, amount, reading.remaining, expire_time
    )
    step = _with(
        step,
        last_sequence=sequence,
        open_recharge_id=recharge_id,
        wait_reason=None,
        wait_end_time=None,
        due_time=expire_time,
    )
    return replace(step, requested=requested)


def _amount(terms: RechargeTerms, reading: BalanceReading) -> Decimal | None:
    """How much to request; None where the cap of the period leaves too little.

    A fixed amount is requested whole or not at all. Up to a level, what the cap leaves is requested, unless that is
    less than the smallest amount.
    """
    wanted = terms.fixed if terms.up_to is None else terms.up_to - reading.remaining
    assert wanted is not None, "a policy has one of up_to and fixed"
    if terms.max_amount is None:
        return wanted
    left = terms.max_amount - reading.used_amount
    if wanted <= left:
        return wanted
    if terms.up_to is None or left <= ZERO or left < terms.min_amount:
        return None
    return left


def _cooldown_end(terms: RechargeTerms, standing: Standing) -> datetime | None:
    if standing.last_end_time is None or standing.last_result is None:
        return None
    paid = standing.last_result is LastResult.PAID
    return standing.last_end_time + (terms.cooldown if paid else terms.failure_cooldown)


def _waiting(step: PolicyStep, reason: WaitReason, end_time: datetime, reading: BalanceReading) -> PolicyStep:
    due = end_time if reading.next_change is None else min(end_time, reading.next_change)
    return _with(step, wait_reason=reason, wait_end_time=end_time, due_time=due)


def _with(step: PolicyStep, **changes: object) -> PolicyStep:
    return replace(step, standing=replace(step.standing, **changes))  # type: ignore[arg-type]


def paid(standing: Standing, now: datetime) -> Standing:
    """After the open recharge was paid."""
    return replace(standing, failed_attempts=0, open_recharge_id=None, last_result=LastResult.PAID, last_end_time=now)


def failed(standing: Standing, now: datetime, *, permanently: bool = False) -> Standing:
    """After the open recharge failed, or expired."""
    return replace(
        standing,
        failed_attempts=standing.failed_attempts + 1,
        open_recharge_id=None,
        last_result=LastResult.PERMANENT if permanently else LastResult.FAILED,
        last_end_time=now,
    )


def paid_late(standing: Standing) -> Standing:
    """After a recharge that had ended without a report was paid nevertheless: payments succeed again."""
    return replace(standing, failed_attempts=0)


def failed_late(standing: Standing, *, permanently: bool) -> Standing:
    """After a recharge that had ended without a report is known to have failed: its end counted already."""
    if not permanently or standing.open_recharge_id is not None:
        return standing
    return replace(standing, last_result=LastResult.PERMANENT)


def enabled_again(standing: Standing) -> Standing:
    """After the caller has switched the policy on again: as if nothing had failed. Its numbers go on."""
    return Standing(last_sequence=standing.last_sequence, open_recharge_id=standing.open_recharge_id)

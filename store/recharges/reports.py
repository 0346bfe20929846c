"""Reports: what became of the payment of a recharge. The transaction must hold the customer's wallet."""

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.recharges import CancelReason, RechargeState, failed, failed_late, paid, paid_late
from store.balances import balances
from store.balances.adjustments import Adjustment, NoActiveSegment, adjust
from store.balances.changes import BalanceChange, BalanceUnknown, BalanceVoided
from store.recharges import policies, recharges
from store.recharges.recharges import Result, StoredRecharge
from store.tables.recharges import recharge, recharge_policy


class RechargeUnknown(Exception):
    """The customer has no such recharge."""

    def __init__(self, customer_id: str, recharge_id: str) -> None:
        super().__init__(customer_id, recharge_id)
        self.customer_id = customer_id
        self.recharge_id = recharge_id


class RechargeEnded(Exception):
    """Another result of the recharge was reported before."""

    def __init__(self, stored: StoredRecharge) -> None:
        super().__init__(stored.customer_id, stored.recharge_id)
        self.stored = stored


@dataclass(frozen=True)
class Reported:
    """The result of a report. previous: before it; None if the same report was made before. balance: of a payment."""

    recharge: StoredRecharge
    previous: StoredRecharge | None = None
    balance: BalanceChange | None = None


async def report(
    connection: AsyncConnection,
    organization_id: int,
    customer_id: str,
    recharge_id: str,
    result: Result,
    now: datetime,
) -> Reported:
    """Closes a recharge, unless the same was reported before; adds what was paid to the balance.

    The policy is to be evaluated afterwards, which also switches it off where too much has failed. Raises
    RechargeUnknown, RechargeEnded, BalanceVoided, and what an adjustment raises.
    """
    stored = await recharges.get(connection, organization_id, customer_id, recharge_id)
    if stored is None:
        raise RechargeUnknown(customer_id, recharge_id)
    if stored.result is not None:
        if stored.result != result:
            raise RechargeEnded(stored)
        return Reported(stored)
    changed, balance = replace(stored, state=result.state, result=result, report_time=now), None
    if stored.state is RechargeState.REQUESTED:
        changed = replace(changed, end_time=now)
    if result.state is RechargeState.PAID:
        balance = await _add(connection, stored, result, now)
        amount = stored.amount if result.amount is None else result.amount
        changed = replace(changed, paid_amount=amount, segment_number=balance.segment_number)
    await _write(connection, changed)
    await _note(connection, stored, result, now)
    return Reported(replace(changed, cancel_reason=None), stored, balance)


async def _add(connection: AsyncConnection, stored: StoredRecharge, result: Result, now: datetime) -> BalanceChange:
    """Adds what was paid to the balance."""
    number = result.segment_number
    if number is None:
        number = await _lasting_segment(connection, stored, now)
    amount = stored.amount if result.amount is None else result.amount
    adjustment = Adjustment(stored.customer_id, stored.balance_id, stored.recharge_id, amount, number)
    return await adjust(connection, stored.organization_id, adjustment, now)


async def _lasting_segment(connection: AsyncConnection, stored: StoredRecharge, now: datetime) -> int:
    """The number of the active segment that ends last."""
    held = await balances.get(connection, stored.organization_id, stored.customer_id, stored.balance_id)
    if held is None:
        raise BalanceUnknown(stored.customer_id, stored.balance_id)
    if held.void_time is not None:
        raise BalanceVoided(stored.customer_id, stored.balance_id)
    active = held.active(now)
    if not active:
        raise NoActiveSegment(stored.customer_id, stored.balance_id)
    last = max(active, key=lambda one: (one.fact.end_time is None, one.fact.end_time or now, -one.segment_number))
    return last.segment_number


async def _write(connection: AsyncConnection, changed: StoredRecharge) -> None:
    result = changed.result
    assert result is not None, "a reported recharge has a result"
    await connection.execute(
        update(recharge)
        .where(
            recharge.c.organization_id == changed.organization_id,
            recharge.c.customer_id == changed.customer_id,
            recharge.c.recharge_id == changed.recharge_id,
        )
        .values(
            state=changed.state.value,
            end_time=changed.end_time,
            cancel_reason=None,
            report_time=changed.report_time,
            paid_amount=changed.paid_amount,
            segment_number=changed.segment_number,
            requested_amount=result.amount,
            requested_segment_number=result.segment_number,
            payment_reference=result.payment_reference or None,
            failure_message=result.failure_message or None,
            permanent=result.permanent,
        )
    )


async def _note(connection: AsyncConnection, stored: StoredRecharge, result: Result, now: datetime) -> None:
    """Notes the result in the policy that requested the recharge, if it still exists."""
    found = await policies.get(connection, stored.organization_id, stored.customer_id, stored.balance_id)
    if found is None or found.policy.policy_id != stored.policy_id:
        return
    standing, is_paid = found.policy.standing, result.state is RechargeState.PAID
    if standing.open_recharge_id == stored.recharge_id:
        after = paid(standing, now) if is_paid else failed(standing, now, permanently=result.permanent)
    else:
        after = paid_late(standing) if is_paid else failed_late(standing, permanently=result.permanent)
    await connection.execute(
        update(recharge_policy)
        .where(
            recharge_policy.c.organization_id == stored.organization_id,
            recharge_policy.c.customer_id == stored.customer_id,
            recharge_policy.c.balance_id == stored.balance_id,
        )
        .values(**policies.standing_values(after))
    )


async def cancel(
    connection: AsyncConnection, organization_id: int, customer_id: str, recharge_id: str, now: datetime
) -> StoredRecharge | None:
    """Cancels an open recharge whose policy is deleted; None if there is none of that id."""
    stored = await recharges.get(connection, organization_id, customer_id, recharge_id)
    if stored is None or stored.state is not RechargeState.REQUESTED:
        return None
    reason = CancelReason.POLICY_DELETED
    await connection.execute(
        update(recharge)
        .where(
            recharge.c.organization_id == organization_id,
            recharge.c.customer_id == customer_id,
            recharge.c.recharge_id == recharge_id,
        )
        .values(state=RechargeState.CANCELED.value, cancel_reason=reason.value, end_time=now)
    )
    return replace(stored, state=RechargeState.CANCELED, cancel_reason=reason, end_time=now)

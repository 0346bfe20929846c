"""The deletion of a recharge policy, which cancels its open recharge."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.recharge_notifications import RechargeNotification
from runtime.tracing.current import current_trace
from store.balances import wallets
from store.notifications.writing import write_notifications
from store.postgres.database import driver
from store.recharges import policies, reports
from store.recharges.policies import StoredPolicy
from store.recharges.recharges import StoredRecharge


async def delete(
    connection: AsyncConnection, organization_id: int, customer_id: str, balance_id: str, now: datetime
) -> StoredPolicy | None:
    """Deletes a policy under the customer's wallet; returns it, or None if there was none.

    A policy has a wallet: without one there is nothing to lock, and none is created.
    """
    if await policies.get(connection, organization_id, customer_id, balance_id) is None:
        return None
    await wallets.lock(connection, organization_id, [customer_id])
    stored = await policies.remove(connection, organization_id, customer_id, balance_id)
    if stored is not None and (recharge_id := stored.policy.standing.open_recharge_id) is not None:
        canceled = await reports.cancel(connection, organization_id, customer_id, recharge_id, now)
        if canceled is not None:
            await _notify(connection, canceled, now)
    return stored


async def _notify(connection: AsyncConnection, canceled: StoredRecharge, now: datetime) -> None:
    notification = RechargeNotification(
        organization=str(canceled.organization_id),
        recharge_id=canceled.recharge_id,
        customer_id=canceled.customer_id,
        balance_id=canceled.balance_id,
        unit=canceled.unit,
        recharge_sequence=canceled.sequence,
        state=canceled.state,
        attempt=canceled.attempt,
        amount=canceled.amount,
        remaining=canceled.remaining,
        request_time=canceled.create_time,
        expire_time=canceled.expire_time,
        time=now,
        cancel_reason=canceled.cancel_reason,
    )
    trace = current_trace()
    traces = {} if trace is None else {notification.notification_id: trace.stored}
    raw = await driver(connection)
    await write_notifications(raw, canceled.organization_id, [notification], now, traces)

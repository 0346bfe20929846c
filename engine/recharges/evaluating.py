"""Recharges are requested in the transaction that lowers a balance, under the wallet of its customer.

Only customers with a policy cost anything, which their wallets say. Of these, only the policies of the balances that
changed are read, and by the timers those whose time has come.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from engine.rules.transaction import Transaction
from evaluator.amounts import exact_arithmetic
from evaluator.balances import Unit
from evaluator.events import UsageEvent
from evaluator.recharge_notifications import PolicyDisabledNotification, RechargeNotification
from evaluator.recharges import (
    BalanceReading,
    DisabledReason,
    NewRecharge,
    Policy,
    PolicyStep,
    RechargeState,
    advance,
    recharge_id_of,
)
from evaluator.routing_facts import CustomerFacts
from runtime.tracing.current import current_trace
from store.audit import json_states, writing
from store.audit.entries import SERVER, Changed, NewEntry, ResourceType
from store.balances.wallets import Wallet
from store.notifications.writing import NewNotification, write_notifications
from store.recharges import evaluation
from store.recharges.evaluation import Asked, Ended, EndedRecharge

Touched = Mapping[str, Collection[str]]  # the balances that changed, by customer id


async def evaluate_recharges(
    transaction: Transaction,
    held: Mapping[CustomerFacts, Wallet],
    touched: Touched,
    *,
    due: bool = False,
    events: Sequence[UsageEvent] = (),
) -> None:
    """Evaluates the policies of the balances that changed; `due`: and those whose timer is due.

    held: customers with their wallets, which the transaction holds. events: the usage that changed the balances; the
    notifications get its traces.
    """
    asked = {
        customer.customer_id: Asked(
            customer.customer_id,
            moment := wallet.moment(transaction.now),
            customer.cycle.period_at(moment),
            touched.get(customer.customer_id, ()),
        )
        for customer, wallet in held.items()
        if wallet.has_recharge_policy and not customer.being_erased and (due or touched.get(customer.customer_id))
    }
    if not asked:
        return
    found = await evaluation.read(transaction.driver, transaction.organization_id, asked, due=due)
    steps = list[tuple[Policy, BalanceReading, PolicyStep]]()
    slices = transaction.slices()
    slices.begin_at_once()
    for policy, reading in found:
        with exact_arithmetic():
            step = advance(transaction.organization_id, policy, reading, asked[policy.customer_id].moment)
        steps.append((policy, reading, step))
        await slices.pause()
    await _Recording(transaction, steps, events).write()


class _Recording:
    """Writes what becomes of policies, with notifications and entries of the audit log."""

    def __init__(
        self,
        transaction: Transaction,
        steps: Sequence[tuple[Policy, BalanceReading, PolicyStep]],
        events: Sequence[UsageEvent],
    ) -> None:
        self._transaction = transaction
        self._organization = str(transaction.organization_id)
        self._steps = steps
        self._events = events

    async def write(self) -> None:
        """Writes it. Most policies stay as they are, and cost no statement."""
        transaction = self._transaction
        connection, organization_id, now = transaction.driver, transaction.organization_id, transaction.now
        notifications = list[NewNotification]()
        ended = {
            step.ended: Ended(policy.customer_id, step.ended, step.end_state, step.cancel_reason)
            for policy, _, step in self._steps
            if step.ended is not None and step.end_state is not None
        }
        if ended:
            for one in await evaluation.end(connection, organization_id, list(ended.values()), now):
                notifications.append(self._ended(one, ended[one.recharge_id]))
        requested = [
            (policy, reading.unit, step.requested)
            for policy, reading, step in self._steps
            if step.requested is not None
        ]
        if requested:
            await evaluation.request(connection, organization_id, requested, now)
            notifications += [self._requested(*one) for one in requested]
        disabled = [(policy, reading, step) for policy, reading, step in self._steps if step.disabled is not None]
        notifications += [self._disabled(*one) for one in disabled]
        changed = [
            replace(policy, standing=step.standing)
            for policy, _, step in self._steps
            if step.standing != policy.standing
        ]
        if changed:
            await evaluation.write(connection, organization_id, changed)
        entries = [
            _entry(policy, step, now)
            for policy, _, step in disabled
            if step.disabled is not DisabledReason.BALANCE_VOIDED  # the voided balance has an entry itself
        ]
        if entries:
            await writing.write(connection, organization_id, entries, now)
        if notifications:
            traces = await self._traces(notifications)
            await write_notifications(connection, organization_id, notifications, now, traces)

    def _ended(self, one: EndedRecharge, ended: Ended) -> RechargeNotification:
        return RechargeNotification(
            organization=self._organization,
            recharge_id=one.recharge_id,
            customer_id=one.customer_id,
            balance_id=one.balance_id,
            unit=one.unit,
            recharge_sequence=one.sequence,
            state=ended.state,
            attempt=one.attempt,
            amount=one.amount,
            remaining=one.remaining,
            request_time=one.create_time,
            expire_time=one.expire_time,
            time=self._transaction.now,
            cancel_reason=ended.cancel_reason,
        )

    def _requested(self, policy: Policy, unit: Unit, new: NewRecharge) -> RechargeNotification:
        return RechargeNotification(
            organization=self._organization,
            recharge_id=new.recharge_id,
            customer_id=policy.customer_id,
            balance_id=policy.balance_id,
            unit=unit,
            recharge_sequence=new.sequence,
            state=RechargeState.REQUESTED,
            attempt=new.attempt,
            amount=new.amount,
            remaining=new.remaining,
            request_time=self._transaction.now,
            expire_time=new.expire_time,
            time=self._transaction.now,
        )

    def _disabled(self, policy: Policy, reading: BalanceReading, step: PolicyStep) -> PolicyDisabledNotification:
        assert step.disabled is not None, "only policies that switched themselves off"
        sequence = step.standing.last_sequence
        return PolicyDisabledNotification(
            organization=self._organization,
            policy_id=policy.policy_id,
            customer_id=policy.customer_id,
            balance_id=policy.balance_id,
            unit=reading.unit,
            reason=step.disabled,
            failed_attempts=step.standing.failed_attempts,
            max_attempts=policy.terms.max_attempts,
            last_recharge_id=None
            if sequence == 0
            else recharge_id_of(self._transaction.organization_id, policy.policy_id, sequence),
            time=self._transaction.now,
        )

    async def _traces(self, notifications: Sequence[NewNotification]) -> Mapping[str, str]:
        """The traces of notifications: of a customer's last event that has one, or else the current one."""
        here, of_events = current_trace(), self._transaction.traces
        if of_events is None:
            return {} if here is None else dict.fromkeys((one.notification_id for one in notifications), here.stored)
        slices = self._transaction.slices()
        await slices.begin()
        await of_events.find_first(slices)
        customers = {one.customer_id for one in notifications}
        last: dict[str, str] = {}
        for event in self._events:
            if event.customer_id in customers:
                trace = of_events.trace_of((event.customer_id, event.event_id))
                if trace is not None:
                    last[event.customer_id] = trace.stored
            await slices.pause()
        return {one.notification_id: last[one.customer_id] for one in notifications if one.customer_id in last}


def _entry(policy: Policy, step: PolicyStep, now: datetime) -> NewEntry:
    """The entry of the audit log for a policy that switched itself off."""
    assert step.disabled is not None, "only policies that switched themselves off"
    before = json_states.recharge_policy_enabled(policy.customer_id, policy.balance_id)
    after = json_states.recharge_policy_disabled(policy.customer_id, policy.balance_id, step.disabled.value, now)
    changed = Changed(ResourceType.RECHARGE_POLICY, policy.balance_id, policy.customer_id, before, after)
    return NewEntry(SERVER, changed)

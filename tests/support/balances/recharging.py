"""Recharges of one customer through the API, in short calls for tests."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from generated.tidemark.v1 import account_service_pb2, recharge_pb2
from tests.support.balances.holder import Holder

REQUESTED = recharge_pb2.RECHARGE_STATE_REQUESTED
PAID = recharge_pb2.RECHARGE_STATE_PAID
FAILED = recharge_pb2.RECHARGE_STATE_FAILED
EXPIRED = recharge_pb2.RECHARGE_STATE_EXPIRED
CANCELED = recharge_pb2.RECHARGE_STATE_CANCELED
NO_COOLDOWN = timedelta()
PREFIX = "recharge."  # of the types of notifications


def duration(value: timedelta | None) -> Duration | None:
    """The message for a duration; None for None."""
    if value is None:
        return None
    message = Duration()
    message.FromTimedelta(value)
    return message


def up_to(level: str, min_amount: str = "") -> recharge_pb2.RechargeUpTo:
    """A recharge up to a level."""
    return recharge_pb2.RechargeUpTo(level=level, min_amount=min_amount)


def fixed(amount: str) -> recharge_pb2.FixedRecharge:
    """A recharge of a fixed amount."""
    return recharge_pb2.FixedRecharge(amount=amount)


class Recharging(Holder):
    """One customer with its balances and their recharges."""

    def policy(
        self,
        balance_id: str = "prepaid",
        below: str = "20",
        level: str = "100",
        *,
        amount: str = "",
        min_amount: str = "",
        cooldown: timedelta | None = None,
        failure_cooldown: timedelta | None = None,
        report_timeout: timedelta | None = None,
        **fields: Any,
    ) -> recharge_pb2.RechargePolicy:
        """A policy that recharges up to a level, or with `amount` by a fixed amount."""
        return recharge_pb2.RechargePolicy(
            customer_id=self.customer,
            balance_id=balance_id,
            below=below,
            up_to=None if amount else up_to(level, min_amount),
            fixed=fixed(amount) if amount else None,
            cooldown=duration(cooldown),
            failure_cooldown=duration(failure_cooldown),
            report_timeout=duration(report_timeout),
            **fields,
        )

    async def put_policy(self, *args: str, **fields: Any) -> recharge_pb2.RechargePolicy:
        """Puts a policy of `policy`; returns it as it is after its evaluation."""
        request = account_service_pb2.PutRechargePolicyRequest(recharge_policy=self.policy(*args, **fields))
        answer = await self.caller.accounts.PutRechargePolicy(request, metadata=self.caller.metadata)
        return answer.recharge_policy

    async def get_policy(self, balance_id: str = "prepaid") -> recharge_pb2.RechargePolicy:
        """The policy of a balance."""
        request = account_service_pb2.GetRechargePolicyRequest(customer_id=self.customer, balance_id=balance_id)
        answer = await self.caller.accounts.GetRechargePolicy(request, metadata=self.caller.metadata)
        return answer.recharge_policy

    async def delete_policy(self, balance_id: str = "prepaid") -> None:
        """Deletes the policy of a balance."""
        request = account_service_pb2.DeleteRechargePolicyRequest(customer_id=self.customer, balance_id=balance_id)
        await self.caller.accounts.DeleteRechargePolicy(request, metadata=self.caller.metadata)

    async def enable_policy(self, balance_id: str = "prepaid") -> recharge_pb2.RechargePolicy:
        """Switches the policy of a balance on again."""
        request = account_service_pb2.EnableRechargePolicyRequest(customer_id=self.customer, balance_id=balance_id)
        answer = await self.caller.accounts.EnableRechargePolicy(request, metadata=self.caller.metadata)
        return answer.recharge_policy

    async def recharges(
        self, state: recharge_pb2.RechargeState.ValueType = recharge_pb2.RECHARGE_STATE_UNSPECIFIED
    ) -> list[recharge_pb2.Recharge]:
        """The recharges of the customer, oldest first; those of one time and policy by their numbers."""
        request = account_service_pb2.ListRechargesRequest(customer_id=self.customer, state=state, page_size=1000)
        answer = await self.caller.accounts.ListRecharges(request, metadata=self.caller.metadata)
        return sorted(answer.recharges, key=lambda one: (one.create_time.ToNanoseconds(), one.sequence))

    async def amounts(self) -> list[str]:
        """The amounts of all recharges, oldest first."""
        return [one.amount for one in await self.recharges()]

    async def get(self, recharge_id: str) -> recharge_pb2.Recharge:
        """One recharge."""
        request = account_service_pb2.GetRechargeRequest(customer_id=self.customer, recharge_id=recharge_id)
        return (await self.caller.accounts.GetRecharge(request, metadata=self.caller.metadata)).recharge

    async def open(self) -> recharge_pb2.Recharge:
        """The one recharge that waits for a report."""
        [one] = await self.recharges(REQUESTED)
        return one

    async def paid(self, recharge_id: str, **fields: Any) -> account_service_pb2.ReportRechargeResponse:
        """Reports a recharge as paid."""
        return await self._report(recharge_id, paid=recharge_pb2.RechargePaid(**fields))

    async def failed(self, recharge_id: str, **fields: Any) -> account_service_pb2.ReportRechargeResponse:
        """Reports a recharge as failed."""
        return await self._report(recharge_id, failed=recharge_pb2.RechargeFailed(**fields))

    async def _report(self, recharge_id: str, **result: Any) -> account_service_pb2.ReportRechargeResponse:
        request = account_service_pb2.ReportRechargeRequest(
            customer_id=self.customer, recharge_id=recharge_id, **result
        )
        return await self.caller.accounts.ReportRecharge(request, metadata=self.caller.metadata)

    async def notified_recharges(self) -> Sequence[tuple[str, str]]:
        """The notifications about recharges, sorted: the type without its prefix, and the recharge or the reason.

        Those of one transaction have one time, and no order.
        """
        return sorted(
            (one.event_type.removeprefix(PREFIX), one.body["data"].get("recharge_id", one.body["data"].get("reason")))
            for one in await self.caller.notifications()
            if one.customer_id == self.customer and one.event_type.startswith(PREFIX)
        )

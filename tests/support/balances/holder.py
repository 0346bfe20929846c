"""Balances of one customer through the API, in short calls for tests."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from generated.tidemark.v1 import (
    account_service_pb2,
    alert_pb2,
    balance_entry_pb2,
    balance_pb2,
    customer_pb2,
    scope_pb2,
    threshold_pb2,
)
from server.calls.validation import to_timestamp
from tests.support.usage.caller import ALL_CUSTOMERS, BOTH, Caller, ShortTransition, until

Span = tuple[str, datetime, datetime | None]  # amount, start, end of a segment

COMMIT = balance_pb2.BALANCE_KIND_COMMIT
CREDIT = balance_pb2.BALANCE_KIND_CONTRACT_CREDIT
GRANT = balance_pb2.BALANCE_KIND_CREDIT_GRANT
SEAT = balance_pb2.BALANCE_KIND_SEAT_CREDIT
LICENSE = balance_pb2.BALANCE_KIND_LICENSE_ALLOTMENT


class Holder:
    """One customer and its balances, through the API."""

    def __init__(self, caller: Caller, customer: str = "acme") -> None:
        self.caller = caller
        self.customer = customer

    async def put(
        self,
        balance_id: str,
        amount: str = "",
        *,
        kind: balance_pb2.BalanceKind.ValueType = COMMIT,
        spans: Sequence[Span] = (),
        currency: str = "USD",
        metric: str = "",
        seat: tuple[str, str] | None = None,
        draw: bool = True,
        **fields: Any,
    ) -> balance_pb2.Balance:
        """Puts a balance; a single amount is one segment that started yesterday and has no end."""
        spans = spans or [(amount, self.caller.clock.now() - timedelta(days=1), None)]
        balance = balance_pb2.Balance(
            balance_id=balance_id,
            customer_id=self.customer,
            kind=kind,
            draw_down=draw,
            segments=[
                balance_pb2.BalanceSegment(
                    amount=each,
                    start_time=to_timestamp(start),
                    end_time=None if end is None else to_timestamp(end),
                )
                for each, start, end in spans
            ],
            **fields,
        )
        if metric:
            balance.quantity.metric_id = metric
        else:
            balance.spend.currency = currency
        if seat is not None:
            balance.seat.seat_group_key, balance.seat.seat_group_value = seat
        request = account_service_pb2.PutBalanceRequest(balance=balance)
        return (await self.caller.accounts.PutBalance(request, metadata=self.caller.metadata)).balance

    async def adjust(self, balance_id: str, amount: str, adjustment_id: str = "", segment: int = 0) -> None:
        """Adds a positive or negative amount to what is granted."""
        request = account_service_pb2.AdjustBalanceRequest(
            customer_id=self.customer,
            balance_id=balance_id,
            adjustment_id=adjustment_id or f"{balance_id} {amount} {self.caller.clock.now()}",
            amount=amount,
            segment_number=segment,
        )
        await self.caller.accounts.AdjustBalance(request, metadata=self.caller.metadata)

    async def void(self, balance_id: str) -> None:
        """Voids a balance."""
        request = account_service_pb2.VoidBalanceRequest(customer_id=self.customer, balance_id=balance_id)
        await self.caller.accounts.VoidBalance(request, metadata=self.caller.metadata)

    async def plan(self, plan_id: str = "pro", *, end: datetime | None = None) -> None:
        """Puts the customer on a plan."""
        customer = customer_pb2.Customer(customer_id=self.customer, plan_id=plan_id)
        if end is not None:
            customer.plan_end_time.CopyFrom(to_timestamp(end))
        await self.caller.put_customer(customer)

    async def remaining(self) -> dict[str, Decimal]:
        """The remaining amount of the active segments of each balance."""
        request = account_service_pb2.ListBalancesRequest(customer_id=self.customer, page_size=1000)
        answer = await self.caller.accounts.ListBalances(request, metadata=self.caller.metadata)
        return {one.balance_id: Decimal(one.remaining) for one in answer.balances}

    async def overage(self) -> dict[str, Decimal]:
        """The overage in each unit."""
        request = account_service_pb2.ListOveragesRequest(customer_id=self.customer)
        answer = await self.caller.accounts.ListOverages(request, metadata=self.caller.metadata)
        return {one.spend.currency or one.quantity.metric_id: Decimal(one.amount) for one in answer.overages}

    async def segments(self) -> dict[tuple[str, int], balance_pb2.BalanceSegment]:
        """Every segment, by balance and number, also of voided balances."""
        request = account_service_pb2.ListBalancesRequest(
            customer_id=self.customer, page_size=1000, include_voided=True
        )
        answer = await self.caller.accounts.ListBalances(request, metadata=self.caller.metadata)
        return {(one.balance_id, part.segment_number): part for one in answer.balances for part in one.segments}

    async def entries(self) -> list[balance_entry_pb2.BalanceEntry]:
        """The ledger entries of all balances, by balance and in the order in which they were written."""
        found: list[balance_entry_pb2.BalanceEntry] = []
        token = ""
        while True:
            request = account_service_pb2.ListBalanceEntriesRequest(
                customer_id=self.customer, page_size=1000, page_token=token
            )
            answer = await self.caller.accounts.ListBalanceEntries(request, metadata=self.caller.metadata)
            found += answer.entries
            token = answer.next_page_token
            if not token:
                return found

    async def spend(
        self, event_id: str, cost: str, *, at: datetime | None = None, metric: str = "calls", **properties: str
    ) -> list[ShortTransition]:
        """Sends an event with a cost; returns the transitions of the answer."""
        answer = await self.caller.send(
            self.caller.event(event_id, "1", self.customer, metric=metric, cost=cost, at=at, **properties)
        )
        assert not answer.rejected
        return [
            ShortTransition(
                threshold_pb2.TransitionKind.Name(one.kind).removeprefix("TRANSITION_KIND_"),
                one.level,
                one.previous_value,
                one.value,
                one.event_id,
            )
            for one in answer.transitions
        ]

    async def notified(self, number: int | None = None) -> list[list[ShortTransition]]:
        """The transitions of each notification of the customer, oldest first; waits for that many notifications."""

        async def there() -> bool:
            return number is None or len(await self.caller.notifications()) >= number

        await until(there)
        stored = [one for one in await self.caller.notifications() if one.customer_id == self.customer]
        assert number is None or len(stored) == number
        return [one.transitions for one in stored]


def alert(
    *levels: str, scope: scope_pb2.AlertScope = ALL_CUSTOMERS, both: bool = True, **condition: Any
) -> alert_pb2.Alert:
    """An alert on that condition that notifies of both kinds."""
    kinds = BOTH if both else ()
    thresholds = [threshold_pb2.Threshold(value=level, notify_on=kinds) for level in levels]
    return alert_pb2.Alert(display_name="balance", scope=scope, thresholds=thresholds, **condition)

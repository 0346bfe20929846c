"""Customers that were changed and not evaluated yet, as a process leaves them when it ends."""

from typing import Any

from generated.tidemark.v1 import (
    customer_pb2,
)
from runtime.clock import ManualClock
from store.accounts.customer_evaluations import OWN_TIME
from tests.support.usage.caller import (
    Caller,
    on_plan,
    until,
)
from tests.support.usage.held_evaluations import NOTED, evaluations_held, ids

GOLD = on_plan("gold")


def on_gold(customer: str = "acme", **fields: Any) -> customer_pb2.Customer:
    """A customer on the plan gold."""
    return customer_pb2.Customer(customer_id=customer, plan_id="gold", **fields)


async def unevaluated(caller: Caller, clock: ManualClock, *customers: str) -> None:
    """Puts customers on the plan gold, and lets the time pass that only this call may use to evaluate them."""
    with evaluations_held():
        for customer in customers:
            await caller.put_customer(on_gold(customer))
    assert ids(await caller.rows(NOTED)) == sorted(customers)
    assert await caller.notifications() == []
    clock.set(clock.now() + OWN_TIME)


async def evaluated(caller: Caller) -> None:
    """Waits until no customer waits for its evaluation."""

    async def done() -> bool:
        return not await caller.rows(NOTED)

    await until(done)


async def notified(caller: Caller) -> list[tuple[str, str]]:
    """The alert and the type of each notification, without those of disabled alerts."""
    found = await caller.notifications()
    return sorted((one.alert_id, one.event_type) for one in found if one.event_type != "alert.disabled")

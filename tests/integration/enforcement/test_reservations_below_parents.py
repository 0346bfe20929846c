"""Reservations of customers that stand below others: one charge counts on all of them."""

import asyncio
from decimal import Decimal

from evaluator.enforcement.decisions import Outcome, OveragePolicy
from evaluator.enforcement.reservations import ReservationState
from generated.tidemark.v1 import customer_pb2
from tests.support.balances.holder import Holder
from tests.support.enforcement.gateway import Gateway, gateway_of, meters, outcomes, put_limit
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller
from tests.support.usage.voiding import void

ALLOWED, DENIED = Outcome.ALLOWED, Outcome.DENIED


@shares_server
async def test_parents_and_children_are_charged_together(caller: Caller, gateway: Gateway, other: Gateway) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="org"))
    await caller.put_customer(customer_pb2.Customer(customer_id="team", parent_customer_id="org"))
    for name in ("ann", "bob"):
        await caller.put_customer(customer_pb2.Customer(customer_id=name, parent_customer_id="team"))
    await put_limit(caller, "10", "of-org", customer="org")
    await put_limit(caller, "6", "of-ann", customer="ann")
    asked = [
        (gateway, other)[number % 2].reserve(f"r{number}", "2", customer=("ann", "bob")[number // 2 % 2])
        for number in range(20)
    ]
    answers = await asyncio.gather(*asked)
    assert outcomes(answers).count(ALLOWED) == 5
    stored = await meters(caller)
    assert stored["org", "usage/calls", "BILLING_PERIOD"] == ("0", "10")
    for answer in answers:
        one = answer.reservation
        if one is not None and one.state is ReservationState.OPEN:
            await gateway.settle(one.reservation_id, "1", customer=one.customer_id)
    stored = await meters(caller)
    assert stored["org", "usage/calls", "BILLING_PERIOD"] == ("5", "0")


@shares_server
async def test_a_customer_leaves_a_parent_with_balances_while_it_holds(caller: Caller, gateway: Gateway) -> None:
    """A server that has never known the former parent settles the reservation."""
    for parent in ("former", "next"):
        await caller.put_customer(customer_pb2.Customer(customer_id=parent))
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", parent_customer_id="former"))
    await put_limit(caller, "100", customer="former")
    for customer in ("former", "acme"):
        await Holder(caller, customer).put(f"of-{customer}", "100")
    await gateway.reserve("a", "3", cost="1", currency="USD")
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", parent_customer_id="next"))
    async with gateway_of(caller) as another:
        assert outcomes([await another.settle("a")]) == [ALLOWED]
    assert (await meters(caller))["former", "usage/calls", "BILLING_PERIOD"] == ("0", "0")


@shares_server
async def test_a_customer_keeps_its_order_while_a_server_learns_who_stands_above_it(caller: Caller) -> None:
    """Each customer is unknown at first, so its requests go to another writer than those of its parent."""
    customers = [f"user{number}" for number in range(8)]
    for customer in customers:
        await caller.put_customer(customer_pb2.Customer(customer_id=customer, parent_customer_id="parent"))
    await put_limit(caller, "100", customer="parent")
    async with gateway_of(caller, writers=7) as gateway:
        rules = gateway.pipeline._rules.of(gateway.organization.organization_id)
        for customer in customers:
            first = asyncio.create_task(gateway.reserve("a", customer=customer))
            while customer not in rules.cached.known and not first.done():  # noqa: ASYNC110 (it has no event)
                await asyncio.sleep(0)
            answers = await asyncio.gather(first, gateway.settle("a", customer=customer))
            assert outcomes(answers) == [ALLOWED, ALLOWED]


@shares_server
async def test_limits_above_count_the_usage_of_a_customer_that_has_moved(caller: Caller, gateway: Gateway) -> None:
    """What is voided afterwards leaves the parent that counts it: no limit has more room than its amount."""
    for parent in ("former", "next"):
        await caller.put_customer(customer_pb2.Customer(customer_id=parent, parent_customer_id=f"above-{parent}"))
        await put_limit(caller, "100", parent, customer=parent)
        await put_limit(caller, "200", f"above-{parent}", customer=f"above-{parent}")
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", parent_customer_id="former"))
    await gateway.reserve("a", "50")
    await gateway.settle("a")
    await gateway.reserve("b", "1", customer="next")
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", parent_customer_id="next"))
    found: dict[str, tuple[Decimal, Decimal]] = {}
    for customer in ("former", "next", "above-former", "above-next"):
        decision = await gateway.check("1000", customer=customer, policy=OveragePolicy.OVERFLOW)
        found |= {one.limit.limit_id: (one.counted, one.held) for one in decision.over}
    nothing, all_of_it = (Decimal(0), Decimal(0)), (Decimal(50), Decimal(1))
    assert found == {"former": nothing, "above-former": nothing, "next": all_of_it, "above-next": all_of_it}
    await void(caller, "a")
    assert outcomes([await gateway.reserve("c", "100", customer="next")]) == [DENIED]
    assert outcomes([await gateway.reserve("d", "99", customer="next")]) == [ALLOWED]

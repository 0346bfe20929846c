"""Enforcement and erasure: what a customer held goes, its usage leaves the meters above it, and no row names it."""

import pytest

from engine.enforcement.requests import CustomerBeingErased
from evaluator.enforcement.decisions import OveragePolicy
from generated.tidemark.v1 import customer_pb2, limit_pb2
from tests.support.enforcement.gateway import PROBE, Gateway, meters, put_limit, reserve, usage
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller
from tests.support.usage.erasing import PERSON, erase, erased, finished, held, rows_with

PARENT = "parent", "usage/calls", "BILLING_PERIOD"
ROLLING = {"rolling": {"duration": {"seconds": 600}}}
SOFT = limit_pb2.LIMIT_ENFORCEMENT_SOFT


async def held_of(gateway: Gateway, customer: str) -> tuple[int, int]:
    """Counted and held of the limit of a customer, which a commit stores, too."""
    await gateway.store_meters(customer)
    decision = await gateway.check("1", customer=customer)
    assert decision.limit is not None
    return int(decision.limit.counted), int(decision.limit.held)


async def names(caller: Caller) -> list[str]:
    rows = await caller.rows(
        "SELECT reservation_id FROM reservation WHERE organization_id = %(organization_id)s ORDER BY 1"
    )
    return [name for (name,) in rows if not name.startswith(PROBE)]


@shares_server
async def test_the_erasure_of_a_customer_gives_back_what_it_holds_above(caller: Caller, gateway: Gateway) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="parent"))
    await caller.put_customer(customer_pb2.Customer(customer_id=PERSON, parent_customer_id="parent"))
    await put_limit(caller, "10", customer="parent")
    await put_limit(caller, "10", "own", customer=PERSON, window=ROLLING)
    await gateway.reserve("open", "4", customer=PERSON)
    await gateway.reserve("settled", "1", customer=PERSON)
    await gateway.settle("settled", customer=PERSON)
    await gateway.reserve("other", "2", customer="parent")
    assert (await meters(caller))[PARENT] == ("1", "6")
    await erased(caller)
    assert await held_of(gateway, "parent") == (0, 2)
    assert await meters(caller) == {PARENT: ("0", "2")}
    assert await names(caller) == ["other"]
    assert await caller.rows("SELECT 1 FROM meter_minute WHERE organization_id = %(organization_id)s") == []
    await gateway.settle("other", customer="parent")


@shares_server
async def test_a_customer_that_is_being_erased_reserves_nothing(caller: Caller, gateway: Gateway) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id=PERSON))
    await caller.send(caller.event("e1", customer=PERSON))
    async with held(caller):
        await erase(caller)
        with pytest.raises(CustomerBeingErased):
            await gateway.reserve("a", customer=PERSON)
        [checked] = await gateway.checks.check(gateway.organization, [usage(customer=PERSON)], OveragePolicy.DEFAULT)
        assert isinstance(checked, CustomerBeingErased)


async def family(caller: Caller) -> None:
    """The person, with one above and one below."""
    for customer, parent in (("parent", ""), (PERSON, "parent"), ("child", PERSON), ("aunt", "parent")):
        await caller.put_customer(customer_pb2.Customer(customer_id=customer, parent_customer_id=parent))


@shares_server
async def test_reservations_of_those_below_name_an_erased_customer_no_more(caller: Caller, gateway: Gateway) -> None:
    await family(caller)
    await put_limit(caller, "10", f"soft {PERSON}", customer=PERSON, enforcement=SOFT, window=ROLLING)
    await put_limit(caller, "12", f"hard {PERSON}", customer=PERSON)
    await put_limit(caller, "100", customer="parent")
    await gateway.reserve("open", "4", customer="child")
    await gateway.reserve("moved", "3", customer="aunt")
    await caller.put_customer(customer_pb2.Customer(customer_id="aunt", parent_customer_id=PERSON))
    over = reserve("over", "8", customer="child", policy=OveragePolicy.OVERFLOW)
    denied = reserve("denied", "2", customer="child")
    [first_over, first_denied] = await gateway.ask(over, denied)
    assert first_over.decision is not None
    assert [one.meter.customer_id for one in first_over.decision.over] == [PERSON, PERSON]
    await gateway.settle("over", "9", customer="child")
    await caller.put_customer(customer_pb2.Customer(customer_id="aunt", parent_customer_id="parent"))
    job = await erased(caller)
    assert await rows_with(caller, PERSON) == {}
    # Repeated requests get the first answers, with the name that the customer has now.
    [again_over, again_denied] = await gateway.ask(over, denied)
    for first, again in ((first_over, again_over), (first_denied, again_denied)):
        assert first.decision is not None
        assert again.decision is not None
        assert (again.decision.outcome, again.decision.reason) == (first.decision.outcome, first.decision.reason)
    assert again_denied.decision is not None
    assert again_denied.decision.limit is not None
    assert again_denied.decision.limit.meter.customer_id.startswith("erased_")
    assert job.pseudonymised_count >= 4
    for name, customer in (("open", "child"), ("moved", "aunt")):
        await gateway.settle(name, customer=customer)
    assert await rows_with(caller, PERSON) == {}
    wallets = await caller.rows("SELECT customer_id FROM wallet WHERE organization_id = %(organization_id)s")
    assert sorted(name for (name,) in wallets) == ["aunt", "child", "parent"]
    assert {held for _, held in (await meters(caller)).values()} == {"0"}


@shares_server
async def test_usage_of_an_erased_customer_and_of_those_below_leaves_the_meters_above(
    caller: Caller, gateway: Gateway
) -> None:
    """At once, and the same whether a meter is counted anew then or later."""
    await family(caller)
    await put_limit(caller, "100", customer="parent")
    for customer, quantity in ((PERSON, "1"), ("child", "2"), ("aunt", "4")):
        await gateway.reserve("settled", quantity, customer=customer)
        await gateway.settle("settled", customer=customer)
        await gateway.reserve("open", quantity, customer=customer)
    assert await held_of(gateway, "parent") == (7, 7)
    async with held(caller):
        job = (await erase(caller)).job
        assert (await held_of(gateway, "parent"))[0] == 4
        await put_limit(caller, "100", "rolling", customer="parent", window=ROLLING)
        assert (await held_of(gateway, "aunt"))[0] == 4
    await finished(caller, job.job_id)
    # The child is below the parent no more; what it holds there, it holds until it ends.
    assert await held_of(gateway, "parent") == (4, 6)
    await gateway.settle("open", customer="child")
    assert await held_of(gateway, "parent") == (4, 4)
    assert (await meters(caller))["parent", "usage/calls", "ROLLING"] == ("4", "4")
    await gateway.settle("open", customer="aunt")
    assert {counted for counted, _ in (await meters(caller)).values()} == {"8"}

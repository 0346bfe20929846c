"""Checks: the decision of a reservation without its effect."""

import asyncio
from datetime import timedelta
from decimal import Decimal

from evaluator.enforcement.decisions import Decision, Outcome, OveragePolicy, Reason
from generated.tidemark.v1 import customer_pb2
from tests.support.enforcement.gateway import SOFT, Gateway, put_limit, usage
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller

ALLOWED, CAPPED, DENIED = Outcome.ALLOWED, Outcome.CAPPED, Outcome.DENIED


@shares_server
async def test_a_check_decides_like_a_reservation_and_holds_nothing(caller: Caller, gateway: Gateway) -> None:
    await put_limit(caller, "10")
    await gateway.reserve("a", "8")
    for _ in range(2):
        denied = await gateway.check("3")
        assert (denied.outcome, denied.reason) == (DENIED, Reason.LIMIT)
        assert denied.retry_after == timedelta(seconds=1)
        capped = await gateway.check("3", policy=OveragePolicy.CAP)
        assert (capped.outcome, capped.granted_quantity) == (CAPPED, Decimal(2))
    allowed = await gateway.check("2")
    assert allowed.outcome is ALLOWED
    assert allowed.limit is not None
    assert allowed.limit.remaining == 2


@shares_server
async def test_the_limit_that_leaves_least_is_shown(caller: Caller, gateway: Gateway) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="parent"))
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", parent_customer_id="parent"))
    await put_limit(caller, "10", "own")
    await put_limit(caller, "100", "above", customer="parent")
    await put_limit(
        caller, "1", "soft", metric="calls", enforcement=SOFT, window={"rolling": {"duration": {"seconds": 60}}}
    )
    await gateway.reserve("a", "5")
    shown = await gateway.check("1")
    assert shown.limit is not None
    assert shown.limit.limit.limit_id == "own"
    assert [one.limit.limit_id for one in shown.over] == ["soft"]
    await gateway.reserve("b", "90", customer="parent")
    shown = await gateway.check("1")
    assert shown.limit is not None
    assert shown.limit.limit.limit_id == "above"


@shares_server
async def test_a_check_of_what_is_unknown_registers_nothing(caller: Caller, gateway: Gateway) -> None:
    wanted = usage("3", customer="nobody", metric="unheard", subscription="s", cost="2")
    [found] = await gateway.checks.check(gateway.organization, [wanted], OveragePolicy.DEFAULT)
    assert found == Decision(ALLOWED, Decimal(3), Decimal(2))
    [[number]] = await caller.rows(
        "SELECT (SELECT count(*) FROM customer WHERE organization_id = %(organization_id)s)"
        " + (SELECT count(*) FROM subscription WHERE organization_id = %(organization_id)s)"
        " + (SELECT count(*) FROM wallet WHERE organization_id = %(organization_id)s)"
    )
    assert number == 0


@shares_server
async def test_checks_see_changed_limits_and_new_customers(caller: Caller, gateway: Gateway) -> None:
    assert (await gateway.check("5")).outcome is ALLOWED
    await put_limit(caller, "4")
    assert (await gateway.check("5")).outcome is DENIED
    await put_limit(caller, "6")
    assert (await gateway.check("5")).outcome is ALLOWED
    await put_limit(caller, "1", "of-plan", plan="small")
    assert (await gateway.check("2", customer="bob")).outcome is ALLOWED
    await caller.put_customer(customer_pb2.Customer(customer_id="bob", plan_id="small"))
    assert (await gateway.check("2", customer="bob")).outcome is DENIED


@shares_server
async def test_many_checks_at_once_are_each_answered(caller: Caller, gateway: Gateway) -> None:
    for number in range(1, 11):
        await put_limit(caller, str(number), f"limit-{number}", customer=f"c{number}")
    wanted = [[usage(str(quantity), customer=f"c{number}") for quantity in range(1, 12)] for number in range(1, 11)]
    answers = await asyncio.gather(
        *[gateway.checks.check(gateway.organization, one, OveragePolicy.DEFAULT) for one in wanted]
    )
    for number, found in enumerate(answers, start=1):
        outcomes = [one.outcome for one in found if isinstance(one, Decision)]
        assert outcomes == [ALLOWED] * number + [DENIED] * (11 - number)

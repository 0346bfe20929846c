"""Checks: the decision of a reservation without its effect."""

import asyncio
from datetime import timedelta
from decimal import Decimal

from evaluator.enforcement.decisions import Decision, Outcome, OveragePolicy, Reason
from generated.tidemark.v1 import customer_pb2
from runtime.clock import ManualClock
from tests.support.enforcement.gateway import SOFT, Gateway, put_limit, usage
from tests.support.enforcement.limits import Limits, message, next_of
from tests.support.enforcement.limits import reserve as reserve_json
from tests.support.enforcement.limits import usage as usage_json
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller
from tests.support.usage.voiding import void

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


TABLES = ("meter", "meter_minute", "reservation", "wallet", "customer", "metric", "subscription", "gauge", "event")


async def rows_of(caller: Caller) -> dict[str, int]:
    """How many rows the organization has in each table that enforcement writes."""
    found = {}
    for table in TABLES:
        [[number]] = await caller.rows(f"SELECT count(*) FROM {table} WHERE organization_id = %(organization_id)s")
        found[table] = number
    return found


@shares_server
async def test_checks_of_new_groups_windows_and_customers_write_nothing(caller: Caller, gateway: Gateway) -> None:
    """Neither by a call of their own, nor on a stream, nor beside requests that do write."""
    await put_limit(caller, "10", "of-models", groups=[{"key": "model"}])
    await put_limit(caller, "10", "rolling", window={"rolling": {"duration": {"seconds": 3600}}})
    await put_limit(caller, "10", "of-plan", plan="free")
    await caller.send(caller.event("e1", "4", model="known"))
    await gateway.reserve("r1", "1", model="known")
    before = await rows_of(caller)
    for number in range(30):
        decision = await gateway.check("7", model=f"m{number}")
        assert decision.limit is not None
        assert (decision.outcome, decision.limit.limit.limit_id) == (DENIED, "rolling")
    assert (await gateway.check("11", customer="new", metric="unheard")).outcome is ALLOWED
    limits = Limits(caller)
    stream = limits.open("EnforceUsage")
    await stream.write(message("1", *[{"check": {"usage": usage_json("2", f"c{number}")}} for number in range(3)]))
    answer = await next_of(stream)
    assert [one["check"]["decision"]["outcome"] for one in answer["results"]] == ["DECISION_OUTCOME_ALLOWED"] * 3
    assert await rows_of(caller) == before


@shares_server
async def test_a_check_on_a_stream_sees_the_whole_message(caller: Caller) -> None:
    await put_limit(caller, "10")
    limits = Limits(caller)
    stream = limits.open("EnforceUsage")
    check = {"check": {"usage": usage_json("1")}}
    bad = {"check": {"usage": usage_json("-1")}}
    await stream.write(message("1", reserve_json("a", "3"), check, bad, reserve_json("b", "2"), check))
    results = (await next_of(stream))["results"]
    assert [next(iter(one)) for one in results] == ["reserve", "check", "error", "reserve", "check"]
    remaining = [results[index]["check"]["decision"]["limit"]["remaining"] for index in (1, 4)]
    assert remaining == ["5", "5"]


async def test_what_a_check_has_counted_is_kept_and_stays_right(
    caller: Caller, gateway: Gateway, clock: ManualClock
) -> None:
    """Of a limit that began after the usage: until something moves its meter, and while a rolling window moves on."""
    for number in range(5):
        await caller.send(caller.event(f"e{number}", "2", model="a"))
        clock.advance(timedelta(minutes=1))
    await put_limit(caller, "10", window={"rolling": {"duration": {"seconds": 3600}}})
    await put_limit(caller, "100", "of-models", groups=[{"key": "model"}])
    start = clock.now() - timedelta(minutes=5)
    for wanted, minutes in (("3", 62), ("10", 65), ("1", 61)):
        denied = await gateway.check(wanted)
        assert denied.limit is not None
        assert (denied.outcome, denied.limit.counted, denied.limit.reset_time) == (
            DENIED,
            Decimal(10),
            start + timedelta(minutes=minutes),
        )
        assert denied.retry_after == start + timedelta(minutes=minutes) - clock.now()
    clock.advance(timedelta(minutes=4))
    for _ in range(2):
        shown = await gateway.check("1", model="a")
        assert shown.limit is not None
        assert shown.limit.counted == 10
    clock.advance(timedelta(minutes=53))
    shown = await gateway.check("1")
    assert shown.limit is not None
    assert (shown.outcome, shown.limit.counted) == (ALLOWED, Decimal(6))
    await caller.send(caller.event("late", "1", model="a"))
    shown = await gateway.check("1", model="a")
    assert shown.limit is not None
    assert shown.limit.counted == 7
    await void(caller, "late")
    shown = await gateway.check("1", model="a")
    assert shown.limit is not None
    assert shown.limit.counted == 6
